"""ModelStreamInfer."""

from __future__ import annotations

from typing import Final

import grpc
import numpy as np

from modelyard.conformance.answers import INVALID_ARGUMENT
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import Subject, arrays_of, same
from modelyard.oip import open_inference_pb2 as pb

from .model import UNKNOWN

# The protocol's core has no such call and Triton's ServerMetadata no name for it: whether it is offered shows in the
# answer alone.
EXTENSION: Final = "stream"
_COUNT: Final = 20

Reply = pb.ModelStreamInferResponse


def _request(subject: Subject, request_id: str, seed: int = 0) -> pb.ModelInferRequest:
    request = subject.request(seed=seed)
    request.id = request_id
    return request


def _wrong(subject: Subject, request_id: str) -> pb.ModelInferRequest:
    request = _request(subject, request_id)
    request.raw_input_contents[0] = request.raw_input_contents[0] + b"\0\0\0\0"
    return request


def _expect_error(probe: Probe, reply: Reply, request_id: str) -> None:
    seen = f"error_message {reply.error_message!r}, id {reply.infer_response.id!r}"
    good = bool(reply.error_message) and reply.infer_response.id == request_id
    probe.notes.expect(good, f"an error_message with the id {request_id!r}", seen)


def _expect_good(probe: Probe, reply: Reply, request_id: str) -> None:
    seen = f"error_message {reply.error_message!r}, id {reply.infer_response.id!r}"
    good = not reply.error_message and reply.infer_response.id == request_id and bool(reply.infer_response.outputs)
    probe.notes.expect(good, f"an answer with the id {request_id!r}", seen)


@check("stream.answers", Level.TRITON, extension=EXTENSION)
def answers(probe: Probe) -> None:
    """Each request of a stream is answered, in a ModelStreamInferResponse with the request's id. (Triton.)"""
    ids = [f"s{index}" for index in range(_COUNT)]
    replies = probe.stream(_request(probe.subject, one) for one in ids).messages(Reply, _COUNT)
    errors = [reply.error_message for reply in replies if reply.error_message]
    probe.notes.expect(not errors, "no error", errors)
    got = sorted(reply.infer_response.id for reply in replies)
    probe.notes.expect(got == sorted(ids), "every id once", got)


@check("stream.order", Level.TRITON, extension=EXTENSION)
def order(probe: Probe) -> None:
    """One model's answers come in the order of the requests. (Triton, for models with one answer to each request.)"""
    ids = [f"s{index}" for index in range(_COUNT)]
    replies = probe.stream(_request(probe.subject, one) for one in ids).messages(Reply, _COUNT)
    got = [reply.infer_response.id for reply in replies]
    probe.notes.expect(got == ids, "the order sent", got)


@check("stream.values", Level.TRITON, extension=EXTENSION)
def values(probe: Probe) -> None:
    """Each answer of a stream is that of its own request. (Reference model `add`.)"""
    add = probe.reference("add")
    requests, sent = [], {}
    for index in range(_COUNT):
        sent[f"s{index}"] = (np.full((1, 2), index, np.float32), np.full((1, 2), 100 * index, np.float32))
        request = add.with_arrays(a=sent[f"s{index}"][0], b=sent[f"s{index}"][1])
        request.id = f"s{index}"
        requests.append(request)
    for reply in probe.stream(requests).messages(Reply, _COUNT):
        a, b = sent[reply.infer_response.id]
        arrays = arrays_of(reply.infer_response, probe.notes)
        right = same(arrays, {"sum": a + b, "difference": a - b})
        probe.notes.expect(right, f"the sum and difference of {a.tolist()} and {b.tolist()}", arrays)


@check("stream.same_as_unary", Level.TRITON, extension=EXTENSION)
def same_as_unary(probe: Probe) -> None:
    """A stream's answer is the one that ModelInfer gives. (Triton.)"""
    (reply,) = probe.stream([_request(probe.subject, "s", seed=1)]).messages(Reply, 1)
    streamed = arrays_of(reply.infer_response, probe.notes)
    unary = probe.infer(_request(probe.subject, "s", seed=1)).ok(pb.ModelInferResponse)
    probe.notes.expect(same(streamed, arrays_of(unary, probe.notes)), "ModelInfer's answer", streamed)


