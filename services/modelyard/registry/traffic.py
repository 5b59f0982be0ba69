"""Where an alias sends its callers beside its own version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

WHOLE = 10_000
"""All of an alias's requests, in parts."""

MAX_SPLIT = 8
DEFAULT_STICKY_KEY = "x-modelyard-caller"


@dataclass(frozen=True, slots=True)
class Share:
    """A version with its share of the requests."""

    version: int
    parts: int
    """Of `WHOLE`."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where the requests go that do not go to the alias's own version, and whose answers are only compared."""

    split: tuple[Share, ...] = ()
    sticky_key: str = ""
    """Empty: the default."""
    shadow: Share | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From the JSON that `to_row` made."""
        shadow = row.get("shadow")
        return cls(
            tuple(Share(*share) for share in row.get("split", ())),
            row.get("sticky_key", ""),
            None if shadow is None else Share(*shadow),
        )

    def to_row(self) -> dict[str, Any]:
        """JSON; empty if every request goes to the alias's own version."""
        row: dict[str, Any] = {}
        if self.split:
            row["split"] = [[share.version, share.parts] for share in self.split]
        if self.sticky_key:
            row["sticky_key"] = self.sticky_key
        if self.shadow is not None:
            row["shadow"] = [self.shadow.version, self.shadow.parts]
        return row

    def versions(self) -> list[int]:
        """All that must be served for it."""
        return [share.version for share in (*self.split, *([self.shadow] if self.shadow else []))]
