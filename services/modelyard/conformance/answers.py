"""What a server answered: code, text, bytes; and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from .verdicts import Notes, short

MessageT = TypeVar("MessageT", bound=Message)

OK = grpc.StatusCode.OK
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
"""What comes when a server crashed or hangs: never a proper refusal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a unary call."""

    notes: Notes = field(repr=False)
    code: grpc.StatusCode
    text: str = ""
    payload: bytes = b""

    def __str__(self) -> str:
        return self.code.name + (f": {short(self.text, 120)}" if self.text else "")

    def ok(self, kind: type[MessageT]) -> MessageT:
        """The message; the check fails if the code is not OK or the bytes are no such message."""
        self.notes.expect(self.code is OK, "OK", self, self.code)
        try:
            message = kind.FromString(self.payload)
        except DecodeError:
            self.notes.expect(False, f"the bytes of a {kind.DESCRIPTOR.name}", self.payload[:40])
            raise
        return message

    def refused(self) -> None:
        """The check fails unless the server said no: OK, a crash and a hang are no refusals."""
        good = self.code is not OK and self.code not in _GONE
        self.notes.expect(good, "an error from the server", self, self.code)

    def has_code(self, *codes: grpc.StatusCode) -> None:
        """The check fails unless the code is one of these."""
        names = " or ".join(code.name for code in codes)
        self.notes.expect(self.code in codes, names, self, self.code)

    def says(self, word: str) -> None:
        """The check fails unless the text holds this word."""
        self.notes.expect(word in self.text, f"{word!r} in the error's text", self)


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """The end of a stream and everything that came before it."""

    notes: Notes = field(repr=False)
    code: grpc.StatusCode
    text: str
    payloads: list[bytes]

    def __str__(self) -> str:
        return f"{len(self.payloads)} answers, then {self.code.name}" + (f": {self.text[:80]}" if self.text else "")

    def messages(self, kind: type[MessageT], count: int) -> list[MessageT]:
        """The messages; the check fails unless the stream ended with OK after so many."""
        good = self.code is OK and len(self.payloads) == count
        # Only the code of a stream that brought nothing may say that streaming is not offered.
        self.notes.expect(good, f"{count} answers, then OK", self, None if self.payloads else self.code)
        return [kind.FromString(payload) for payload in self.payloads]
