"""A worker's wall clock that can be set, also while it runs: by a library that is preloaded into it and its trainers.

The library (`native/settable_clock.c`) stands between them and the C library and so reaches Python's `time.time` and
`datetime`, gRPC and torch alike. The monotonic clock is left alone, as when somebody sets a machine's clock.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parent.with_name("native") / "settable_clock.c"


def build_library(folder: Path) -> Path | None:
    """Compiles the library into `folder`; None where there is no compiler."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        return None
    library = folder / "settable_clock.so"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run([*compiler, *flags, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


class Clock:
    """One worker's."""

    def __init__(self, file: Path, library: Path | None) -> None:
        """`library`: None for a clock that cannot be set."""
        self._file = file
        self._library = library
        file.write_bytes(struct.pack("=q", 0))

    @property
    def can_be_set(self) -> bool:
        """Whether the library is there."""
        return self._library is not None

    def set(self, offset_s: int) -> None:
        """From now on the clock is so many seconds ahead of the true time, for processes that run too."""
        with self._file.open("r+b", buffering=0) as file:  # in place: they have it mapped
            file.write(struct.pack("=q", offset_s))

    def environment(self) -> dict[str, str]:
        """What makes a program live by this clock."""
        if self._library is None:
            return {}
        return {"LD_PRELOAD": str(self._library), "SETTABLE_CLOCK_FILE": str(self._file)}
