"""Made-up inputs for a graph: what a version is tried out with before anybody calls it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.oip.datatypes import to_bfloat16
from modelyard.oip.tensors import Array

from .signature import Signature, TensorInfo

GUESSED_SIZES = (32, 8, 1, 224)
"""For free dimensions other than the batch, one after the other until the graph takes one. All get the same."""


def sample_inputs(signature: Signature, magnitudes: Sequence[float], guessed_size: int) -> dict[str, Array]:
    """Random inputs, always the same, one row for each magnitude.

    Integers are 0 or 1, as many graphs use them as indices; text is single letters; the elements of a float row are of
    its magnitude, which may be NaN.
    """
    random = np.random.default_rng(0)
    return {tensor.name: _sample(tensor, magnitudes, guessed_size, random) for tensor in signature.inputs}


def _sample(tensor: TensorInfo, magnitudes: Sequence[float], guessed_size: int, random: np.random.Generator) -> Array:
    shape = tuple(guessed_size if size == -1 else size for size in tensor.shape)
    if tensor.shape[:1] == (-1,):
        shape = (len(magnitudes), *shape[1:])
    name, dtype = tensor.datatype.name, tensor.datatype.dtype
    if name == "BYTES":
        return random.choice(np.array(["a", "b", "c"], dtype=object), shape)
    if name != "BF16" and dtype.kind in "iub":
        return random.integers(0, 2, shape).astype(dtype)
    values = random.standard_normal(shape)
    if tensor.shape[:1] == (-1,):
        values *= np.asarray(magnitudes).reshape(-1, *(1 for _ in shape[1:]))
    return to_bfloat16(values.astype(np.float32)) if name == "BF16" else values.astype(dtype)


def take_rows(inputs: dict[str, Array], rows: Sequence[int]) -> dict[str, Array]:
    """These rows of a batch, in this order."""
    return {name: array[list(rows)] for name, array in inputs.items()}
