"""Where calls cross from Envoy's threads into the interpreter, and answers back: many at a time.

The C side, `native/crossing.c`, is an HTTP filter of Envoy that gathers calls without the interpreter. It wakes the
event loop once for all calls that wait. It is the same library in the same process that Envoy loads as its module.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
from pathlib import Path
from typing import Protocol

from .frames import PREFIX_BYTES, Headers, announced_bytes

LIBRARY = Path(__file__).parent / "native" / "libcrossing.so"
"""Built from `native/` when the package is installed (`hatch_build.py`); absent where it could not be."""

# Both are native/crossing.c's.
_VERSION = 1
_WHOLE, _COMING, _COMPLETE, _GONE = 1, 2, 3, 4

_EVENT = struct.Struct("=9Q")
_SIZES = struct.Struct("=II")
_REMEMBERED = 1_000
_REMEMBERED_BYTES = 8 * 1024


class OtherVersion(Exception):
    """The library was built from another version of its source."""


class ArrivingCall:
    """A call that Envoy hands over. Answer, refuse or drop it, once."""

    __slots__ = ("_crossing", "_pointer", "body", "headers", "id", "message", "timeout")

    def __init__(
        self, crossing: Crossing, pointer: int, identifier: int, headers: dict[bytes, bytes], timeout: bytes | None
    ) -> None:
        self._crossing = crossing
        self._pointer = pointer
        self.id = identifier
        """Never used again in this process."""
        self.headers = headers
        """Without pseudo headers and grpc-timeout. Shared by all calls with the same headers: not to be changed."""
        self.timeout = timeout
        """The header grpc-timeout."""
        self.message: bytes | None = None
        """The gRPC message, if the body is whole and nothing but one that is not compressed."""
        self.body = b""
        """The whole body if `message` is None. If it is longer than allowed, its beginning with some byte too many."""

    def answer(self, message: bytes) -> None:
        """Answers with a gRPC message and the status OK."""
        self._crossing.answer(self._pointer, message, len(message))

    def refuse(self, headers: Headers) -> None:
        """Answers with nothing but headers, at most 15. A status without a body may be tried again elsewhere."""
        self._crossing.coming.pop(self.id, None)
        packed = b"".join(_SIZES.pack(len(name), len(value)) + name + value for name, value in headers)
        self._crossing.refuse(self._pointer, packed, len(packed))

    def drop(self) -> None:
        """Forgets the call, whose caller has gone."""
        self._crossing.coming.pop(self.id, None)
        self._crossing.drop(self._pointer)


class Receiver(Protocol):
    """What is told of calls. Called from the event loop; what it raises, the loop logs."""

    def arrived(self, call: ArrivingCall) -> None:
        """A call has come, with its whole body."""

    def coming(self, call: ArrivingCall) -> None:
        """A call with a timeout has come, without its whole body yet. `completed` or `gone` may follow."""

    def completed(self, call: ArrivingCall) -> None:
        """The body of such a call has come, before it was refused or dropped."""

    def gone(self, call_id: int) -> None:
        """The caller of a call waits no more. The call may have been answered meanwhile."""


class Crossing:
    """The library in this process. Only inside an Envoy that exports its interface for dynamic modules."""

    def __init__(self, library: Path = LIBRARY) -> None:
        """Raises OSError if it cannot be loaded, OtherVersion."""
        native = ctypes.PyDLL(str(library))  # keeps the interpreter's lock: all of its functions are short
        version = native.crossing_version()
        if version != _VERSION:
            raise OtherVersion(f"{library} has version {version}, expected {_VERSION}: install the package again")
        self._open = native.crossing_open
        self._open.argtypes = (ctypes.c_size_t,)
        self._open.restype = ctypes.c_int
        self._close = native.crossing_close
        self._take = native.crossing_take
        self._take.argtypes = (ctypes.c_void_p,)
        self._take.restype = ctypes.c_size_t
        self.answer = native.crossing_answer
        self.answer.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        self.answer.restype = None
        self.refuse = native.crossing_refuse
        self.refuse.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        self.refuse.restype = None
        self.drop = native.crossing_drop
        self.drop.argtypes = (ctypes.c_void_p,)
        self.drop.restype = None
        self._events = ctypes.c_void_p()
        self._events_at = ctypes.addressof(self._events)
        self._headers: dict[bytes, dict[bytes, bytes]] = {}
        self.coming: dict[int, ArrivingCall] = {}
        """Calls whose bodies are not here yet, by id."""
        self._limit = 0
        self._readable = -1

    def open(self, receiver: Receiver, max_message_bytes: int) -> None:
        """Has calls handed to `receiver`, in the running event loop, until `close`. Raises OSError."""
        self._limit = max_message_bytes
        self._readable = self._open(max_message_bytes)
        if self._readable < 0:
            raise OSError("Envoy's threads cannot wake Python: no event file descriptor")
        asyncio.get_running_loop().add_reader(self._readable, self._receive, receiver)

    def close(self) -> None:
        """Envoy tells the callers of further calls that the pod is stopping. What was handed over can be answered."""
        self._close()
        asyncio.get_running_loop().remove_reader(self._readable)

    def _receive(self, receiver: Receiver) -> None:
        count = self._take(self._events_at)
        if not count:
            return
        events = ctypes.string_at(self._events.value or 0, count * _EVENT.size)
        for kind, call_id, pointer, headers, headers_size, timeout, timeout_size, body, size in _EVENT.iter_unpack(
            events
        ):
            if kind == _GONE:
                receiver.gone(call_id)
            elif kind == _COMPLETE:
                waiting = self.coming.pop(call_id, None)
                if waiting is not None:  # else it was refused meanwhile, and its memory may be gone
                    self._fill(waiting, body, size)
                    receiver.completed(waiting)
            else:
                call = ArrivingCall(
                    self, pointer, call_id,
                    self._unpacked(ctypes.string_at(headers, headers_size)),
                    ctypes.string_at(timeout, timeout_size) if timeout else None,
                )  # fmt: skip
                if kind == _WHOLE:
                    self._fill(call, body, size)
                    receiver.arrived(call)
                else:
                    self.coming[call_id] = call
                    receiver.coming(call)

    def _fill(self, call: ArrivingCall, body: int, size: int) -> None:
        prefix = ctypes.string_at(body, PREFIX_BYTES) if size >= PREFIX_BYTES else b"\1"
        if prefix[0] == 0 and announced_bytes(prefix) == size - PREFIX_BYTES <= self._limit:
            call.message = ctypes.string_at(body + PREFIX_BYTES, size - PREFIX_BYTES)
        elif size:
            call.body = ctypes.string_at(body, size)

    def _unpacked(self, packed: bytes) -> dict[bytes, bytes]:
        """The headers. Callers send the same ones with thousands of calls: those are unpacked once."""
        found = self._headers.get(packed)
        if found is None:
            found = {}
            at = 0
            while at < len(packed):
                name_size, value_size = _SIZES.unpack_from(packed, at)
                at += _SIZES.size
                found[packed[at : at + name_size]] = packed[at + name_size : at + name_size + value_size]
                at += name_size + value_size
            if len(packed) <= _REMEMBERED_BYTES:
                if len(self._headers) >= _REMEMBERED:
                    self._headers.clear()
                self._headers[packed] = found
        return found
