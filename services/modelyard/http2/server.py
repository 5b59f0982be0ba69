"""The HTTP/2 server in the running event loop: no other thread, no other process.

The C side, `native/http2_server.c`, reads and writes its connections with nghttp2 when the event loop tells it to.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections.abc import Sequence
from contextvars import Context
from pathlib import Path

from .library import NativeLibrary

_SILENCE_S = 30.0
"""Clients that were silent for so long are asked whether they are there; after as long again they are not."""
_POLL_S = 0.01
_NOTICE_S = 0.1
"""What clients are given to hear that a connection will take no new streams: calls on their way are still taken."""


class Server(NativeLibrary):
    """A server for listening sockets. A subclass says what becomes of what it tells."""

    def __init__(self, library: Path, prefix: str, version: int) -> None:
        """Raises OSError if the library cannot be loaded, OtherVersion, Nghttp2Missing."""
        super().__init__(library, prefix, version)
        self.find_nghttp2()
        text, size, server = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p
        self._open = self.function("open", server, ctypes.c_void_p, size, text, text, size, size, ctypes.c_int)
        self._descriptor = self.function("descriptor", ctypes.c_int, server)
        self._turn = self.function("turn", size, server, ctypes.c_void_p)
        self.write = self.function("flush", size, server, ctypes.c_void_p)
        """Sends what there is to send and answers how many events there are now."""
        self._look_for_silent = self.function("look_for_silent", None, server)
        self._drain = self.function("drain", None, server)
        self._end = self.function("end", None, server)
        self._open_streams = self.function("open_streams", size, server)
        self._close = self.function("close", None, server)
        self.loop = asyncio.get_running_loop()
        self.context = Context()
        """Nobody's: what comes belongs to none of the calls that are being answered."""
        self.server: int | None = None
        """For the functions of the library; none while it is closed."""

    def start(
        self, listeners: Sequence[socket.socket], path: str, behind: str, *,
        max_message_bytes: int, max_connections: int, is_door: bool,
    ) -> None:  # fmt: skip
        """Takes connections until `close`.

        Calls of `path` are handed over, or sent to pods at a door; others are relayed to the Unix socket `behind`.
        `listeners` must be listening; they are closed by `close`. Raises OSError.
        """
        for listener in listeners:
            listener.setblocking(False)
        self._listeners = listeners
        numbers = (ctypes.c_int * len(listeners))(*[listener.fileno() for listener in listeners])
        server = self._open(
            numbers, len(listeners), path.encode(), behind.encode(), max_message_bytes, max_connections, is_door
        )  # fmt: skip
        if not server:
            raise OSError(f"cannot serve on {len(listeners)} sockets with {behind} behind them")
        self.server = server
        self.context.run(self.loop.add_reader, self._descriptor(server), self._have_turn)
        self._silence = self.loop.call_later(_SILENCE_S, self._look, context=self.context)

    def tell(self, count: int) -> None:
        """Sees to so many events, and to those that come of that."""
        raise NotImplementedError

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Takes no new connections, then no new calls; returns when those that run have ended, after the grace, or when
        it is urgent.
        """
        until = self.loop.time() + grace_s
        self.announce_end()
        self.close_listeners()
        await asyncio.sleep(min(_NOTICE_S, grace_s))
        self.take_no_more()
        await self.until_idle(until, hurry)

    def announce_end(self) -> None:
        """Tells clients that their connections will take no new calls soon."""
        self._drain(self.server)
        self.flush()

    def take_no_more(self) -> None:
        """Takes no new calls: connections are closed when their last one has ended."""
        self._end(self.server)
        self.flush()

    async def until_idle(self, until: float, hurry: asyncio.Event) -> None:
        """Returns when no call is running, at this time of the loop's clock, or when it is urgent."""
        while self._open_streams(self.server):
            if hurry.is_set() or self.loop.time() >= until:
                break
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Closes all connections. No call that was handed over may be without an answer any more."""
        self.flush()
        self._silence.cancel()
        self.loop.remove_reader(self._descriptor(self.server))
        self.close_listeners()
        self._close(self.server)
        self.server = None

    def close_listeners(self) -> None:
        """Takes no new connections."""
        for listener in self._listeners:
            listener.close()

    def flush(self) -> None:
        """Sends what there is to send; without effect when it is closed."""
        if self.server is not None:
            self.tell(self.write(self.server, self.events_at))

    def _have_turn(self) -> None:
        self.tell(self._turn(self.server, self.events_at))

    def _look(self) -> None:
        self._look_for_silent(self.server)
        self.flush()
        self._silence = self.loop.call_later(_SILENCE_S, self._look, context=self.context)
