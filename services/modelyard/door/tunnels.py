"""Connections that do not speak HTTP/2 (gRPC-Web of browsers, probes): passed to Envoy byte by byte.

Envoy is told whose they are by HAProxy's PROXY protocol, version 1:
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

_PIECE = 64 * 1024


class Tunnels:
    """To one socket of Envoy. Use it in one event loop."""

    def __init__(self, envoy_socket: Path, most: int) -> None:
        """`most`: at a time; more are refused."""
        self._envoy_socket = envoy_socket
        self._most = most
        self._running: set[asyncio.Task[None]] = set()

    def take(self, client: socket.socket, first: bytes) -> None:
        """Passes on a connection, of which `first` has been read."""
        if len(self._running) >= self._most:
            client.close()
            return
        task = asyncio.get_running_loop().create_task(self._run(client, first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Ends all."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, client: socket.socket, first: bytes) -> None:
        try:
            greeting = proxy_line(client)
            client.setblocking(False)
            outside = await asyncio.open_connection(sock=client)
        except OSError:  # it has gone meanwhile
            client.close()
            return
        try:
            inside = await asyncio.open_unix_connection(self._envoy_socket)
        except OSError:
            outside[1].close()
            return
        inside[1].write(greeting + first)
        there = asyncio.create_task(_pass_on(outside[0], inside[1]))
        try:
            await _pass_on(inside[0], outside[1])  # a client that has said all may wait for an answer; Envoy does not
        finally:
            there.cancel()
            for _reader, writer in (outside, inside):
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


def proxy_line(client: socket.socket) -> bytes:
    """What the PROXY protocol says of a connection; raises OSError if it is none any more."""
    if client.family not in (socket.AF_INET, socket.AF_INET6):
        return b"PROXY UNKNOWN\r\n"
    (source, source_port, *_), (here, port, *_) = client.getpeername(), client.getsockname()
    version = "TCP6" if client.family == socket.AF_INET6 else "TCP4"
    return f"PROXY {version} {source} {here} {source_port} {port}\r\n".encode()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what comes, which is passed on too."""
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
