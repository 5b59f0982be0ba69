"""A call's headers as the services see metadata: decoded, but only what somebody asks for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

_OF_THE_TRANSPORT = frozenset({b"te", b"content-type", b"content-length", b"host"})
_BINARY = "-bin"


class CallMetadata(Mapping[str, str | bytes]):
    """HTTP/2 headers by their names. A name that ends in `-bin` has bytes, which travel as base64."""

    __slots__ = ("_headers",)

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self._headers = headers

    def raw(self, name: bytes) -> bytes:
        """A header's bytes; empty if it is not there."""
        return self._headers.get(name, b"")

    def __getitem__(self, key: str) -> str | bytes:
        value = self._headers[key.encode()]
        if not key.endswith(_BINARY):
            return value.decode("latin-1")
        try:
            return base64.b64decode(value + b"=" * (-len(value) % 4))
        except binascii.Error:
            return value

    def get(self, key: str, default: str | bytes | None = None) -> str | bytes | None:  # type: ignore[override]  # one shape of Mapping's three is used
        """The value, or `default`: without the exception that Mapping would raise and catch for every absent key."""
        return self[key] if key.encode() in self._headers else default

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._headers if name not in _OF_THE_TRANSPORT)

    def __len__(self) -> int:
        return sum(name not in _OF_THE_TRANSPORT for name in self._headers)
