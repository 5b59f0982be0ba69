"""The door's direct lane: predictions go from its own HTTP/2 server straight to the pods, everything else to Envoy.

So does a prediction that no pod has begun to answer: Envoy has the patience to find another pod. It also says which
pods are well, and takes the connections that do not speak HTTP/2. See docs/adr/0026-the-doors-direct-lane.md.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.http2.library import EVENT, LIBRARY, PREFIX, VERSION
from modelyard.http2.server import Server
from modelyard.oip.service import method_path

PREDICT = method_path("ModelInfer")
_LAST_WORDS_S = 0.1
"""For connections to end by themselves when all calls have ended."""


class Front(Server):
    """The server. Use it in one event loop."""

    def __init__(self, on_stranger: Callable[[socket.socket, bytes], None]) -> None:
        """`on_stranger`: gets connections that do not begin as HTTP/2 does, and what was read of them.

        Raises as `Server` does.
        """
        super().__init__(LIBRARY, PREFIX, VERSION)
        self._set_pods = self.function("set_pods", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self._on_stranger = on_stranger

    def open(
        self, listeners: Sequence[socket.socket], envoy_socket: Path, *, max_message_bytes: int, max_connections: int
    ) -> None:
        """Serves until `close`. `envoy_socket`: Envoy's, for everything but predictions. Raises OSError."""
        self.start(
            listeners, PREDICT, str(envoy_socket),
            max_message_bytes=max_message_bytes, max_connections=max_connections, is_door=True,
        )  # fmt: skip

    def set_pods(self, addresses: Sequence[str]) -> None:
        """Has predictions sent to these pods, `IP:PORT` or `unix:PATH`, and to no others.

        Connects to those to which there is no connection (any more), so it is to be told again and again.
        """
        texts = (ctypes.c_char_p * len(addresses))(*[address.encode() for address in addresses])
        self._set_pods(self.server, texts, len(addresses))

    async def leave(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Lets calls end, for so long at most or until it is urgent. New connections are taken meanwhile: the door may
        be the only one."""
        until = self.loop.time() + grace_s
        self.announce_end()
        await self.until_idle(until, hurry)
        self.take_no_more()
        if not hurry.is_set():
            await asyncio.sleep(_LAST_WORDS_S)

    def tell(self, count: int) -> None:
        """See `Server`."""
        while count:
            for _kind, descriptor, *_, read, size, _id_at, _id_size, _raw_at in EVENT.iter_unpack(self.told(count)):
                self._on_stranger(socket.socket(fileno=descriptor), ctypes.string_at(read, size))
            count = self.write(self.server, self.events_at)
