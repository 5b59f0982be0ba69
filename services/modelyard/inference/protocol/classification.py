"""The classification extension: the highest values of an output, each with its place, instead of all values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelyard.oip.datatypes import Datatype, from_bfloat16
from modelyard.oip.tensors import Array, decode_raw

UNRANKED = frozenset({"BOOL", "BYTES"})
"""Datatypes whose elements have no order worth asking for."""


def top_classes(raw: bytes, datatype: Datatype, shape: Sequence[int], count: int, *, batched: bool) -> Array:
    """The `count` highest elements of each row as `value:index`, highest first; all if there are fewer.

    Without a batch dimension the output is one row, and the answer has one dimension. Of equal elements the first comes
    first; NaN counts as minus infinity. Integers are written in decimal, other numbers with six digits after the point.
    """
    values = decode_raw(raw, datatype, shape)
    if datatype.name == "BF16":
        values = from_bfloat16(values)
    rows = values.reshape(shape[0] if batched else 1, math.prod(shape[1:] if batched else shape))
    best = _highest(rows, count)
    form = "{}:{}" if rows.dtype.kind in "iu" else "{:f}:{}"
    texts = [
        [form.format(value, index) for value, index in zip(row[places].tolist(), places.tolist(), strict=True)]
        for row, places in zip(rows, best, strict=True)
    ]
    answer = np.array(texts, dtype=object).reshape(best.shape)
    return answer if batched else answer[0]


def _highest(rows: Array, count: int) -> Array:
    """For each row the places of its highest elements, highest first."""
    if rows.dtype.kind == "f":
        rows = np.where(np.isnan(rows), -np.inf, rows)
    # Sorting the reversed row upwards and reading it backwards keeps equal elements in their order.
    upwards: Array = np.argsort(rows[:, ::-1], axis=1, kind="stable")
    places: Array = rows.shape[1] - 1 - upwards[:, ::-1][:, :count]
    return places
