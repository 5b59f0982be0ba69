"""Reads a ModelInferRequest against a version's signature.

Knows both the wire and the domain, as `responses` does for the way back. Everything wrong with a request is named at
once, each with the tensor, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from modelyard.core.errors import InvalidFields, Violations
from modelyard.core.names import shorten
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import Array, decode_contents, decode_raw, format_shape

from .delivery import Delivery, InRegion, read_classes, read_place_of_output
from .parameters import read_priority
from .shared_memory import BYTE_SIZE, NO_REGIONS, Place, TenantRegions, read_place

InputTensor: TypeAlias = pb.ModelInferRequest.InferInputTensor


@dataclass(slots=True)
class Inference:
    """A checked request."""

    feeds: dict[str, Array]
    outputs: Sequence[str]
    """Names, in the order asked."""
    rows: int
    """The batch; 1 if the graph has no batch dimension."""
    priority: int = 0
    """1 is the highest; 0 if the caller asked for none."""
    deliveries: Mapping[str, Delivery] | None = None
    """Outputs that are handed over in another way than in the answer, by name; None if there are none."""


def read_request(
    request: pb.ModelInferRequest, version: LoadedVersion, regions: TenantRegions = NO_REGIONS
) -> Inference:
    """The request as arrays. `regions`: where the caller may have put its tensors.

    Raises InvalidFields with everything that is wrong, and NotFound for a region that is not registered.
    """
    violations = Violations()
    priority = read_priority(request.parameters, violations) if request.parameters else 0
    feeds = _InputReader(request, version.signature, violations, regions).read()
    if request.outputs:
        outputs, deliveries = _OutputReader(request, version, violations, regions).read()
    else:
        outputs, deliveries = version.all_outputs, None
    rows = 1
    if version.signature.batched and not violations.found:
        rows = _read_batch(feeds, version.max_batch_size, violations)
    violations.raise_if_any()
    return Inference(feeds, outputs, rows, priority, deliveries)


def shared_bytes(request: pb.ModelInferRequest) -> int:
    """How many bytes of shared memory the request says that reading and answering it will touch."""
    parameters = (tensor.parameters for tensors in (request.inputs, request.outputs) for tensor in tensors)
    return sum(given[BYTE_SIZE].int64_param for given in parameters if BYTE_SIZE in given)


class _InputReader:
    """The inputs of one request on their way to arrays."""

    def __init__(
        self, request: pb.ModelInferRequest, signature: Signature, violations: Violations, regions: TenantRegions
    ) -> None:
        self._tensors = request.inputs
        self._raws = request.raw_input_contents
        self._signature = signature
        self._violations = violations
        self._regions = regions
        self._places: dict[int, Place] = {}
        """By input. These inputs have no raw contents."""
        self._next_raw = 0

    def read(self) -> dict[str, Array]:
        """Every input that is right, by name; what is wrong is among the violations."""
        feeds: dict[str, Array] = {}
        for index, tensor in enumerate(self._tensors):
            if tensor.parameters:
                self._find(index, tensor)
        in_message = len(self._tensors) - len(self._places)
        if self._raws and len(self._raws) < in_message:
            text = f"expected an entry for each of the {in_message} inputs; got {len(self._raws)}"
            self._violations.add("raw_input_contents", text)
            return feeds
        named: set[str] = set()
        for index, tensor in enumerate(self._tensors):
            array = self._read_once(index, tensor, named)
            if array is not None:
                feeds[tensor.name] = array
            if index not in self._places:
                self._next_raw += 1
        for missing in self._signature.inputs:
            if missing.name not in named:
                self._violations.add("inputs", f"expected the input {missing}; it is missing")
        return feeds

    def _find(self, index: int, tensor: InputTensor) -> None:
        """Notes where an input is that is in shared memory."""
        try:
            place = read_place(tensor.parameters, f"inputs[{index}].parameters")
        except InvalidFields as error:
            self._violations.found.extend(error.violations)
            return
        if place is not None:
            self._places[index] = place

    def _read_once(self, index: int, tensor: InputTensor, named: set[str]) -> Array | None:
        if tensor.name in named:
            self._wrong(index, "name", f"expected each input once; got {shorten(tensor.name)!r} again")
            return None
        named.add(tensor.name)
        return self._read_tensor(index, tensor)

    def _read_tensor(self, index: int, tensor: InputTensor) -> Array | None:
        expected = self._signature.inputs_by_name.get(tensor.name)
        if expected is None:
            known = ", ".join(self._signature.inputs_by_name)
            self._wrong(index, "name", f"expected an input of the model ({known}); got {shorten(tensor.name)!r}")
            return None
        if not self._fits(index, tensor, expected):
            return None
        try:
            return self._decode(index, tensor, expected)
        except TensorError as error:
            self._wrong(index, "contents", f"input {tensor.name!r}: {error}")
            return None

    def _fits(self, index: int, tensor: InputTensor, expected: TensorInfo) -> bool:
        """Whether datatype and shape of an input are right."""
        before = len(self._violations.found)
        of_input = f"input {tensor.name!r}: expected"
        if tensor.datatype != expected.datatype.name:
            self._wrong(index, "datatype", f"{of_input} {expected.datatype.name}, got {shorten(tensor.datatype)!r}")
        if not expected.accepts(tensor.shape):
            shapes = f"{format_shape(expected.shape)}, got {format_shape(tensor.shape)}"
            self._wrong(index, "shape", f"{of_input} {shapes}")
        return len(self._violations.found) == before

    def _decode(self, index: int, tensor: InputTensor, expected: TensorInfo) -> Array:
        if index in self._places:
            array = self._copy(tensor, expected, self._places[index])
        elif not self._raws:
            array = decode_contents(tensor.contents, expected.datatype, tensor.shape)
        elif tensor.HasField("contents"):
            raise TensorError("expected raw_input_contents or contents, got both")
        else:
            array = decode_raw(self._raws[self._next_raw], expected.datatype, tensor.shape)
        return _as_text(array) if expected.datatype.name == "BYTES" else array

    def _copy(self, tensor: InputTensor, expected: TensorInfo, place: Place) -> Array:
        if tensor.HasField("contents"):
            raise TensorError("expected shared memory or contents, got both")
        return decode_raw(self._regions.find(place.region).read(place), expected.datatype, tensor.shape)

    def _wrong(self, index: int, field: str, description: str) -> None:
        self._violations.add(f"inputs[{index}].{field}", description)


def _as_text(array: Array) -> Array:
    """BYTES as the graph takes them: ONNX strings are UTF-8."""
    text = np.empty(array.size, dtype=object)
    for index, element in enumerate(array.ravel()):
        try:
            text[index] = element.decode()
        except UnicodeDecodeError as error:
            raise TensorError(f"expected UTF-8; element {index} is not, from byte {error.start}") from None
    return text.reshape(array.shape)


class _OutputReader:
    """The outputs that one request asks for."""

    def __init__(
        self, request: pb.ModelInferRequest, version: LoadedVersion, violations: Violations, regions: TenantRegions
    ) -> None:
        self._outputs = request.outputs
        self._version = version
        self._violations = violations
        self._regions = regions

    def read(self) -> tuple[list[str], dict[str, Delivery] | None]:
        """Their names, each once, and how to hand over those for which that is said."""
        names: dict[str, None] = {}
        deliveries: dict[str, Delivery] = {}
        for index, output in enumerate(self._outputs):
            tensor = self._version.signature.outputs_by_name.get(output.name)
            if tensor is None:
                known = ", ".join(self._version.all_outputs)
                text = f"expected an output of the model ({known}); got {shorten(output.name)!r}"
                self._violations.add(f"outputs[{index}].name", text)
                continue
            names[output.name] = None
            delivery = self._delivery(index, tensor) if output.parameters else None
            if delivery is not None:
                deliveries.setdefault(output.name, delivery)
        return list(names), deliveries or None

    def _delivery(self, index: int, tensor: TensorInfo) -> Delivery | None:
        output, path = self._outputs[index], f"outputs[{index}].parameters"
        try:
            place = read_place_of_output(output, path)
            if place is not None:
                return InRegion(self._regions.find(place.region), place)
            return read_classes(output, tensor, path, batched=self._version.signature.batched)
        except InvalidFields as error:
            self._violations.found.extend(error.violations)
            return None


def _read_batch(feeds: dict[str, Array], limit: int, violations: Violations) -> int:
    """The rows of a batched request, which all inputs agree on."""
    sizes: dict[str, int] = {name: array.shape[0] for name, array in feeds.items()}
    rows = next(iter(sizes.values()))
    if any(size != rows for size in sizes.values()):
        listed = ", ".join(f"{name!r} {size}" for name, size in sizes.items())
        violations.add("inputs", f"expected the same batch size for every input; got {listed}")
    elif not 1 <= rows <= limit:
        listed = ", ".join(repr(name) for name in sizes)
        violations.add("inputs", f"input {listed}: expected a batch of 1 to {limit} rows, got {rows}")
    return rows
