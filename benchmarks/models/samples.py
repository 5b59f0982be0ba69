"""Inputs to ask a model with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.signature import Signature, Tensor

from .plain import SEED

_TOKENS = 30_000
"""Below the size of BERT's vocabulary."""


def sample_inputs(signature: Signature, rows: int = 1) -> dict[str, NDArray[Any]]:
    """Arrays by input name, [rows, ...], the same at every call. Free dimensions behind the first become 1."""
    random = np.random.default_rng(SEED)
    return {tensor.name: _sample(tensor, rows, random) for tensor in signature.inputs}


def _sample(tensor: Tensor, rows: int, random: np.random.Generator) -> NDArray[Any]:
    shape = (rows, *(1 if size < 0 else size for size in tensor.shape[1:]))
    if tensor.datatype == "INT64":
        mask = tensor.name.endswith("mask")
        return np.ones(shape, np.int64) if mask else random.integers(0, _TOKENS, shape, np.int64)
    if tensor.datatype == "FP32":
        return random.standard_normal(shape, dtype=np.float32)
    raise ValueError(f"no samples of {tensor.datatype} for the input {tensor.name!r}")
