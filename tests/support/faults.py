"""Faults that servers of the protocol have had or could have, each as a `Fault` of the proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import decode_raw, encode_raw

from .faulty_proxy import Fault, Refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Changed(Fault):
    """Changes the answers of one call in place."""

    def __init__(self, method: str, change: Callable[[Any], None]) -> None:
        self._method, self._change = method, change

    def response(self, method: str, request: bytes, data: bytes) -> bytes:
        if method != self._method:
            return data
        message = getattr(pb, f"{method}Response").FromString(data)
        self._change(message)
        return bytes(message.SerializeToString())


class Asked(Fault):
    """Changes the requests of one call in place: the server works on something else than was sent."""

    def __init__(self, method: str, change: Callable[[Any], None]) -> None:
        self._method, self._change = method, change

    def request(self, method: str, data: bytes) -> bytes:
        if method != self._method:
            return data
        message = getattr(pb, f"{method}Request").FromString(data)
        self._change(message)
        return bytes(message.SerializeToString())


class Recoded(Fault):
    """Every refusal has another code or text."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self._code, self._text = code, text

    def refusal(self, method: str, code: grpc.StatusCode, text: str) -> bytes:
        raise Refusal(self._code, self._text)


class OverTaken(Fault):
    """Each prediction gets the outputs of the one before it, under its own id."""

    def __init__(self) -> None:
        self._before: pb.ModelInferResponse | None = None

    def response(self, method: str, request: bytes, data: bytes) -> bytes:
        if method != "ModelInfer":
            return data
        own = pb.ModelInferResponse.FromString(data)
        before, self._before = self._before or own, own
        taken = pb.ModelInferResponse()
        taken.CopyFrom(before)
        taken.id = own.id
        return taken.SerializeToString()


class Limited(Fault):
    """gRPC's default limit for messages."""

    def request(self, method: str, data: bytes) -> bytes:
        if len(data) > 4 * 2**20:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max")
        return data


class Dying(Fault):
    """Bytes that are no message are the end of it."""

    def __init__(self) -> None:
        self._dead = False

    def request(self, method: str, data: bytes) -> bytes:
        self._dead = self._dead or data == b"\xff\xff\xff"
        if self._dead and method == "ServerLive":
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        return data


class Content(Fault):
    """Says yes to anything that is refused, with an empty answer."""

    def refusal(self, method: str, code: grpc.StatusCode, text: str) -> bytes:
        return b""


class Streamed(Fault):
    """Changes what a stream brings."""

    def __init__(self, change: Callable[[list[pb.ModelStreamInferResponse]], list[bytes]]) -> None:
        self._change = change

    def stream(self, replies: Iterator[bytes]) -> Iterator[bytes]:
        messages = [pb.ModelStreamInferResponse.FromString(reply) for reply in replies]
        return iter(self._change(messages))


def _typed(response: pb.ModelInferResponse, *, keep_raw: bool) -> None:
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        datatype = DATATYPES[output.datatype]
        if datatype.contents:
            values = decode_raw(raw, datatype, output.shape).ravel().tolist()
            getattr(output.contents, datatype.contents).extend(values)
    if not keep_raw:
        del response.raw_output_contents[:]


def typed_answers(response: pb.ModelInferResponse) -> None:
    """Answers in typed contents, as KServe's Python server."""
    _typed(response, keep_raw=False)


def both_forms(response: pb.ModelInferResponse) -> None:
    """Answers in both forms at once."""
    _typed(response, keep_raw=True)


def swapped_contents(response: pb.ModelInferResponse) -> None:
    """The contents of the outputs in the wrong order."""
    response.raw_output_contents[:] = response.raw_output_contents[::-1]


def no_id(response: pb.ModelInferResponse) -> None:
    """The id is lost."""
    response.id = ""


def own_id(response: pb.ModelInferResponse) -> None:
    """An id is made up where none was given."""
    response.id = response.id or "made-up"


def no_version(response: pb.ModelInferResponse) -> None:
    """The version that answered is not said."""
    response.model_version = ""


def short_contents(response: pb.ModelInferResponse) -> None:
    """The contents are cut."""
    response.raw_output_contents[0] = response.raw_output_contents[0][:-1]


def half_precision(response: pb.ModelInferResponse) -> None:
    """Everything goes through half precision on the way."""
    for index, output in enumerate(response.outputs):
        if output.datatype == "FP32":
            with np.errstate(over="ignore"):
                halved = np.frombuffer(response.raw_output_contents[index], "<f4").astype("<f2")
            response.raw_output_contents[index] = halved.astype("<f4").tobytes()


