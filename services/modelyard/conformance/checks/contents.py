"""Raw and typed contents, in both directions."""

from __future__ import annotations

from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import arrays_of, same
from modelyard.oip import open_inference_pb2 as pb


@check("contents.typed_request", Level.REQUIRED)
def typed_request(probe: Probe) -> None:
    """A request may carry its tensors in `contents`. (Protocol: InferTensorContents.)"""
    probe.infer(probe.subject.typed_request()).ok(pb.ModelInferResponse)


@check("contents.raw_request", Level.REQUIRED)
def raw_request(probe: Probe) -> None:
    """A request may carry its tensors in `raw_input_contents`. (Protocol: ModelInferRequest.raw_input_contents.)"""
    probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)


@check("contents.same_answer", Level.REQUIRED)
def same_answer(probe: Probe) -> None:
    """Raw and typed contents of the same tensors get the same answer. (Protocol: two forms of one tensor.)"""
    typed, raw = probe.subject.typed_request(rows=1, seed=1), probe.subject.request(rows=1, seed=1)
    first = arrays_of(probe.infer(typed).ok(pb.ModelInferResponse), probe.notes)
    second = arrays_of(probe.infer(raw).ok(pb.ModelInferResponse), probe.notes)
    probe.notes.expect(same(first, second), f"{first}, as for typed contents", second)


@check("contents.one_form_in_answers", Level.REQUIRED)
def one_form_in_answers(probe: Probe) -> None:
    """An answer with `raw_output_contents` has one entry for each output and no typed contents.

    (Protocol: ModelInferResponse.raw_output_contents.)
    """
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    typed = sum(output.HasField("contents") for output in answer.outputs)
    raw = len(answer.raw_output_contents)
    good = (raw == len(answer.outputs) and not typed) or (not raw and typed == len(answer.outputs))
    probe.notes.expect(good, "one form for every output", f"{raw} raw and {typed} typed of {len(answer.outputs)}")


def _expect_raw(probe: Probe, request: pb.ModelInferRequest) -> None:
    answer = probe.infer(request).ok(pb.ModelInferResponse)
    raw, outputs = len(answer.raw_output_contents), len(answer.outputs)
    probe.notes.expect(raw == outputs, f"{outputs} raw contents", f"{raw} raw contents")


@check("contents.raw_answer_to_raw", Level.TRITON)
def raw_answer_to_raw(probe: Probe) -> None:
    """The answer to raw contents is in raw contents. (Triton; tritonclient reads nothing else.)"""
    _expect_raw(probe, probe.subject.request())


@check("contents.raw_answer_to_typed", Level.TRITON)
def raw_answer_to_typed(probe: Probe) -> None:
    """The answer to typed contents is in raw contents too. (Triton; tritonclient reads nothing else.)"""
    _expect_raw(probe, probe.subject.typed_request())


@check("contents.extra_raw", Level.TRITON)
def extra_raw(probe: Probe) -> None:
    """More raw entries than inputs: the rest is ignored. (Triton.)"""
    request = probe.subject.request()
    request.raw_input_contents.append(b"no input has this")
    probe.infer(request).ok(pb.ModelInferResponse)
