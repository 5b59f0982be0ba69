"""gRPC's framing, deadlines and errors as the express lane reads and writes them."""

from __future__ import annotations

import base64
import gzip
import math
import zlib
from urllib.parse import unquote

import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidFields, MalformedContent, TooLarge, to_status
from modelyard.inference.lane.frames import error_headers, read_timeout, unframe
from modelyard.inference.lane.metadata import CallMetadata

LIMIT = 1000


def frame(message: bytes) -> bytes:
    """A message on the wire, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


@given(st.binary(max_size=LIMIT))
def test_a_framed_message_is_read_back(message: bytes) -> None:
    assert unframe(frame(message), None, LIMIT) == message


@given(st.binary(max_size=LIMIT))
def test_a_compressed_message_is_read_back(message: bytes) -> None:
    for encoding, compressed in ((b"gzip", gzip.compress(message)), (b"deflate", zlib.compress(message))):
        body = b"\1" + frame(compressed)[1:]
        assert unframe(body, encoding, LIMIT + 100) == message


@given(st.binary(max_size=64), st.sampled_from([None, b"identity", b"gzip", b"deflate"]))
def test_any_bytes_are_a_message_or_refused(body: bytes, encoding: bytes | None) -> None:
    try:
        message = unframe(body, encoding, LIMIT)
    except (MalformedContent, TooLarge):
        return
    assert len(message) <= LIMIT


@given(st.binary(min_size=20, max_size=200), st.data())
def test_a_compressed_message_that_was_cut_is_refused(message: bytes, data: st.DataObject) -> None:
    compressed = gzip.compress(message)
    cut = compressed[: data.draw(st.integers(0, len(compressed) - 1))]
    with pytest.raises(MalformedContent):
        unframe(b"\1" + frame(cut)[1:], b"gzip", LIMIT)


def test_a_message_that_blows_up_is_refused_without_being_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(TooLarge, match="more than 100000 bytes"):
        unframe(b"\1" + frame(bomb)[1:], b"gzip", 100_000)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600), (b"2M", 120), (b"10S", 10), (b"250m", 0.25), (b"1000u", 0.001), (b"0n", 0),
        (b"99999999H", 99999999 * 3600), (b"123456789S", math.inf),
    ],
)  # fmt: skip
def test_a_deadline_is_read(value: bytes, seconds: float) -> None:
    assert read_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"10", b"10s", b"-1S", b"1.5S", b" 1S", b"1_0S", b"\xb2S"])
def test_what_is_no_deadline_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedContent):
        read_timeout(value)


@given(st.text(max_size=300))
def test_an_error_of_any_text_fits_into_headers(text: str) -> None:
    status = to_status(InvalidFields.one("field", text))
    headers = dict(error_headers(status, "an-id"))
    assert unquote(headers[b"grpc-message"].decode("ascii")) == status.message
    assert all(0x20 <= byte < 0x7F for byte in headers[b"grpc-message"])
    details = headers[b"grpc-status-details-bin"]
    assert status_pb2.Status.FromString(base64.b64decode(details + b"=" * (-len(details) % 4))) == status


def test_metadata_is_what_the_caller_sent() -> None:
    raw = base64.b64encode(b"\0\xff").rstrip(b"=")
    metadata = CallMetadata({b"te": b"trailers", b"x-tenant": b"blue", b"key-bin": raw, b"bad-bin": b"x"})
    assert dict(metadata) == {"x-tenant": "blue", "key-bin": b"\0\xff", "bad-bin": b"x"}
    assert len(metadata) == 3
    assert metadata.get("nothing") is None
    assert metadata.get("nothing", "else") == "else"
    assert "x-tenant" in metadata
