"""The pod's own HTTP/2 server, which runs in the event loop itself: no other thread, no other process.

The C side, `modelyard/http2/native/http2_server.c`, reads and writes its connections with nghttp2 when the event loop
tells it to. It hands over the calls of one path, and relays all others to a gRPC server behind it.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections.abc import Sequence
from contextvars import Context
from pathlib import Path

from modelyard.http2.library import LIBRARY, PREFIX, VERSION

from .arrivals import JoiningArrivals, Receiver

_SILENCE_S = 30.0
"""Clients that were silent for so long are asked whether they are there; after as long again they are not."""
_POLL_S = 0.01
_NOTICE_S = 0.1
"""What clients are given to hear that a connection will take no new streams: calls on their way are still taken."""


class Http2Server(JoiningArrivals):
    """A server for listening sockets. Use it in one event loop."""

    def __init__(self, library: Path = LIBRARY) -> None:
        """Raises OSError if the library cannot be loaded, OtherVersion, Nghttp2Missing."""
        super().__init__(library, PREFIX, VERSION)
        self.find_nghttp2()
        text, size, server = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p
        self._open = self.function("open", server, ctypes.c_void_p, size, text, text, size, size, ctypes.c_int)
        self._descriptor = self.function("descriptor", ctypes.c_int, server)
        self._turn = self.function("turn", size, server, ctypes.c_void_p)
        self._send = self.function("send", None, server)
        self._write = self.function("flush", size, server, ctypes.c_void_p)
        self._look_for_silent = self.function("look_for_silent", None, server)
        self._drain = self.function("drain", None, server)
        self._end = self.function("end", None, server)
        self._open_streams = self.function("open_streams", size, server)
        self._close = self.function("close", None, server)
        self._loop = asyncio.get_running_loop()
        self._server: int | None = None
        self._flushing = False
        self._lone = False
        """Whether what is being handed over is all that came, and not answered yet."""
        self._context = Context()
        """Nobody's: what comes belongs to none of the calls that are being answered."""

    def open(
        self, receiver: Receiver, listeners: Sequence[socket.socket], path: str, behind: str, *,
        max_message_bytes: int, max_connections: int,
    ) -> None:  # fmt: skip
        """Hands calls of `path` to `receiver` until `close`, and relays others to the Unix socket `behind`.

        `listeners` must be listening; they are closed by `close`. Raises OSError.
        """
        self.expect(max_message_bytes)
        for listener in listeners:
            listener.setblocking(False)
        self._listeners = listeners
        self._receiver = receiver
        numbers = (ctypes.c_int * len(listeners))(*[listener.fileno() for listener in listeners])
        server = self._open(
            numbers, len(listeners), path.encode(), behind.encode(), max_message_bytes, max_connections, 0
        )  # fmt: skip
        if not server:
            raise OSError(f"cannot serve on {len(listeners)} sockets with {behind} behind them")
        self._server = server
        self._context.run(self._loop.add_reader, self._descriptor(server), self._have_turn)
        self._silence = self._loop.call_later(_SILENCE_S, self._look, context=self._context)

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Takes no new connections, then no new calls; returns when those that run have ended, after the grace, or when
        it is urgent.
        """
        self._drain(self._server)
        self._close_listeners()
        self.flush()
        until = self._loop.time() + grace_s
        await asyncio.sleep(min(_NOTICE_S, grace_s))
        self._end(self._server)
        self.flush()
        while self._open_streams(self._server):
            if hurry.is_set() or self._loop.time() >= until:
                break
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Closes all connections. No call that was handed over may be without an answer any more."""
        self.flush()
        self._silence.cancel()
        self._loop.remove_reader(self._descriptor(self._server))
        self._close_listeners()
        self._close(self._server)
        self._server = None

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def flush(self) -> None:
        """Sends the answers that were given; without effect when it is closed."""
        self._flushing = False
        if self._server is None:
            return
        self._hand_over(self._write(self._server, self.events_at))

    def flush_soon(self) -> None:
        """See `Arrivals`. The answer to what came alone is sent at once: there is none to be sent together with it, and
        its caller need not wait until it has been counted."""
        if self._lone:
            self._lone = False
            self._send(self._server)
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush, context=self._context)

    def _have_turn(self) -> None:
        self._hand_over(self._turn(self._server, self.events_at))

    def _hand_over(self, count: int) -> None:
        while count:
            flushing, self._flushing = self._flushing, True  # what is answered meanwhile is sent here, together
            self._lone = count == 1
            try:
                self.hand_over(count, self._receiver)
            finally:
                self._flushing = flushing
                self._lone = False
            count = self._write(self._server, self.events_at)

    def _look(self) -> None:
        self._look_for_silent(self._server)
        self.flush()
        self._silence = self._loop.call_later(_SILENCE_S, self._look, context=self._context)
