"""Reads a ModelInferRequest against a version's signature.

Knows both the wire and the domain, as `responses` does for the way back. Everything wrong with a request is named at
once, each with the tensor, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from modelyard.core.errors import Unimplemented, Violations
from modelyard.core.names import shorten
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import Array, decode_contents, decode_raw, format_shape

from .signature import Signature, TensorInfo
from .versions import LoadedVersion

RESERVED_PREFIX = "triton_"
_SHARED_MEMORY = "shared_memory_region"
_CLASSIFICATION = "classification"

InputTensor: TypeAlias = pb.ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class Inference:
    """A checked request."""

    feeds: dict[str, Array]
    outputs: Sequence[str]
    """Names, in the order asked."""
    rows: int
    """The batch; 1 if the graph has no batch dimension."""


def read_request(request: pb.ModelInferRequest, version: LoadedVersion) -> Inference:
    """The request as arrays.

    Raises InvalidFields with everything that is wrong, and Unimplemented for an extension that is not offered.
    """
    violations = Violations()
    for name in request.parameters:
        if name.startswith(RESERVED_PREFIX):
            text = f"expected no parameter that begins with {RESERVED_PREFIX}, which is reserved"
            violations.add(f"parameters[{shorten(name)}]", text)
    reader = _InputReader(request, version.signature, violations)
    feeds = reader.read()
    outputs = _read_outputs(request, version, violations)
    rows = 1
    if version.signature.batched and not violations.found:
        rows = _read_batch(feeds, version.max_batch_size, violations)
    violations.raise_if_any()
    return Inference(feeds, outputs, rows)


def read_timeout(request: pb.ModelInferRequest) -> float | None:
    """The `timeout` parameter in seconds. None without one, and for 0, by which clients mean none."""
    if "timeout" not in request.parameters:
        return None
    parameter = request.parameters["timeout"]
    kind = parameter.WhichOneof("parameter_choice")
    microseconds = parameter.uint64_param if kind == "uint64_param" else parameter.int64_param
    violations = Violations()
    violations.check(
        kind in ("int64_param", "uint64_param") and microseconds >= 0,
        "parameters[timeout]",
        f"expected microseconds as an int64, 0 or more; got {shorten(str(parameter).strip()) or 'nothing'}",
    )
    violations.raise_if_any()
    return microseconds / 1e6 or None


class _InputReader:
    """The inputs of one request on their way to arrays."""

    def __init__(self, request: pb.ModelInferRequest, signature: Signature, violations: Violations) -> None:
        self._tensors = request.inputs
        self._raws = request.raw_input_contents
        self._signature = signature
        self._violations = violations

    def read(self) -> dict[str, Array]:
        """Every input that is right, by name; what is wrong is among the violations."""
        feeds: dict[str, Array] = {}
        if self._raws and len(self._raws) < len(self._tensors):
            text = f"expected an entry for each of the {len(self._tensors)} inputs; got {len(self._raws)}"
            self._violations.add("raw_input_contents", text)
            return feeds
        named: set[str] = set()
        for index, tensor in enumerate(self._tensors):
            if tensor.name in named:
                self._wrong(index, "name", f"expected each input once; got {shorten(tensor.name)!r} again")
                continue
            named.add(tensor.name)
            array = self._read_tensor(index, tensor)
            if array is not None:
                feeds[tensor.name] = array
        for missing in self._signature.inputs:
            if missing.name not in named:
                self._violations.add("inputs", f"expected the input {missing}; it is missing")
        return feeds

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
        """Whether datatype, shape and parameters of an input are right."""
        before = len(self._violations.found)
        of_input = f"input {tensor.name!r}: expected"
        if tensor.datatype != expected.datatype.name:
            self._wrong(index, "datatype", f"{of_input} {expected.datatype.name}, got {shorten(tensor.datatype)!r}")
        if not expected.accepts(tensor.shape):
            shapes = f"{format_shape(expected.shape)}, got {format_shape(tensor.shape)}"
            self._wrong(index, "shape", f"{of_input} {shapes}")
        if _SHARED_MEMORY in tensor.parameters:
            region = shorten(tensor.parameters[_SHARED_MEMORY].string_param)
            self._wrong(index, "parameters", f"{of_input} contents in the message; no region {region!r} is registered")
        return len(self._violations.found) == before

    def _decode(self, index: int, tensor: InputTensor, expected: TensorInfo) -> Array:
        if not self._raws:
            array = decode_contents(tensor.contents, expected.datatype, tensor.shape)
        elif tensor.HasField("contents"):
            raise TensorError("expected raw_input_contents or contents, got both")
        else:
            array = decode_raw(self._raws[index], expected.datatype, tensor.shape)
        return _as_text(array) if expected.datatype.name == "BYTES" else array

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


def _read_outputs(request: pb.ModelInferRequest, version: LoadedVersion, violations: Violations) -> Sequence[str]:
    """The names asked for, each once; all if none is asked for."""
    if not request.outputs:
        return version.all_outputs
    names: dict[str, None] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in version.signature.outputs_by_name:
            known = ", ".join(version.all_outputs)
            text = f"expected an output of the model ({known}); got {shorten(output.name)!r}"
            violations.add(f"outputs[{index}].name", text)
        if _CLASSIFICATION in output.parameters:
            raise Unimplemented("the classification extension is not offered; ask for the scores and sort them")
        if _SHARED_MEMORY in output.parameters:
            region = shorten(output.parameters[_SHARED_MEMORY].string_param)
            text = f"output {shorten(output.name)!r}: expected no region; none called {region!r} is registered"
            violations.add(f"outputs[{index}].parameters", text)
        names[output.name] = None
    return list(names)


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
