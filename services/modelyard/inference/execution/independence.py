"""Whether each row of a graph's results depends on the same row of its inputs alone.

A free first dimension does not say so: a softmax over it, a normalisation by the batch's mean, a quantisation by the
batch's range give every caller an answer that depends on who came at the same time. Found out by trying: rows computed
alone must come out the same between others, in another order, beside a row of NaN and one of large numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.oip.datatypes import Datatype, from_bfloat16
from modelyard.oip.tensors import Array

from .samples import GUESSED_SIZES, sample_inputs, take_rows
from .sessions import REFUSALS, GraphSession, RunControl

_MAGNITUDES = (1.0, 100.0, 1.0, 0.0, float("nan"))
_ORDERS = ((0, 1, 2, 3), (3, 0, 4, 2), (0, 1, 2) * 5)
_FLOAT_NOISE = 1e-3
"""Differences up to this share of a row's largest element come from the order of additions."""
_HALF_NOISE = 3e-2
"""The same for 16 bits."""


def why_rows_depend(session: GraphSession, control: RunControl | None = None) -> str:
    """Why requests may not be computed together, for people; empty if they may.

    The session's signature must have a batch dimension. `control` may stop it. Raises what the session raises but for
    inputs that the graph refuses, which prove nothing: then requests are not computed together either.
    """
    for size in GUESSED_SIZES if session.signature.free_shapes else GUESSED_SIZES[:1]:
        inputs = sample_inputs(session.signature, _MAGNITUDES, size)
        try:
            alone = [_run(session, inputs, [row], control) for row in range(len(_MAGNITUDES) - 1)]
        except REFUSALS:
            continue
        return _compare(session, inputs, alone, control)
    return "the graph takes none of the inputs that it was tried with"


def _compare(
    session: GraphSession, inputs: dict[str, Array], alone: Sequence[list[Array]], control: RunControl | None
) -> str:
    """The rows in company against the rows alone."""
    for order in _ORDERS:
        try:
            together = _run(session, inputs, order, control)
        except REFUSALS:
            return "the graph fails on rows that it computes one by one"
        for index, tensor in enumerate(session.signature.outputs):
            if together[index].shape[:1] != (len(order),):
                return f"the output {tensor.name} does not have one row for each row of the inputs"
            for place, row in enumerate(order):
                if row < len(alone) and not _same(
                    together[index][place : place + 1], alone[row][index], tensor.datatype
                ):
                    return f"the rows of the output {tensor.name} depend on one another"
    return ""


def _run(
    session: GraphSession, inputs: dict[str, Array], rows: Sequence[int], control: RunControl | None
) -> list[Array]:
    return session.run(take_rows(inputs, rows), session.all_outputs, control)


def _same(got: Array, expected: Array, datatype: Datatype) -> bool:
    """Whether a row is what it was alone, but for noise. Both have a batch dimension of 1."""
    if expected.shape != got.shape:
        return False
    if datatype.name == "BF16":
        got, expected = from_bfloat16(got), from_bfloat16(expected)
    elif got.dtype.kind != "f":
        return bool(np.array_equal(got, expected))
    noise = _HALF_NOISE if datatype.name in ("FP16", "BF16") else _FLOAT_NOISE
    finite = np.abs(expected, where=np.isfinite(expected), out=np.zeros(expected.shape, np.float64))
    return bool(np.allclose(got, expected, rtol=0, atol=noise * finite.max(initial=0.0) + 1e-9, equal_nan=True))
