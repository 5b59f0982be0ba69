"""A gRPC client that sends what it is told, frame by frame: also what no real client would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

Headers = Sequence[tuple[str, str]]

_CONFIG = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
_WINDOW_BYTES = 2**30


@dataclass
class RawAnswer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    trailers_only: bool = False
    """Whether the stream ended with its first headers."""
    reset: int | None = None
    """The error code of a RST_STREAM that ended it."""

    @property
    def told(self) -> dict[str, str]:
        """Where the status is."""
        return self.headers if self.trailers_only else self.trailers

    @property
    def code(self) -> int | None:
        """The gRPC status code; None if there is none."""
        return int(self.told["grpc-status"]) if "grpc-status" in self.told else None


class RawStream:
    """One call."""

    def __init__(self, connection: RawConnection, number: int) -> None:
        self._connection = connection
        self.number = number
        self.answer = RawAnswer()
        self.ended = asyncio.Event()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Sends a part of the body, as the server's windows allow."""
        sent = 0
        while len(data) - sent > (room := self._connection.room(self.number)):
            if self.ended.is_set():
                return  # answered before it was all sent
            if room == 0:
                await self._connection.heard()
                continue
            self._connection.h2.send_data(self.number, data[sent : sent + room])
            sent += room
            await self._connection.flush()
        if not self.ended.is_set():
            self._connection.h2.send_data(self.number, data[sent:], end_stream=end)
            await self._connection.flush()

    async def cancel(self) -> None:
        """RST_STREAM with CANCEL, as gRPC clients do."""
        self._connection.h2.reset_stream(self.number, 8)
        await self._connection.flush()

    async def result(self, timeout_s: float = 30) -> RawAnswer:
        """The answer when the stream has ended."""
        async with asyncio.timeout(timeout_s):
            await self.ended.wait()
        return self.answer


class RawConnection:
    """One HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = h2.connection.H2Connection(_CONFIG)
        self._streams: dict[int, RawStream] = {}
        self._news = asyncio.Event()
        self.going_away = False
        """Whether the server has said that it takes no more calls here."""

    async def open(self) -> None:
        """The HTTP/2 preface."""
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self.h2.increment_flow_control_window(_WINDOW_BYTES)
        await self.flush()
        await self.heard()  # the server's settings

    async def start(self, path: str, headers: Headers, *, end: bool = False) -> RawStream:
        """Begins a call."""
        number = self.h2.get_next_available_stream_id()
        stream = self._streams[number] = RawStream(self, number)
        pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "pod")]
        self.h2.send_headers(number, [*pseudo, *headers], end_stream=end)
        await self.flush()
        return stream

    def room(self, number: int) -> int:
        """How many bytes may be sent on a stream now, in one frame."""
        return min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)

    async def heard(self) -> None:
        """Returns when something has come from the server that nobody has waited for yet."""
        await self._news.wait()
        self._news.clear()

    async def flush(self) -> None:
        """Sends what is to be sent."""
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def listen(self) -> None:
        """Reads until the connection ends."""
        while data := await self._reader.read(65536):
            for event in self.h2.receive_data(data):
                self._take(event)
            await self.flush()
            self._news.set()
        for stream in self._streams.values():
            stream.ended.set()
        self._news.set()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.going_away = True
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        answer = stream.answer
        match event:
            case h2.events.ResponseReceived():
                answer.headers = _texts(event.headers)
                answer.trailers_only = event.stream_ended is not None
            case h2.events.TrailersReceived():
                answer.trailers = _texts(event.headers)
            case h2.events.DataReceived():
                answer.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                answer.reset = int(event.error_code)
                stream.ended.set()
            case h2.events.StreamEnded():
                stream.ended.set()


def _texts(headers: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


@asynccontextmanager
async def raw_connection(address: str) -> AsyncIterator[RawConnection]:
    """A connection to `host:port` or `unix:/path`; it is cut at the end."""
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    connection = RawConnection(reader, writer)
    listening: asyncio.Task[None] | None = None
    try:
        listening = asyncio.create_task(connection.listen())
        await connection.open()
        yield connection
    finally:
        if listening is not None:
            listening.cancel()
        writer.transport.abort()
