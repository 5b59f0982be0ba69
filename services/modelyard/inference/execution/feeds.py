"""The inputs of requests, and how those of several become one batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modelyard.oip.datatypes import Datatype
from modelyard.oip.tensors import Array

from .signature import Signature


class Feeds(NamedTuple):
    """The inputs of one request, checked against the signature."""

    outputs: Sequence[str]
    """Names of the outputs to compute, in the order asked."""
    rows: int
    """The batch; 1 if the graph has no batch dimension."""
    key: Hashable
    """Requests with equal keys fit together: in the outputs asked for, and in every dimension but the batch."""
    arrays: Sequence[Array] = ()
    """In the signature's order; empty if `raws` has them."""
    raws: Sequence[bytes] = ()
    """Raw contents in the signature's order, each of an element type with a fixed size; empty if `arrays` has them."""
    tails: Sequence[tuple[int, ...]] = ()
    """For `raws`: the shape of each input without the batch dimension."""

    @classmethod
    def of(cls, arrays: Mapping[str, Array], outputs: Sequence[str], rows: int, signature: Signature) -> Feeds:
        """From arrays by name."""
        ordered = [arrays[tensor.name] for tensor in signature.inputs]
        key = (tuple(outputs), *(array.shape[1:] for array in ordered))
        return cls(outputs, rows, key, ordered)

    def array(self, index: int, datatype: Datatype) -> Array:
        """The input of this number."""
        if self.arrays:
            return self.arrays[index]
        return np.frombuffer(self.raws[index], datatype.dtype).reshape(-1, *self.tails[index])


def join(feeds: Sequence[Feeds], signature: Signature) -> dict[str, Array]:
    """The inputs of several requests with equal keys as one batch, in their order. A single one is not copied."""
    first = feeds[0]
    if len(feeds) == 1:
        return {tensor.name: first.array(index, tensor.datatype) for index, tensor in enumerate(signature.inputs)}
    raw = all(one.raws for one in feeds)
    joined: dict[str, Array] = {}
    for index, tensor in enumerate(signature.inputs):
        if raw:
            contents = b"".join([one.raws[index] for one in feeds])
            array = np.frombuffer(contents, tensor.datatype.dtype).reshape(-1, *first.tails[index])
        else:
            array = np.concatenate([one.array(index, tensor.datatype) for one in feeds])
        joined[tensor.name] = array
    return joined
