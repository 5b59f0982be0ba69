"""The pod's own HTTP/2 server, which runs in the event loop itself: no other thread, no other process.

It hands over the calls of one path, and relays all others to a gRPC server behind it.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from pathlib import Path

from modelyard.http2.library import LIBRARY, PREFIX, VERSION
from modelyard.http2.server import Server

from .arrivals import JoiningArrivals, Receiver


class Http2Server(JoiningArrivals, Server):
    """A server for listening sockets. Use it in one event loop."""

    def __init__(self, library: Path = LIBRARY) -> None:
        """Raises as `Server` does."""
        super().__init__(library, PREFIX, VERSION)
        self._send = self.function("send", None, ctypes.c_void_p)
        self._flushing = False
        self._lone = False
        """Whether what is being handed over is all that came, and not answered yet."""

    def open(
        self, receiver: Receiver, listeners: Sequence[socket.socket], path: str, behind: str, *,
        max_message_bytes: int, max_connections: int,
    ) -> None:  # fmt: skip
        """Hands calls of `path` to `receiver` until `close`, and relays others to the Unix socket `behind`.

        `listeners` must be listening; they are closed by `close`. Raises OSError.
        """
        self.expect(max_message_bytes)
        self._receiver = receiver
        self.start(
            listeners, path, behind,
            max_message_bytes=max_message_bytes, max_connections=max_connections, is_door=False,
        )  # fmt: skip

    def flush(self) -> None:
        """Sends the answers that were given; without effect when it is closed."""
        self._flushing = False
        super().flush()

    def flush_soon(self) -> None:
        """See `Arrivals`. The answer to what came alone is sent at once: there is none to be sent together with it, and
        its caller need not wait until it has been counted."""
        if self._lone:
            self._lone = False
            self._send(self.server)
        elif not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush, context=self.context)

    def tell(self, count: int) -> None:
        """See `Server`."""
        while count:
            flushing, self._flushing = self._flushing, True  # what is answered meanwhile is sent here, together
            self._lone = count == 1
            try:
                self.hand_over(count, self._receiver)
            finally:
                self._flushing = flushing
                self._lone = False
            count = self.write(self.server, self.events_at)
