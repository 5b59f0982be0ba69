"""What a version takes and gives: names, element types and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modelyard.oip.datatypes import Datatype
from modelyard.oip.tensors import format_shape


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    """With the batch dimension; -1 where any size is allowed."""

    def __str__(self) -> str:
        return f"{self.name} {self.datatype.name} {format_shape(self.shape)}"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits: the same rank, and the same size where ours is fixed."""
        return len(shape) == len(self.shape) and all(
            own in (-1, size) for own, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs, in the graph's order."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batched: bool
    """Whether the first dimension of every input and output is a free batch dimension."""
    inputs_by_name: Mapping[str, TensorInfo]
    outputs_by_name: Mapping[str, TensorInfo]
    free_shapes: bool
    """Whether an input has a free dimension other than the batch: then not every allowed shape need make sense."""

    @classmethod
    def of(cls, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Signature:
        """The signature of these tensors."""
        batched = bool(inputs) and all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
        first = 1 if batched else 0
        return cls(
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            batched=batched,
            inputs_by_name=MappingProxyType({tensor.name: tensor for tensor in inputs}),
            outputs_by_name=MappingProxyType({tensor.name: tensor for tensor in outputs}),
            free_shapes=any(-1 in tensor.shape[first:] for tensor in inputs),
        )

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"
