"""Native libraries of this package, loaded with ctypes and checked against the version of their Python side."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
"""The server is built here when the package is installed (`hatch_build.py`); absent where it could not be."""
LIBRARY = NATIVE / "libhttp2_server.so"
PREFIX, VERSION = "http2", 6
"""native/http2_server.c's."""
EVENT = struct.Struct("=14Q")
"""An event, as native/arrival.h has it."""


class OtherVersion(Exception):
    """A library was built from another version of its source."""


class Nghttp2Missing(Exception):
    """The library nghttp2 is not there, or lacks something; the text says what."""


class NativeLibrary:
    """One library in this process, whose functions are called by one thread."""

    def __init__(self, library: Path, prefix: str, version: int) -> None:
        """`prefix`: of the names of its functions. Raises OSError if it cannot be loaded, OtherVersion."""
        self.native = ctypes.PyDLL(str(library))  # keeps the interpreter's lock: all of its functions are short
        self.prefix = prefix
        self._events = ctypes.c_void_p()
        self.events_at = ctypes.addressof(self._events)
        """Where a function of the library puts the address of its events."""
        found = self.function("version", ctypes.c_int)()
        if found != version:
            raise OtherVersion(f"{library} has version {found}, expected {version}: install the package again")

    def function(self, name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
        """One of the library's functions."""
        function = self.native[f"{self.prefix}_{name}"]
        function.restype, function.argtypes = result, arguments
        return function

    def told(self, count: int) -> bytes:
        """The events of which a function has told, one behind the other, each of EVENT's size."""
        return ctypes.string_at(self._events.value or 0, count * EVENT.size)

    def find_nghttp2(self) -> None:
        """Has the server's library find nghttp2; raises Nghttp2Missing."""
        missing = self.function("load", ctypes.c_char_p)()
        if missing is not None:
            raise Nghttp2Missing(missing.decode())


class Unavailable(Exception):
    """The server cannot run here; the text says what is missing."""


def check_requirements() -> None:
    """Raises Unavailable."""
    if not LIBRARY.is_file():
        raise Unavailable("the package was installed without a C compiler, and so without its native libraries")
    try:
        NativeLibrary(LIBRARY, PREFIX, VERSION).find_nghttp2()
    except Nghttp2Missing as error:
        raise Unavailable(f"{error} is not installed (Debian: libnghttp2-14)") from error
    except (OSError, OtherVersion) as error:
        raise Unavailable(str(error)) from error
