"""Virtual environments for programs that cannot live in ours: other pins, other NumPy, other protobuf."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from . import workshop

_STAMP = "requirements.sha256"


class SetUpFailed(Exception):
    """Something the benchmarks need could not be installed or built; the text says what and how to get it."""


def environment(name: str, requirements: Path, *, torch: bool = False) -> Path:
    """The folder of a virtual environment with exactly these requirements, made by this interpreter if it is not there.

    `requirements`: a pip requirements file with pinned versions; a changed file makes the environment anew.
    `torch`: with PyTorch for the processor, by the repository's own installer.
    Raises SetUpFailed with pip's last lines.
    """
    wanted = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    place = workshop.folder("environments") / name
    with (workshop.folder("environments") / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs may set up at once
        stamp = place / _STAMP
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
            run(sys.executable, "-m", "venv", str(place))
            if torch:
                run(str(workshop.REPOSITORY / "tools/install_torch.sh"), str(place / "bin/python"), "cpu")
            run(str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", str(requirements))
            stamp.write_text(wanted)
    return place


def run(*command: str) -> str:
    """Runs a command of the set-up and answers what it printed; raises SetUpFailed with its last lines."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        last = "\n".join(finished.stderr.splitlines()[-15:])
        raise SetUpFailed(f"{' '.join(command)} failed:\n{last}")
    return finished.stdout


def system_program(name: str, package: str) -> str:
    """The path of a program that the operating system's packages bring; raises SetUpFailed with the package's name."""
    found = shutil.which(name)
    if found is None:
        raise SetUpFailed(f"{name} is missing: apt-get install {package}")
    return found


def compiled(source: Path) -> Path:
    """A C++ program against Debian's gRPC, built when its source is new. Raises SetUpFailed."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    program = workshop.folder("built") / f"{source.stem}-{digest}"
    if not program.exists():
        compiler = system_program("g++", "g++ libgrpc++-dev")
        flags = run(system_program("pkg-config", "pkg-config"), "--cflags", "--libs", "grpc++").split()
        partial = program.with_suffix(".part")
        run(compiler, "-O2", "-std=c++17", str(source), "-o", str(partial), *flags)
        partial.replace(program)
    return program
