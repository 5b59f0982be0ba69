"""Where calls cross from Envoy's threads into the interpreter, and answers back: many at a time.

The C side, `native/crossing.c`, is an HTTP filter of Envoy that gathers calls without the interpreter. It wakes the
event loop once for all calls that wait. It is the same library in the same process that Envoy loads as its module.
"""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path

from .arrivals import Arrivals, Receiver

LIBRARY = Path(__file__).parent / "native/libcrossing.so"
"""Built when the package is installed (`hatch_build.py`); absent where it could not be."""

_VERSION = 2
"""native/crossing.c's."""


class Crossing(Arrivals):
    """The library in this process. Only inside an Envoy that exports its interface for dynamic modules."""

    def __init__(self, library: Path = LIBRARY) -> None:
        """Raises OSError if it cannot be loaded, OtherVersion."""
        super().__init__(library, "crossing", _VERSION)
        self._open = self.function("open", ctypes.c_int, ctypes.c_size_t)
        self._close = self.function("close", None)
        self._take = self.function("take", ctypes.c_size_t, ctypes.c_void_p)
        self._readable = -1

    def open(self, receiver: Receiver, max_message_bytes: int) -> None:
        """Has calls handed to `receiver`, in the running event loop, until `close`. Raises OSError."""
        self.expect(max_message_bytes)
        self._readable = self._open(max_message_bytes)
        if self._readable < 0:
            raise OSError("Envoy's threads cannot wake Python: no event file descriptor")
        asyncio.get_running_loop().add_reader(self._readable, self._receive, receiver)

    def close(self) -> None:
        """Envoy tells the callers of further calls that the pod is stopping. What was handed over can be answered."""
        self._close()
        asyncio.get_running_loop().remove_reader(self._readable)

    def _receive(self, receiver: Receiver) -> None:
        count = self._take(self.events_at)
        if count:
            self.hand_over(count, receiver)
