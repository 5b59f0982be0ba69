"""Calls as a native library hands them to the event loop, many at a time, and answers back.

Two libraries do: `crossing` for calls that come to Envoy, `http2_server` for those that come to the pod's own server.
Both tell the same events, `modelyard/http2/native/arrival.h`.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from modelyard.http2.library import EVENT, NativeLibrary
from modelyard.inference.protocol.plain import PlainMessage

from .frames import PREFIX_BYTES, Headers, announced_bytes

_WHOLE, _COMING, _COMPLETE, _GONE, _TOGETHER = 1, 2, 3, 4, 5
_SIZES = struct.Struct("=II")
_REMEMBERED = 1_000
_REMEMBERED_BYTES = 8 * 1024


class ArrivingHeaders:
    """The headers of a call, or of thousands: callers send the same ones again and again."""

    __slots__ = ("fields", "note")

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self.fields = fields
        """Without pseudo headers, grpc-timeout and x-request-id. Not to be changed."""
        self.note: object = None
        """For the receiver: what it has found out about calls with these headers."""


class ArrivingCall:
    """A call that is handed over. Answer, refuse or drop it, once."""

    __slots__ = ("_arrivals", "_pointer", "body", "headers", "id", "message", "plain", "request_id", "time", "timeout")

    def __init__(
        self, arrivals: Arrivals, pointer: int, identifier: int, headers: ArrivingHeaders,
        timeout: bytes | None, request_id: bytes | None, time: float,
    ) -> None:  # fmt: skip
        self._arrivals = arrivals
        self._pointer = pointer
        self.id = identifier
        """Never used again in this process."""
        self.headers = headers
        self.timeout = timeout
        """The header grpc-timeout."""
        self.request_id = request_id
        """The header x-request-id."""
        self.time = time
        """When it was handed over, by the event loop's clock."""
        self.message: bytes | None = None
        """The gRPC message, if the body is whole and nothing but one that is not compressed."""
        self.plain: PlainMessage | None = None
        """The same message, if it looks like a ModelInferRequest as everybody writes it."""
        self.body = b""
        """The whole body if `message` is None. If it is longer than allowed, its beginning with some byte too many."""

    @property
    def fields(self) -> dict[bytes, bytes]:
        """All headers but pseudo headers and grpc-timeout. Not to be changed."""
        if self.request_id is None:
            return self.headers.fields
        return {**self.headers.fields, b"x-request-id": self.request_id}

    def answer(self, message: bytes) -> None:
        """Answers with a gRPC message and the status OK."""
        self._arrivals.answer(self._pointer, message, len(message))
        self._arrivals.flush_soon()

    def refuse(self, headers: Headers) -> None:
        """Answers with nothing but headers, at most 15. A status without a body may be tried again elsewhere."""
        self._arrivals.coming.pop(self.id, None)
        packed = b"".join(_SIZES.pack(len(name), len(value)) + name + value for name, value in headers)
        self._arrivals.refuse(self._pointer, packed, len(packed))
        self._arrivals.flush_soon()

    def drop(self) -> None:
        """Forgets the call, whose caller has gone."""
        self._arrivals.coming.pop(self.id, None)
        self._arrivals.drop(self._pointer)