@check("stream.raw", Level.TRITON, extension=EXTENSION)
def raw(probe: Probe) -> None:
    """A stream's answers are in raw contents. (Triton; tritonclient reads nothing else.)"""
    (reply,) = probe.stream([_request(probe.subject, "s")]).messages(Reply, 1)
    got = len(reply.infer_response.raw_output_contents)
    probe.notes.expect(got == len(reply.infer_response.outputs) > 0, "raw contents for every output", f"{got} entries")


@check("stream.empty", Level.TRITON, extension=EXTENSION)
def empty(probe: Probe) -> None:
    """A stream without a request ends with OK. (Triton.)"""
    probe.stream([]).messages(Reply, 0)


@check("stream.error_inside", Level.TRITON, extension=EXTENSION)
def error_inside(probe: Probe) -> None:
    """A wrong request gets an error_message with its id, and the stream goes on. (Triton.)"""
    subject = probe.subject
    requests = [_request(subject, "s0"), _wrong(subject, "wrong"), _request(subject, "s1")]
    replies = {reply.infer_response.id: reply for reply in probe.stream(requests).messages(Reply, 3)}
    probe.notes.expect(replies.keys() == {"s0", "wrong", "s1"}, "ids s0, wrong, s1", sorted(replies))
    _expect_error(probe, replies["wrong"], "wrong")
    for name in ("s0", "s1"):
        _expect_good(probe, replies[name], name)


@check("stream.unknown_model", Level.TRITON, extension=EXTENSION)
def unknown_model(probe: Probe) -> None:
    """A request for an unknown model gets an error_message with its id, and the stream goes on. (Triton.)"""
    unknown = _request(probe.subject, "unknown")
    unknown.model_name = UNKNOWN
    requests = [unknown, _request(probe.subject, "s1")]
    replies = {reply.infer_response.id: reply for reply in probe.stream(requests).messages(Reply, 2)}
    probe.notes.expect(replies.keys() == {"unknown", "s1"}, "ids unknown, s1", sorted(replies))
    _expect_error(probe, replies["unknown"], "unknown")
    _expect_good(probe, replies["s1"], "s1")


@check("stream.final_response", Level.TRITON, extension=EXTENSION)
def final_response(probe: Probe) -> None:
    """The last answer to a request says so: parameter `triton_final_response` is true. (Triton.)"""
    (reply,) = probe.stream([_request(probe.subject, "s")]).messages(Reply, 1)
    parameters = reply.infer_response.parameters
    final = "triton_final_response" in parameters and parameters["triton_final_response"].bool_param
    probe.notes.expect(final, "triton_final_response: true", dict(parameters) or "no parameters")


@check("stream.grpc_errors", Level.RECOMMENDED, extension=EXTENSION)
def grpc_errors(probe: Probe) -> None:
    """With the metadata `triton_grpc_error: true` an error ends the stream with its code.

    (Triton's manual; its 2.51 does not do it for requests that never reach the model.)
    """
    requests = [_wrong(probe.subject, "wrong"), _request(probe.subject, "s1")]
    answer = probe.stream(requests, metadata=[("triton_grpc_error", "true")])
    ended = answer.code is INVALID_ARGUMENT
    probe.notes.expect(ended, "the end with INVALID_ARGUMENT", answer, None if answer.payloads else answer.code)


@check("stream.malformed", Level.TRITON, extension=EXTENSION)
def malformed(probe: Probe) -> None:
    """Bytes that are no message end that stream and nothing else: the next one is answered. (gRPC.)"""
    broken = probe.stream([_request(probe.subject, "s0"), b"\xff\xff\xff"])
    unavailable = broken.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    probe.notes.expect(not unavailable, "the stream's end", broken)
    probe.stream([_request(probe.subject, "s1")]).messages(Reply, 1)
