"""Requested outputs."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import Subject, arrays_of, same
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb


def _two_outputs(probe: Probe) -> Subject:
    """A model with two outputs or more: the one under test or the reference."""
    if len(probe.subject.metadata.outputs) >= 2:
        return probe.subject
    return probe.reference("add")


def _ask(probe: Probe, subject: Subject, names: Sequence[str]) -> pb.ModelInferResponse:
    request = subject.request(seed=1)
    for name in names:
        request.outputs.add(name=name)
    return probe.infer(request).ok(pb.ModelInferResponse)


def _names(answer: pb.ModelInferResponse) -> list[str]:
    return [output.name for output in answer.outputs]


@check("outputs.one", Level.REQUIRED)
def one(probe: Probe) -> None:
    """A requested output is answered with that one. (Protocol: ModelInferRequest.outputs.)"""
    name = probe.subject.metadata.outputs[0].name
    answer = _ask(probe, probe.subject, [name])
    probe.notes.expect(_names(answer) == [name], str([name]), _names(answer))


@check("outputs.subset", Level.REQUIRED)
def subset(probe: Probe) -> None:
    """Only the requested outputs are answered, with the right contents. (Protocol: ModelInferRequest.outputs.)"""
    subject = _two_outputs(probe)
    last = subject.metadata.outputs[-1].name
    everything = arrays_of(_ask(probe, subject, []), probe.notes)
    answer = _ask(probe, subject, [last])
    probe.notes.expect(_names(answer) == [last], str([last]), _names(answer))
    right = same(arrays_of(answer, probe.notes), {last: everything[last]})
    probe.notes.expect_so(right, f"{last} as in the answer with all outputs", "other values")


@check("outputs.contents_follow_names", Level.REQUIRED)
def contents_follow_names(probe: Probe) -> None:
    """Asked in another order, each output still has its own contents. (Protocol: raw contents follow `outputs`.)"""
    subject = _two_outputs(probe)
    names = [tensor.name for tensor in subject.metadata.outputs]
    everything = arrays_of(_ask(probe, subject, []), probe.notes)
    reversed_ = arrays_of(_ask(probe, subject, names[::-1]), probe.notes)
    probe.notes.expect_so(same(reversed_, everything), "the same contents under the same names", "others")


@check("outputs.order", Level.RECOMMENDED)
def order(probe: Probe) -> None:
    """Outputs come in the order asked. (Nobody promises it; in Triton the backend decides.)"""
    subject = _two_outputs(probe)
    names = [tensor.name for tensor in subject.metadata.outputs][::-1]
    answer = _ask(probe, subject, names)
    probe.notes.expect(_names(answer) == names, str(names), _names(answer))


@check("outputs.twice", Level.TRITON)
def twice(probe: Probe) -> None:
    """An output asked for twice is answered once. (Triton.)"""
    name = probe.subject.metadata.outputs[0].name
    answer = _ask(probe, probe.subject, [name, name])
    probe.notes.expect(_names(answer) == [name], str([name]), _names(answer))


@check("outputs.parameters_ignored", Level.TRITON)
def parameters_ignored(probe: Probe) -> None:
    """An unknown parameter of a requested output is ignored. (Triton.)"""
    if not probe.subject.metadata.outputs:
        raise NotApplicable("the model lists no outputs")
    request = probe.subject.request()
    output = request.outputs.add(name=probe.subject.metadata.outputs[0].name)
    output.parameters["conformance_unknown"].string_param = "x"
    probe.infer(request).ok(pb.ModelInferResponse)
