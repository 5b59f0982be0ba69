"""Bytes from a pipe into lines, in bounded memory, whatever comes."""

from __future__ import annotations

import re
from collections.abc import Iterator

LINE_CHARACTERS = 4_096
"""The most characters of a log line, as the API says; longer lines are cut and end in `…`."""

_TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LineSplitter:
    """Cuts a stream at `\\n`. Lines are cut to their first `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The lines that `data` completes, each with whether it was cut."""
        *complete, rest = data.split(b"\n")
        for piece in complete:
            self._append(piece)
            yield self._take()
        self._append(rest)

    def skip(self, data: bytes) -> int:
        """Passes over `data` without making lines of it; answers how many lines end in it."""
        ends = data.count(b"\n")
        if ends:
            self._take()
        self._append(data.rpartition(b"\n")[2])
        return ends

    def finish(self) -> Iterator[tuple[bytes, bool]]:
        """The last line, if the stream ended without a line end."""
        if self._rest:
            yield self._take()

    def _append(self, piece: bytes) -> None:
        room = self._limit - len(self._rest)
        self._overlong = self._overlong or len(piece) > room
        self._rest += piece[:room]

    def _take(self) -> tuple[bytes, bool]:
        line, cut = bytes(self._rest), self._overlong
        self._rest.clear()
        self._overlong = False
        return line, cut


def readable(line: bytes, *, cut: bool = False) -> str:
    """A printed line as text for people: what a terminal would show of it, without what could steer a terminal."""
    # A progress bar draws over itself with carriage returns: the last drawing counts.
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", errors="replace")
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _TERMINAL_CODES.sub("", text))
    if cut or len(text) > LINE_CHARACTERS:
        return text[: LINE_CHARACTERS - 1] + "…"
    return text
