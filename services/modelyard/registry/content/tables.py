"""What a table's content turned out to be, and how the facts about one column are gathered piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import MalformedContent
from modelyard.core.names import shorten

from .limits import MAX_NAME_LENGTH, TableLimits
from .messages import ColumnFacts


@dataclass(slots=True)
class NumberRange:
    """Least and greatest finite value of the numbers added so far, and how many were not finite."""

    minimum: float = math.inf
    maximum: float = -math.inf
    non_finite_count: int = 0

    def add(self, values: NDArray[np.generic]) -> None:
        """Takes in numbers or booleans of any shape."""
        if values.dtype.kind == "f":
            finite = values[np.isfinite(values)]
            self.non_finite_count += values.size - finite.size
            values = finite
        if values.size:
            self.minimum = min(self.minimum, float(values.min()))
            self.maximum = max(self.maximum, float(values.max()))


@dataclass(slots=True)
class ColumnSurvey:
    """A column of known type, surveyed piece by piece."""

    name: str
    data_type: str
    shape: tuple[int, ...] = ()
    null_count: int = 0
    numbers: NumberRange = field(default_factory=NumberRange)

    def facts(self) -> ColumnFacts:
        """What was found."""
        seen = self.numbers.minimum <= self.numbers.maximum
        return ColumnFacts(
            name=self.name,
            data_type=self.data_type,
            shape=self.shape,
            null_count=self.null_count,
            non_finite_count=self.numbers.non_finite_count,
            minimum=self.numbers.minimum if seen else 0.0,
            maximum=self.numbers.maximum if seen else 0.0,
        )


def check_column_names(names: Sequence[str], limits: TableLimits) -> None:
    """Raises MalformedContent unless every name is usable and unique."""
    if len(names) > limits.max_columns:
        raise MalformedContent(f"{len(names)} columns, at most {limits.max_columns} are allowed")
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise MalformedContent(f"column {position} has no name")
        if len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise MalformedContent(
                f"column {position} is named {shorten(name)!r}; expected at most {MAX_NAME_LENGTH} printable characters"
            )
    twice = first_duplicate(names)
    if twice is not None:
        positions = [position for position, name in enumerate(names, start=1) if name == twice]
        raise MalformedContent(f"columns {positions[0]} and {positions[1]} are both named {shorten(twice)!r}")


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that came before, if any."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
