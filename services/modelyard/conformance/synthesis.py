"""Valid tensors for any signature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES, Datatype, to_bfloat16
from modelyard.oip.tensors import Array, encode_raw

FREE_SIZE: Final = 2
"""The size of a free dimension behind the first unless the run says otherwise."""

TensorMetadata = pb.ModelMetadataResponse.TensorMetadata


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as it will be sent."""

    name: str
    datatype: Datatype
    array: Array

    @property
    def raw(self) -> bytes:
        """Its raw contents."""
        return encode_raw(self.array, self.datatype)

    def typed(self) -> pb.InferTensorContents:
        """Its typed contents; ValueError for FP16 and BF16, which have none."""
        if self.datatype.contents is None:
            raise ValueError(f"{self.datatype.name} has no typed contents")
        return pb.InferTensorContents(**{self.datatype.contents: self.array.ravel().tolist()})


@dataclass(frozen=True, slots=True)
class Plan:
    """How the free dimensions are filled, and with what."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of free dimensions by `input` or `input.axis`."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """Given arrays by input name, with their batch dimension."""

    def shape(self, tensor: TensorMetadata, rows: int) -> list[int]:
        """A shape that fits: `rows` in a free first dimension."""
        return [self._size(tensor, axis, size, rows) for axis, size in enumerate(tensor.shape)]

    def tensor(self, tensor: TensorMetadata, rows: int, seed: int = 0) -> Tensor:
        """A tensor that fits. Other seeds give other values; all are 0 to 3, so that they may be indices."""
        datatype = DATATYPES[tensor.datatype]
        if tensor.name in self.arrays:
            return Tensor(tensor.name, datatype, _given(self.arrays[tensor.name], datatype, tensor.shape, rows))
        return Tensor(tensor.name, datatype, values(datatype, self.shape(tensor, rows), seed))

    def _size(self, tensor: TensorMetadata, axis: int, size: int, rows: int) -> int:
        if size >= 0:
            return size
        chosen = self.sizes.get(f"{tensor.name}.{axis}")
        if chosen is None and axis == 0:
            return rows
        return chosen if chosen is not None else self.sizes.get(tensor.name, FREE_SIZE)


def floats(rows: Sequence[Any]) -> Array:
    """Nested numbers as FP32."""
    return np.array(rows, dtype=np.float32)


def values(datatype: Datatype, shape: Sequence[int], seed: int = 0) -> Array:
    """Small values in a pattern that depends on the seed."""
    numbers = (np.arange(math.prod(shape)) + seed) % (2 if datatype.name == "BOOL" else 4)
    if datatype.name == "BYTES":
        texts: Any = np.empty(numbers.size, dtype=object)
        texts[:] = [b"t%d" % number for number in numbers]
        return texts.reshape(shape)  # type: ignore[no-any-return]
    if datatype.name == "BF16":
        return to_bfloat16(numbers.astype(np.float32)).reshape(shape)
    return numbers.astype(datatype.dtype).reshape(shape)


def _given(array: Array, datatype: Datatype, shape: Sequence[int], rows: int) -> Array:
    """A given array, cut or repeated to so many rows if the first dimension is free."""
    if shape and shape[0] < 0:
        array = np.take(array, range(rows), axis=0, mode="wrap")
    if datatype.name == "BYTES":
        return array.astype(object)
    return to_bfloat16(array) if datatype.name == "BF16" else array.astype(datatype.dtype)
