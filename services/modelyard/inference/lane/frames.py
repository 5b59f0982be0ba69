"""gRPC over HTTP/2 as far as one unary call needs it: a message with its prefix, deadlines, and errors in headers.

The wire: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import math
import zlib
from typing import TypeAlias
from urllib.parse import quote_from_bytes

from google.rpc import status_pb2

from modelyard.core.errors import DETAILS_TRAILER, MalformedContent, TooLarge, Unimplemented

Headers: TypeAlias = list[tuple[bytes, bytes]]

PREFIX_BYTES = 5
"""One byte that says whether the message is compressed, four with its length."""
ENCODINGS = b"identity, deflate, gzip"
"""What a message may be compressed with."""

_ANY_HEADER = 32
_WINDOW_BITS = {b"gzip": zlib.MAX_WBITS | _ANY_HEADER, b"deflate": zlib.MAX_WBITS}
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS = 8
# What `grpc-message` may hold as it is: printable ASCII but the percent sign.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def too_large(size: int, limit: int) -> TooLarge:
    """The error for a message of `size` bytes, if at most `limit` are allowed."""
    return TooLarge(f"the message has {size} bytes, at most {limit} are allowed", metadata={"limit_bytes": str(limit)})


def announced_bytes(body: bytes) -> int:
    """The length of the message as its prefix says; 0 if not even the prefix is there."""
    return int.from_bytes(body[1:PREFIX_BYTES], "big") if len(body) >= PREFIX_BYTES else 0


def unframe(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """The one message in the body of a request.

    `encoding`: the header `grpc-encoding`. Raises MalformedContent, TooLarge, or Unimplemented for an unknown encoding.
    """
    size = announced_bytes(body)
    if size > limit:
        raise too_large(size, limit)
    if len(body) < PREFIX_BYTES or len(body) != PREFIX_BYTES + size:
        raise MalformedContent(
            f"the body is not one gRPC message: expected {PREFIX_BYTES} bytes of prefix and the message, "
            f"got {len(body)} bytes for a message of {size}"
        )
    compressed = body[0]
    if compressed == 0:
        return body[PREFIX_BYTES:]
    if compressed != 1:
        raise MalformedContent(f"a gRPC message begins with 0 or 1; got {compressed}")
    return _decompress(body[PREFIX_BYTES:], encoding, limit)


def _decompress(message: bytes, encoding: bytes | None, limit: int) -> bytes:
    if encoding is None or encoding == b"identity":
        raise MalformedContent("the message says that it is compressed; the header grpc-encoding does not say how")
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise Unimplemented(f"messages may be compressed with {ENCODINGS.decode()}; not with the encoding given")
    inflating = zlib.decompressobj(window_bits)
    try:
        # One byte more than allowed shows that there is more: a small message may blow up to a thousand times its size.
        content = inflating.decompress(message, limit + 1)
    except zlib.error as error:
        raise MalformedContent(f"the message is not compressed with {encoding.decode()}: {error}") from error
    if len(content) > limit:
        raise TooLarge(
            f"the message has more than {limit} bytes when it is decompressed, the most allowed",
            metadata={"limit_bytes": str(limit)},
        )
    if not inflating.eof:
        raise MalformedContent("the compressed message ends too early")
    return content


def read_timeout(value: bytes) -> float:
    """The header `grpc-timeout` in seconds; raises MalformedContent."""
    number, unit = value[:-1], _UNIT_S.get(value[-1:])
    if unit is None or not number.isdigit():
        raise MalformedContent("the header grpc-timeout is no number with a unit (H, M, S, m, u or n)")
    return int(number) * unit if len(number) <= _TIMEOUT_DIGITS else math.inf


def error_headers(status: status_pb2.Status, request_id: str) -> Headers:
    """The headers of an answer that is nothing but an error."""
    details = base64.b64encode(status.SerializeToString()).rstrip(b"=")
    message = quote_from_bytes(status.message.encode(), safe=_PLAIN).encode()
    return [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(status.code).encode()),
        (b"grpc-message", message),
        (DETAILS_TRAILER.encode(), details),
        (b"x-request-id", request_id.encode()),
    ]
