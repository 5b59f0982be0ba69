"""Lines out of any bytes, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard_workers.lines import LINE_CHARACTERS, LineSplitter, readable

LIMIT = 8
STREAMS = st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"a", b"\n")), max_size=20)


def split(chunks: list[bytes]) -> list[tuple[bytes, bool]]:
    splitter = LineSplitter(LIMIT)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.finish()]


@given(STREAMS)
def test_where_a_stream_is_broken_into_chunks_makes_no_difference(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert split(chunks) == [(line[:LIMIT], len(line) > LIMIT) for line in expected]


@given(STREAMS, st.integers(0, 20))
def test_skipping_counts_the_line_ends_and_leaves_no_torn_line(chunks: list[bytes], position: int) -> None:
    before, skipped, after = b"".join(chunks[:position]), b"x\nyy\nz", b"w\n"
    splitter = LineSplitter(LIMIT)
    list(splitter.feed(before))
    assert splitter.skip(skipped) == 2
    assert list(splitter.feed(after)) == [(b"zw", False)]


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"plain", "plain"),
        ("größer".encode(), "größer"),
        (b"10%\r20%\r30%\r", "30%"),
        (b"\x1b[1;31mred\x1b[0m alert", "red alert"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"nul\x00bell\x07", "nul\ufffdbell\ufffd"),
        (b"tab\tstays", "tab\tstays"),
        (b"", ""),
    ],
)
def test_a_line_is_shown_as_a_terminal_would_but_cannot_steer_one(printed: bytes, shown: str) -> None:
    assert readable(printed) == shown


@given(st.binary(max_size=200))
def test_no_bytes_make_a_line_that_cannot_be_stored_or_shown(line: bytes) -> None:
    text = readable(line.replace(b"\n", b""))
    text.encode()
    assert not any(ord(character) < 32 and character != "\t" for character in text)


def test_a_line_over_the_limit_is_cut_and_says_so() -> None:
    assert readable(b"x" * LINE_CHARACTERS) == "x" * LINE_CHARACTERS
    assert readable(b"x" * (LINE_CHARACTERS + 1)) == "x" * (LINE_CHARACTERS - 1) + "…"
    assert readable(b"short", cut=True) == "short…"