def readable_text(response: pb.ModelInferResponse) -> None:
    """BYTES become text and back: what is no UTF-8 is replaced."""
    for index, output in enumerate(response.outputs):
        if output.datatype == "BYTES":
            elements = decode_raw(response.raw_output_contents[index], DATATYPES["BYTES"], output.shape)
            changed = np.array([element.decode().replace("ö", "?") for element in elements.ravel()], dtype=object)
            response.raw_output_contents[index] = encode_raw(changed, DATATYPES["BYTES"])


def trimmed_raw(request: pb.ModelInferRequest) -> None:
    """Raw contents that are too long are cut to what was expected, silently."""
    for index, raw in enumerate(request.raw_input_contents):
        tensor = request.inputs[index] if index < len(request.inputs) else None
        size = DATATYPES[tensor.datatype].itemsize if tensor and tensor.datatype in DATATYPES else 0
        if tensor and size:
            request.raw_input_contents[index] = raw[: size * int(np.prod(list(tensor.shape)))]


def trimmed_rows(request: pb.ModelInferRequest) -> None:
    """Rows over the maximum batch are left out, silently."""
    for index, tensor in enumerate(request.inputs):
        if tensor.shape and tensor.shape[0] > 16 and request.raw_input_contents:
            raw = request.raw_input_contents[index]
            request.raw_input_contents[index] = raw[: len(raw) // tensor.shape[0]]
            tensor.shape[0] = 1


def wrapped_integers(request: pb.ModelInferRequest) -> None:
    """Narrow integers wrap, as in Triton."""
    for tensor in request.inputs:
        if tensor.datatype == "INT8" and tensor.contents.int_contents:
            wide = np.array(tensor.contents.int_contents, np.int32)
            tensor.contents.int_contents[:] = wide.astype(np.int8).tolist()


def any_model_version(request: pb.ModelInferRequest) -> None:
    """The version asked for does not matter, as in KServe's Python server."""
    request.model_version = ""


def renamed_inputs(request: pb.ModelInferRequest) -> None:
    """Inputs go by position, whatever they are called."""
    for tensor, name in zip(request.inputs, ("a", "b"), strict=False):
        tensor.name = name


def all_outputs(request: pb.ModelInferRequest) -> None:
    """The outputs asked for do not matter."""
    del request.outputs[:]


def no_parameters(request: pb.ModelInferRequest) -> None:
    """Parameters are dropped unread."""
    request.ClearField("parameters")


def raw_of_typed(request: pb.ModelInferRequest) -> None:
    """Typed contents that are too short are filled up."""
    for tensor in request.inputs:
        if tensor.HasField("contents") and tensor.datatype == "FP32":
            missing = int(np.prod(list(tensor.shape))) - len(tensor.contents.fp32_contents)
            tensor.contents.fp32_contents.extend([0.0] * max(0, missing))


def ignored_offset(request: pb.ModelInferRequest) -> None:
    """The place of a tensor within its region does not matter."""
    for tensor in request.inputs:
        if "shared_memory_offset" in tensor.parameters:
            tensor.parameters["shared_memory_offset"].int64_param = 0


def ignored_output_region(request: pb.ModelInferRequest) -> None:
    """Outputs come in the message, whatever was asked."""
    for output in request.outputs:
        output.ClearField("parameters")


def unwrapped(replies: list[pb.ModelStreamInferResponse]) -> list[bytes]:
    """A stream's answers as bare predictions, as in MLServer."""
    return [reply.infer_response.SerializeToString() for reply in replies]


def reversed_stream(replies: list[pb.ModelStreamInferResponse]) -> list[bytes]:
    """A stream's answers in another order."""
    return [reply.SerializeToString() for reply in replies[::-1]]


def first_error_ends(replies: list[pb.ModelStreamInferResponse]) -> list[bytes]:
    """A stream ends with the first error."""
    good: list[bytes] = []
    for reply in replies:
        if reply.error_message:
            raise Refusal(INVALID, reply.error_message)
        good.append(reply.SerializeToString())
    return good


def anonymous_errors(replies: list[pb.ModelStreamInferResponse]) -> list[bytes]:
    """A stream's errors do not say which request they are for."""
    for reply in replies:
        if reply.error_message:
            reply.ClearField("infer_response")
    return [reply.SerializeToString() for reply in replies]


def never_final(replies: list[pb.ModelStreamInferResponse]) -> list[bytes]:
    """A stream's answers do not say that they are the last."""
    for reply in replies:
        reply.infer_response.ClearField("parameters")
    return [reply.SerializeToString() for reply in replies]
