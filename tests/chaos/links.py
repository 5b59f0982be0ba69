"""A network between two programs that can be cut or go silent: a TCP proxy that also balances, as a cluster's does."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 64 * 1024
_CONNECT_S = 2.0

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Link:
    """From one address to any of several `host:port`, connection by connection in turn. Its methods are thread-safe."""

    name: str
    upstreams: Sequence[str]
    listener: socket.socket = field(repr=False)
    loop: asyncio.AbstractEventLoop = field(repr=False)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _is_cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        """Where it listens."""
        return "{}:{}".format(*self.listener.getsockname())

    def cut(self) -> None:
        """Breaks all connections; new ones are closed at once."""
        self.loop.call_soon_threadsafe(self._cut)

    def stall(self) -> None:
        """Lets nothing through and breaks nothing, as a dead switch does."""
        self.loop.call_soon_threadsafe(self._flowing.clear)

    def mend(self) -> None:
        """Everything flows again."""
        self.loop.call_soon_threadsafe(self._mend)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def _mend(self) -> None:
        self._is_cut = False
        self._flowing.set()

    async def serve(self) -> None:
        """Passes connections on until cancelled."""
        self._flowing.set()
        server = await asyncio.start_server(self._pass_on, sock=self.listener)
        async with server:
            await server.serve_forever()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            upstream = None if self._is_cut else await self._connect()
            if upstream is not None:
                await self._join((reader, writer), upstream)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, client: Pair, server: Pair) -> None:
        self._writers.add(server[1])
        ways = [
            asyncio.create_task(self._pump(client[0], server[1])),
            asyncio.create_task(self._pump(server[0], client[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers.discard(server[1])
            server[1].transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()

    async def _connect(self) -> Pair | None:
        first = next(self._turns)
        for index in range(len(self.upstreams)):
            host, _, port = self.upstreams[(first + index) % len(self.upstreams)].rpartition(":")
            with suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(host, int(port)), _CONNECT_S)
        return None


class Network:
    """Links, served by one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def link(self, name: str, upstreams: Sequence[str]) -> Link:
        """A new link that works."""
        listener = socket.create_server(("127.0.0.1", 0))
        made = Link(name, tuple(upstreams), listener, self._loop)
        self._loop.call_soon_threadsafe(lambda: self._tasks.append(self._loop.create_task(made.serve())))
        return made

    @contextmanager
    def running(self) -> Iterator[Network]:
        """Serves for the length of a `with`."""
        self._thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
