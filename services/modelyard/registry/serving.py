"""How pods are to serve a model, as its owner set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

LIMITS: Mapping[str, int] = {
    "max_batch_size": 65_536, "queue_size": 1_000_000, "runners": 256, "graph_threads": 1024,
}  # fmt: skip
"""The most that each number may be."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Settings of one model. What has its default, each pod decides by itself."""

    max_batch_size: int = 0
    queue_size: int = 0
    runners: int = 0
    graph_threads: int = 0
    batching: int = 0
    """A number of ServingConfig.Batching."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From the JSON in a model's row. A setting that this release does not know is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in row.items() if name in known})

    def to_row(self) -> dict[str, int]:
        """The JSON for a model's row: what is set."""
        return {name: value for name, value in asdict(self).items() if value}
