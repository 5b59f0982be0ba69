"""Bounds on what uploaded content may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE

MAX_NAME_LENGTH = 256
"""Characters in the name of a column or tensor."""


@dataclass(frozen=True, slots=True)
class TableLimits:
    """For a dataset."""

    max_columns: int = 10_000
    max_expanded_bytes: int = 64 * GIBIBYTE
    """What a compressed file may unpack to."""
    max_row_bytes: int = MEBIBYTE
    """The longest CSV row; also what is parsed at a time."""


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """The one file beside an ONNX file that its weights may be in."""

    location: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GraphLimits:
    """For an ONNX graph. The version ranges are those that ONNX Runtime 1.32 loads; a test compares them with it."""

    max_nodes: int = 200_000
    """Over all subgraphs."""
    max_depth: int = 16
    """Subgraphs within subgraphs."""
    max_tensors: int = 10_000
    """Inputs, and outputs, of the whole graph."""
    min_ir_version: int = 3
    max_ir_version: int = 14
    min_opset: int = 7
    max_opset: int = 28
    max_ml_opset: int = 5
    domains: tuple[str, ...] = ("ai.onnx", "ai.onnx.ml", "com.microsoft")
    """Whose operators may stand in a graph. All three are built into ONNX Runtime; anything else is native code that
    somebody would have to load."""
    external: ExternalFile | None = None
    """None: every byte must be in the ONNX file."""
