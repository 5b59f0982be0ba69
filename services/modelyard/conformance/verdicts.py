"""How a check ends early, and the notes that say what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc


class NotApplicable(Exception):
    """The server or the model cannot show this; the text says why."""


class CheckFailed(AssertionError):
    """The answer breaks the rule. `Notes` has what was sent, expected and got."""

    def __init__(self, text: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(text)
        self.code = code
        """The answer's code, if that was what was wrong."""


@dataclass(slots=True)
class Notes:
    """What the last step of a check was, for the report."""

    sent: str = ""
    expected: str = ""
    got: str = ""

    def clear(self) -> None:
        """For the next check."""
        self.sent = self.expected = self.got = ""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens inside is not what the check is about: the notes are afterwards as they were."""
        sent, expected, got = self.sent, self.expected, self.got
        yield
        self.sent, self.expected, self.got = sent, expected, got

    def expect(self, condition: bool, expected: str, got: object, code: grpc.StatusCode | None = None) -> None:
        """Notes an expectation and what came instead or indeed; raises CheckFailed unless `condition` holds."""
        self.expected, self.got = expected, short(got) or "nothing"
        if not condition:
            raise CheckFailed(f"expected {expected}; got {self.got}", code)

    def expect_so(self, condition: bool, expected: str, otherwise: str) -> None:
        """As `expect`, where what came is not shown: `otherwise` says in words how it differs, if it does."""
        self.expect(condition, expected, expected if condition else otherwise)


def short(value: object, limit: int = 160) -> str:
    """Anything on one line, cut."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
