"""What the reading process and the service say to each other. Plain data, JSON on the way; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column of a table."""

    name: str
    data_type: str
    """A name of the Open Inference Protocol, as in `FP32`; `BYTES` for text."""
    shape: tuple[int, ...] = ()
    """Shape of one row's value."""
    null_count: int = 0
    non_finite_count: int = 0
    minimum: float = 0.0
    """Least finite value; 0 for text and where there is none."""
    maximum: float = 0.0
    first_text_row: int = 0
    """Number (from 1) of the first row with text in a column that is mostly numbers; 0 if there is none."""
    first_text: str = ""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A whole table."""

    row_count: int
    columns: tuple[ColumnFacts, ...]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One input or output of a graph."""

    name: str
    data_type: str
    """A name of the Open Inference Protocol."""
    shape: tuple[int, ...]
    """-1 where any size is allowed."""


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The signature of a graph."""

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    opset_version: int
    ir_version: int
