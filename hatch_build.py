"""Builds the native parts with the package; without a compiler the package comes without it.

The compiler is $CC, or cc, or that of the package `ziglang`, which the build asks for where there is no other.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = (
    Path("services/modelyard/http2/native/http2_server.c"),
    Path("services/modelyard/inference/lane/native/crossing.c"),
)
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread")


class NativeBuild(BuildHookInterface[Any]):
    """Compiles each of `SOURCES` into a library beside it, `libNAME.so`."""

    def dependencies(self) -> list[str]:
        """What the build needs of the package index."""
        return [] if _is_windows_or_mac() or _installed_compiler() else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's interface
        """Called by hatchling before it collects the files."""
        if self.target_name != "wheel" or _is_windows_or_mac():
            return
        for source in SOURCES:
            compile_library(Path(self.root) / source)
            build_data["artifacts"].append(f"/{library_of(source)}")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"


def library_of(source: Path) -> Path:
    """Where its library lies."""
    return source.with_name(f"lib{source.stem}.so")


def compile_library(source: Path) -> None:
    """Compiles a file; raises CalledProcessError."""
    library = library_of(source)
    compiler = _installed_compiler() or [sys.executable, "-m", "ziglang", "cc"]
    # Beside its place, then moved there: a program that runs with the old one keeps it.
    fresh = library.with_suffix(".new")
    subprocess.run(  # noqa: S603 - the compiler of whoever builds
        [*compiler, *FLAGS, "-o", str(fresh), str(source), "-ldl"], check=True
    )
    fresh.replace(library)


def _installed_compiler() -> list[str] | None:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return [found] if found else None


def _is_windows_or_mac() -> bool:
    return sys.platform != "linux"
