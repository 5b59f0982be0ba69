"""The reference models: small ones whose right answers are known, so that values can be checked and not only shapes.

A server that serves them (`modelyard conformance models` writes them for several servers) is checked further than one
that does not. What they compute is said here once; the writers in `models` and the checks both read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.oip.datatypes import DATATYPES

PREFIX: Final = "conformance_"
"""What the names begin with, unless the run says otherwise."""

MAX_BATCH_SIZE: Final = 8
"""The most rows of one request to a batched reference model, where the server lets a model say so."""


@dataclass(frozen=True, slots=True)
class ReferenceTensor:
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """With the batch dimension; -1 where any size is taken."""


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A model with known answers."""

    name: str
    """Without the prefix."""
    rule: str
    """What it computes, for people."""
    inputs: tuple[ReferenceTensor, ...]
    outputs: tuple[ReferenceTensor, ...]
    batched: bool = True

    @property
    def full_name(self) -> str:
        """With the usual prefix."""
        return PREFIX + self.name


def identity_name(datatype: str) -> str:
    """The name, without the prefix, of the identity of a datatype."""
    return f"identity_{datatype.lower()}"


def _identity(datatype: str) -> ReferenceModel:
    shape = (-1, -1)
    return ReferenceModel(
        identity_name(datatype),
        "y = x",
        (ReferenceTensor("x", datatype, shape),),
        (ReferenceTensor("y", datatype, shape),),
    )


def _floats(*names: str) -> tuple[ReferenceTensor, ...]:
    return tuple(ReferenceTensor(name, "FP32", (-1, 2)) for name in names)


ADD: Final = ReferenceModel(
    "add", "sum = a + b, difference = a - b", _floats("a", "b"), _floats("sum", "difference")
)  # fmt: skip
"""Two inputs and two outputs, with a fixed dimension: what shows order, names and mixed-up tensors."""

UNBATCHED: Final = ReferenceModel(
    "unbatched",
    "y = x + x",
    (ReferenceTensor("x", "FP32", (3,)),),
    (ReferenceTensor("y", "FP32", (3,)),),
    batched=False,
)
"""No batch dimension at all."""

MODELS: Final[tuple[ReferenceModel, ...]] = (ADD, UNBATCHED, *map(_identity, DATATYPES))
"""Every reference model."""
