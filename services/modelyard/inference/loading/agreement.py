"""Whether the graph that was loaded is the one that the registry described."""

from __future__ import annotations

from modelyard.core.errors import MalformedContent
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.serving.desired import WantedTensor
from modelyard.oip.tensors import format_shape


def agreed_signature(
    inputs: tuple[WantedTensor, ...], outputs: tuple[WantedTensor, ...], found: Signature
) -> Signature:
    """The signature as the registry recorded it from the same file; raises MalformedContent for a contradiction.

    The recorded shapes count, because they are what the file declares. The runtime reports what it infers, which may
    fix a dimension that is declared free: in a graph that was traced at one batch size, that is how one notices.
    """
    return Signature.of(_agreed("inputs", inputs, found.inputs), _agreed("outputs", outputs, found.outputs))


def _agreed(what: str, recorded: tuple[WantedTensor, ...], found: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    if not recorded:
        return found
    pairs = list(zip(recorded, found, strict=False))
    if len(recorded) != len(found) or not all(_compatible(*pair) for pair in pairs):
        expected = ", ".join(f"{tensor.name} {tensor.datatype} {format_shape(tensor.shape)}" for tensor in recorded)
        actual = ", ".join(map(str, found))
        raise MalformedContent(f"the registry recorded the {what} {expected}; the graph has {actual}")
    return tuple(TensorInfo(tensor.name, actual.datatype, tensor.shape) for tensor, actual in pairs)


def _compatible(recorded: WantedTensor, found: TensorInfo) -> bool:
    """Whether both may be readings of the same tensor."""
    return (
        (recorded.name, recorded.datatype) == (found.name, found.datatype.name)
        and len(recorded.shape) == len(found.shape)
        and all(-1 in sizes or sizes[0] == sizes[1] for sizes in zip(recorded.shape, found.shape, strict=True))
    )
