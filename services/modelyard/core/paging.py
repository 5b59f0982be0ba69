"""Page sizes and opaque page tokens (https://google.aip.dev/158)."""

from __future__ import annotations

import base64
import binascii
import json

from .errors import InvalidFields

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def page_size(requested: int) -> int:
    """The size to use: the default for 0, at most the maximum; raises InvalidFields when negative."""
    if requested < 0:
        raise InvalidFields.one("page_size", f"expected 0 to {MAX_PAGE_SIZE}, got {requested}")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(*position: str | int) -> str:
    """An opaque token for the last row of a page; `position` is that row's sort key."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_token(token: str, *kinds: type) -> list[str | int] | None:
    """The position in a token, None for the empty one; raises InvalidFields if it is not of these types."""
    if not token:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        position = None
    if not isinstance(position, list) or [type(part) for part in position] != list(kinds):
        raise InvalidFields.one("page_token", "expected the next_page_token of an earlier answer")
    return position
