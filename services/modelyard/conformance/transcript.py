"""What was sent, in words: for the column of the report."""

from __future__ import annotations

from google.protobuf.message import Message

from modelyard.oip import open_inference_pb2 as pb

from .verdicts import short


def describe(method: str, request: Message | bytes) -> str:
    """The call on one line, without the tensors' elements."""
    if isinstance(request, bytes):
        return f"{method}, {len(request)} bytes" if request else method
    if isinstance(request, pb.ModelInferRequest):
        return short(f"{method} {_inference(request)}", 240)
    return short(f"{method} {short(request)}".strip())


def _inference(request: pb.ModelInferRequest) -> str:
    version = f":{request.model_version}" if request.model_version else ""
    parts = [request.model_name + version + "(" + ", ".join(map(_input, request.inputs)) + ")"]
    if request.raw_input_contents:
        parts.append("raw " + "+".join(str(len(raw)) for raw in request.raw_input_contents) + " B")
    if request.outputs:
        parts.append("→ " + ", ".join(f"{output.name}{_parameters(output.parameters)}" for output in request.outputs))
    if request.parameters:
        parts.append("with" + _parameters(request.parameters))
    return " ".join(parts)


def _input(tensor: pb.ModelInferRequest.InferInputTensor) -> str:
    shape = "×".join(str(size) for size in tensor.shape)
    typed = "typed" if tensor.HasField("contents") else ""
    return f"{tensor.name} {tensor.datatype}[{shape}]{typed}{_parameters(tensor.parameters)}"


def _parameters(parameters: object) -> str:
    """A map of parameters, sorted."""
    items = sorted(parameters.items())  # type: ignore[attr-defined]
    return (" {" + ", ".join(f"{name}={short(value, 40) or 'nothing'}" for name, value in items) + "}") * bool(items)