class JointArrival:
    """Calls that came together, with the same headers but their request ids, the same timeout, and plain messages of
    one form that have one input and no id. Answer, part or drop them, once."""

    __slots__ = ("_arrivals", "_pointer", "count", "first", "headers", "id", "raw", "time", "timeout")

    def __init__(
        self, arrivals: JoiningArrivals, pointer: int, identifier: int, headers: ArrivingHeaders,
        timeout: bytes | None, time: float, first: PlainMessage, raw: bytes, count: int,
    ) -> None:  # fmt: skip
        self._arrivals = arrivals
        self._pointer = pointer
        self.id = identifier
        """Never used again in this process, nor for a single call."""
        self.headers = headers
        self.timeout = timeout
        self.time = time
        """When they were handed over, by the event loop's clock."""
        self.first = first
        """The message of the first of them."""
        self.raw = raw
        """The raw contents of all of them, in their order."""
        self.count = count

    def answer(self, head: bytes, raws: Sequence[bytes]) -> None:
        """Answers all whose callers are still there.

        `head`: what all answers begin with. `raws`: by output, the raw contents for all calls in their order, of which
        each has an equal share.
        """
        outputs = len(raws)
        contents = (ctypes.c_char_p * outputs)(*raws)
        sizes = (ctypes.c_size_t * outputs)(*[len(raw) // self.count for raw in raws])
        self._arrivals.answer_together(self._pointer, head, len(head), outputs, contents, sizes)
        self._arrivals.flush_soon()

    def part(self) -> list[ArrivingCall]:
        """Each by itself, but for those whose callers have gone."""
        return self._arrivals.part(self._pointer, self.time)

    def drop(self) -> None:
        """Forgets them: all callers have gone."""
        self._arrivals.drop_together(self._pointer)


class Receiver(Protocol):
    """What is told of calls. Called from the event loop; what it raises, the loop logs."""

    def arrived(self, call: ArrivingCall) -> None:
        """A call has come, with its whole body."""

    def arrived_together(self, arrival: JointArrival) -> None:
        """Several have."""

    def coming(self, call: ArrivingCall) -> None:
        """A call with a timeout has come, without its whole body yet. `completed` or `gone` may follow."""

    def completed(self, call: ArrivingCall) -> None:
        """The body of such a call has come, before it was refused or dropped."""

    def gone(self, identifier: int, request_id: bytes | None) -> None:
        """The caller of a call waits no more, or of one of those that came together and have this identifier.

        The call may have been answered meanwhile. `request_id`: its header x-request-id.
        """

    def all_told(self) -> None:
        """These were all that have come together."""


class Arrivals(NativeLibrary):
    """One library's calls. The base of what knows how to get at them."""

    def __init__(self, library: Path, prefix: str, version: int) -> None:
        """`prefix`: of the names of its functions. Raises OSError if it cannot be loaded, OtherVersion."""
        super().__init__(library, prefix, version)
        self.answer = self.function("answer", None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        self.refuse = self.function("refuse", None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        self.drop = self.function("drop", None, ctypes.c_void_p)
        self.coming: dict[int, ArrivingCall] = {}
        """Calls whose bodies are not here yet, by id."""
        self._headers: dict[bytes, ArrivingHeaders] = {}
        self._limit = 0

    def expect(self, max_message_bytes: int) -> None:
        """Has longer messages told as bodies. From now on calls are told of in the running event loop."""
        self._limit = max_message_bytes
        self._clock = asyncio.get_running_loop().time

    def flush_soon(self) -> None:
        """Has the answers that were given sent behind what is ready in the event loop now."""

    def hand_over(self, count: int, receiver: Receiver) -> None:
        """Tells of so many events."""
        string_at, now = ctypes.string_at, self._clock()
        for fields in EVENT.iter_unpack(self.told(count)):
            kind = fields[0]
            if kind == _WHOLE:
                receiver.arrived(self._call(fields, now))
            elif kind == _TOGETHER:
                receiver.arrived_together(self._together(fields, now))
            elif kind == _COMING:
                call = self._call(fields, now)
                self.coming[call.id] = call
                receiver.coming(call)
            elif kind == _COMPLETE:
                waiting = self.coming.pop(fields[1], None)
                if waiting is not None:  # else it was refused meanwhile, and its memory may be gone
                    self._fill(waiting, *fields[9:11])
                    receiver.completed(waiting)
            else:
                request_id, size = fields[7:9]
                receiver.gone(fields[1], string_at(request_id, size) if request_id else None)
        receiver.all_told()

    def _together(self, fields: tuple[int, ...], time: float) -> JointArrival:
        """What an event says of calls that came together."""
        raise NotImplementedError(f"{self.prefix} hands over every call by itself")

    def _call(self, fields: tuple[int, ...], time: float) -> ArrivingCall:
        string_at = ctypes.string_at
        (
            kind, identifier, pointer, headers, headers_size, timeout, timeout_size, request_id, request_id_size,
            body, size, id_at, id_size, raw_at,
        ) = fields  # fmt: skip
        call = ArrivingCall(
            self, pointer, identifier, self._headers_of(string_at(headers, headers_size)),
            string_at(timeout, timeout_size) if timeout else None,
            string_at(request_id, request_id_size) if request_id else None,
            time,
        )  # fmt: skip
        if raw_at and size <= PREFIX_BYTES + self._limit:
            call.message = string_at(body + PREFIX_BYTES, size - PREFIX_BYTES)
            call.plain = PlainMessage(call.message, id_at, id_size, raw_at)
        elif kind == _WHOLE:
            self._fill(call, body, size)
        return call

    def _fill(self, call: ArrivingCall, body: int, size: int) -> None:
        prefix = ctypes.string_at(body, PREFIX_BYTES) if size >= PREFIX_BYTES else b"\1"
        if prefix[0] == 0 and announced_bytes(prefix) == size - PREFIX_BYTES <= self._limit:
            call.message = ctypes.string_at(body + PREFIX_BYTES, size - PREFIX_BYTES)
        elif size:
            call.body = ctypes.string_at(body, size)

    def _headers_of(self, packed: bytes) -> ArrivingHeaders:
        """Unpacked; those of thousands of calls once."""
        found = self._headers.get(packed)
        if found is None:
            found = ArrivingHeaders(_unpacked(packed))
            if len(packed) <= _REMEMBERED_BYTES:
                if len(self._headers) >= _REMEMBERED:
                    self._headers.clear()
                self._headers[packed] = found
        return found


class JoiningArrivals(Arrivals):
    """A library that hands over together what belongs together."""

    def __init__(self, library: Path, prefix: str, version: int) -> None:
        """Raises as `Arrivals` does."""
        super().__init__(library, prefix, version)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.answer_together = self.function(
            "answer_together", size, pointer, ctypes.c_char_p, size, size, pointer, pointer
        )
        self.drop_together = self.function("drop_together", None, pointer)
        self._part = self.function("part", size, pointer, pointer)

    def part(self, together: int, time: float) -> list[ArrivingCall]:
        """See `JointArrival.part`."""
        events = ctypes.c_void_p()
        count = self._part(together, ctypes.addressof(events))
        told = ctypes.string_at(events.value or 0, count * EVENT.size)
        return [self._call(fields, time) for fields in EVENT.iter_unpack(told)]

    def _together(self, fields: tuple[int, ...], time: float) -> JointArrival:
        string_at = ctypes.string_at
        (
            _kind, identifier, pointer, headers, headers_size, timeout, timeout_size, raw, raw_size,
            body, size, _id_at, count, raw_at,
        ) = fields  # fmt: skip
        message = string_at(body + PREFIX_BYTES, size - PREFIX_BYTES)
        return JointArrival(
            self, pointer, identifier, self._headers_of(string_at(headers, headers_size)),
            string_at(timeout, timeout_size) if timeout else None,
            time, PlainMessage(message, 0, 0, raw_at), string_at(raw, raw_size), count,
        )  # fmt: skip


def _unpacked(packed: bytes) -> dict[bytes, bytes]:
    fields = {}
    at = 0
    while at < len(packed):
        name_size, value_size = _SIZES.unpack_from(packed, at)
        at += _SIZES.size
        fields[packed[at : at + name_size]] = packed[at + name_size : at + name_size + value_size]
        at += name_size + value_size
    return fields
