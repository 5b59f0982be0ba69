"""How a request wants an output handed over, if not simply in the answer: in shared memory, or as classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.core.errors import InvalidFields
from modelyard.inference.execution.signature import TensorInfo
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import datatype_named
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import encode_raw

from .classification import UNRANKED, top_classes
from .shared_memory import Place, Region, read_place

CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True)
class InRegion:
    """Into shared memory."""

    region: Region
    place: Place


@dataclass(frozen=True, slots=True)
class AsClasses:
    """The highest elements of each row."""

    count: int
    batched: bool
    """Whether the output's first dimension is a batch."""


Delivery = InRegion | AsClasses


def read_place_of_output(output: pb.ModelInferRequest.InferRequestedOutputTensor, path: str) -> Place | None:
    """Where the output goes; None if into the answer. Raises InvalidFields for `path`."""
    place = read_place(output.parameters, path)
    if place is not None and CLASSIFICATION in output.parameters:
        raise InvalidFields.one(path, "output can't set both 'shared_memory_region' and 'classification'")
    return place


def read_classes(
    output: pb.ModelInferRequest.InferRequestedOutputTensor, tensor: TensorInfo, path: str, *, batched: bool
) -> AsClasses | None:
    """How many classes are asked for; None if none are. Raises InvalidFields for `path`."""
    if CLASSIFICATION not in output.parameters:
        return None
    parameter = output.parameters[CLASSIFICATION]
    if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 1:
        raise InvalidFields.one(path, f"expected {CLASSIFICATION} as an int64, 1 or more")
    if tensor.datatype.name in UNRANKED:
        text = f"class result not available for output {tensor.name!r} due to unsupported type {tensor.datatype.name}"
        raise InvalidFields.one(path, text)
    return AsClasses(parameter.int64_param, batched)


def deliver(response: pb.ModelInferResponse, deliveries: Mapping[str, Delivery]) -> None:
    """Hands over the outputs of an answer as asked: changes `response`, and writes into regions.

    Raises InvalidFields if an output does not fit into its place. Large ones take a while: call it in a thread.
    """
    for index, output in enumerate(response.outputs):
        delivery = deliveries.get(output.name)
        if isinstance(delivery, InRegion):
            _write(index, output.name, response.raw_output_contents[index], delivery)
            response.raw_output_contents[index] = b""
        elif delivery is not None:
            response.raw_output_contents[index] = _classify(output, response.raw_output_contents[index], delivery)


def _write(index: int, name: str, raw: bytes, delivery: InRegion) -> None:
    try:
        delivery.region.write(delivery.place, raw)
    except TensorError as error:
        raise InvalidFields.one(f"outputs[{index}].parameters", f"output {name!r}: {error}") from error


def _classify(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes, delivery: AsClasses) -> bytes:
    classes = top_classes(raw, datatype_named(output.datatype), output.shape, delivery.count, batched=delivery.batched)
    kind = datatype_named("BYTES")
    output.datatype = kind.name
    output.shape[:] = classes.shape
    return encode_raw(classes, kind)
