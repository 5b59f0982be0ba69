"""Deadlines, cancels, and many requests at once."""

from __future__ import annotations

from typing import Any, Final

import grpc
import numpy as np

from modelyard.conformance.answers import OK, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import Subject, arrays_of, same
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.tensors import Array

from .refusals import REFUSALS

_IN_FLIGHT: Final = 64
_GIVEN_UP: Final = 30


def _finish(probe: Probe, call: Any) -> Answer:
    """The end of a call in flight."""
    try:
        return Answer(probe.notes, OK, payload=call.result())
    except grpc.RpcError as error:
        return Answer(probe.notes, error.code(), error.details() or "")


def _distinct(index: int, rows: int = 1) -> dict[str, Array]:
    a = np.full((rows, 2), index, np.float32) + np.arange(rows, dtype=np.float32)[:, None] / 16
    return {"a": a, "b": np.full((rows, 2), 1000 * index, np.float32)}


def _expect_sum(probe: Probe, answer: Answer, sent: dict[str, Array]) -> None:
    arrays = arrays_of(answer.ok(pb.ModelInferResponse), probe.notes)
    right = same(arrays, {"sum": sent["a"] + sent["b"], "difference": sent["a"] - sent["b"]})
    probe.notes.expect(right, f"the sum and difference of {sent['a'].tolist()} and {sent['b'].tolist()}", arrays)


def _all_at_once(probe: Probe, add: Subject, rows_of: list[int]) -> None:
    sent = [_distinct(index, rows) for index, rows in enumerate(rows_of)]
    calls = []
    for index, arrays in enumerate(sent):
        request = add.with_arrays(**arrays)
        request.id = f"conformance-{index}"
        calls.append(probe.start(request))
    probe.notes.sent = f"{len(sent)} ModelInfer {add.name} at once, each with values of its own"
    for index, (call, arrays) in enumerate(zip(calls, sent, strict=True)):
        answer = _finish(probe, call)
        _expect_sum(probe, answer, arrays)
        echoed = answer.ok(pb.ModelInferResponse).id
        probe.notes.expect(echoed == f"conformance-{index}", f"id conformance-{index}", echoed)


@check("calls.at_once", Level.REQUIRED)
def at_once(probe: Probe) -> None:
    """64 requests in flight with values of their own: each gets its own answer and id. (Reference model `add`.)"""
    _all_at_once(probe, probe.reference("add"), [1] * _IN_FLIGHT)


@check("calls.at_once_rows", Level.REQUIRED)
def at_once_rows(probe: Probe) -> None:
    """The same with one to four rows each, which a batching server joins and must split right. (Model `add`.)"""
    _all_at_once(probe, probe.reference("add"), [1 + index % 4 for index in range(_IN_FLIGHT)])


@check("calls.bad_among_good", Level.REQUIRED)
def bad_among_good(probe: Probe) -> None:
    """Wrong requests in flight change no other caller's answer, whatever they get. (Reference model `add`.)"""
    add = probe.reference("add")
    wrong = [refusal for refusal in REFUSALS if refusal.name in ("raw_too_short", "wrong_rank", "wrong_datatype")]
    good, bad = [], []
    for index in range(_IN_FLIGHT // 2):
        arrays = _distinct(index)
        good.append((probe.start(add.with_arrays(**arrays)), arrays))
        spoiled = add.request()
        wrong[index % len(wrong)].spoil(spoiled, add)
        bad.append(probe.start(spoiled))
    probe.notes.sent = f"{len(good)} good and {len(bad)} wrong ModelInfer {add.name} at once"
    for call in bad:
        _finish(probe, call)
    for call, arrays in good:
        _expect_sum(probe, _finish(probe, call), arrays)


@check("calls.connections", Level.REQUIRED)
def connections(probe: Probe) -> None:
    """Eight connections at once are each answered. (gRPC: any number of clients.)"""
    request = probe.subject.request()
    probe.notes.sent = "ModelInfer on each of 8 connections"
    channels = [probe.new_channel() for _ in range(8)]
    try:
        calls = [probe.start(request, channel) for channel in channels]
        for call in calls:
            _finish(probe, call).ok(pb.ModelInferResponse)
    finally:
        for channel in channels:
            channel.close()


@check("calls.deadlines", Level.REQUIRED)
def deadlines(probe: Probe) -> None:
    """Calls whose deadline passes at once, and the next good request is answered. (gRPC: deadlines.)"""
    calls = [probe.start(probe.subject.request(), timeout=0.0005 * (1 + index % 6)) for index in range(_GIVEN_UP)]
    probe.notes.sent = f"{_GIVEN_UP} ModelInfer with deadlines of 0.5 to 3 ms"
    allowed = {OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
    for call in calls:
        answer = _finish(probe, call)
        probe.notes.expect(answer.code in allowed, "OK or DEADLINE_EXCEEDED", answer)
    probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)


@check("calls.cancels", Level.REQUIRED)
def cancels(probe: Probe) -> None:
    """Calls that are cancelled change no other caller's answer. (gRPC: cancellation; reference model `add`.)"""
    add = probe.reference("add")
    kept = []
    for index in range(_GIVEN_UP):
        cancelled = probe.start(add.request())
        arrays = _distinct(index)
        kept.append((probe.start(add.with_arrays(**arrays)), arrays))
        cancelled.cancel()
    probe.notes.sent = f"{_GIVEN_UP} ModelInfer {add.name} cancelled between as many that are not"
    for call, arrays in kept:
        _expect_sum(probe, _finish(probe, call), arrays)


@check("calls.over_max_batch", Level.TRITON, extension="model_configuration")
def over_max_batch(probe: Probe) -> None:
    """One row more than the `max_batch_size` of ModelConfig is INVALID_ARGUMENT. (Triton.)"""
    subject = probe.subject
    answer = probe.call("ModelConfig", pb.ModelConfigRequest(name=subject.name, version=subject.version))
    limit = answer.ok(pb.ModelConfigResponse).config.max_batch_size
    if not limit or not subject.batched:
        raise NotApplicable(f"{subject.name} is not batched by the server")
    probe.infer(subject.request(rows=limit)).ok(pb.ModelInferResponse)
    probe.infer(subject.request(rows=limit + 1)).has_code(grpc.StatusCode.INVALID_ARGUMENT)
