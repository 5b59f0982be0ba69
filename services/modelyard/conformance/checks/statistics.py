"""ModelStatistics: the counts add up."""

from __future__ import annotations

from typing import Final

from modelyard.conformance.answers import INVALID_ARGUMENT, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import Subject
from modelyard.oip import open_inference_pb2 as pb

from .model import NO_VERSION, UNKNOWN, UNKNOWN_VERSION

EXTENSION: Final = "statistics"
_REQUESTS: Final = 5


def _statistics(probe: Probe, name: str, version: str = "") -> Answer:
    return probe.call("ModelStatistics", pb.ModelStatisticsRequest(name=name, version=version))


def _quiet_model(probe: Probe) -> Subject:
    """The model to count with. A reference model is nobody else's: counts move by our requests only."""
    return probe.reference("add")


def _of(probe: Probe, subject: Subject) -> pb.ModelStatistics:
    answer = _statistics(probe, subject.name).ok(pb.ModelStatisticsResponse)
    probe.notes.expect_so(len(answer.model_stats) > 0, "an entry for the served version", "none")
    return answer.model_stats[-1]


@check("statistics.entry", Level.TRITON, extension=EXTENSION)
def entry(probe: Probe) -> None:
    """ModelStatistics of a model has an entry with its name and version. (Triton.)"""
    answer = _statistics(probe, probe.target.model).ok(pb.ModelStatisticsResponse)
    good = bool(answer.model_stats) and all(
        one.name == probe.target.model and one.version for one in answer.model_stats
    )
    probe.notes.expect(good, f"entries of {probe.target.model} with a version", answer)


@check("statistics.counts", Level.TRITON, extension=EXTENSION)
def counts(probe: Probe) -> None:
    """Five requests of two rows raise `success` by 5, `inference_count` by 10 and `execution_count` by 1 to 5.

    (Triton; reference model `add`.)
    """
    subject = _quiet_model(probe)
    before = _of(probe, subject)
    for _ in range(_REQUESTS):
        probe.infer(subject.request(rows=2)).ok(pb.ModelInferResponse)
    after = _of(probe, subject)
    success = after.inference_stats.success.count - before.inference_stats.success.count
    inferences = after.inference_count - before.inference_count
    executions = after.execution_count - before.execution_count
    good = success == _REQUESTS and inferences == 2 * _REQUESTS and 1 <= executions <= _REQUESTS
    seen = f"success {success}, inferences {inferences}, executions {executions}"
    probe.notes.expect(good, "success 5, inferences 10, executions 1 to 5", seen)


@check("statistics.batches", Level.TRITON, extension=EXTENSION)
def batches(probe: Probe) -> None:
    """`batch_stats` add up: executions to `execution_count`, batch size × executions to `inference_count`.

    (Triton; reference model `add`.)
    """
    subject = _quiet_model(probe)
    probe.infer(subject.request(rows=3)).ok(pb.ModelInferResponse)
    seen = _of(probe, subject)
    executions = sum(batch.compute_infer.count for batch in seen.batch_stats)
    inferences = sum(batch.batch_size * batch.compute_infer.count for batch in seen.batch_stats)
    expected = f"{seen.execution_count} executions, {seen.inference_count} inferences"
    good = executions == seen.execution_count and inferences == seen.inference_count
    probe.notes.expect(good, expected, f"{executions} executions, {inferences} inferences")


@check("statistics.stages", Level.TRITON, extension=EXTENSION)
def stages(probe: Probe) -> None:
    """Each success passed every stage once, and the stages take no longer than the whole.

    (Triton; reference model `add`.)
    """
    subject = _quiet_model(probe)
    before = _of(probe, subject).inference_stats
    probe.infer(subject.request()).ok(pb.ModelInferResponse)
    after = _of(probe, subject).inference_stats
    names = ("queue", "compute_input", "compute_infer", "compute_output")
    moved = {name: getattr(after, name).count - getattr(before, name).count for name in names}
    probe.notes.expect(set(moved.values()) == {1}, "each stage once more", moved)
    parts = sum(getattr(after, name).ns - getattr(before, name).ns for name in names)
    whole = after.success.ns - before.success.ns
    probe.notes.expect(0 < parts <= whole, f"stages of 1 to {whole} ns in all", f"{parts} ns")


@check("statistics.last_inference", Level.TRITON, extension=EXTENSION)
def last_inference(probe: Probe) -> None:
    """`last_inference` is in milliseconds since 1970 and never goes back. (Triton; reference model `add`.)"""
    subject = _quiet_model(probe)
    before = _of(probe, subject).last_inference
    probe.infer(subject.request()).ok(pb.ModelInferResponse)
    after = _of(probe, subject).last_inference
    milliseconds = 10**12 < after < 10**14  # 2001 to 5138
    probe.notes.expect(milliseconds and after >= before, f"milliseconds, {before} or later", after)


@check("statistics.all", Level.TRITON, extension=EXTENSION)
def all_models(probe: Probe) -> None:
    """Without a name, ModelStatistics has all models. (Triton.)"""
    answer = _statistics(probe, "").ok(pb.ModelStatisticsResponse)
    names = {one.name for one in answer.model_stats}
    probe.notes.expect(probe.target.model in names, f"{probe.target.model} among them", sorted(names))


@check("statistics.unknown", Level.TRITON, extension=EXTENSION)
def unknown(probe: Probe) -> None:
    """ModelStatistics of an unknown model is INVALID_ARGUMENT. (Triton.)"""
    _statistics(probe, UNKNOWN).has_code(INVALID_ARGUMENT)


@check("statistics.unknown_version", Level.TRITON, extension=EXTENSION)
def unknown_version(probe: Probe) -> None:
    """ModelStatistics of an unknown version is INVALID_ARGUMENT. (Triton.)"""
    _statistics(probe, probe.target.model, UNKNOWN_VERSION).has_code(INVALID_ARGUMENT)


@check("statistics.bad_version", Level.TRITON, extension=EXTENSION)
def bad_version(probe: Probe) -> None:
    """ModelStatistics with a version that can be none is INVALID_ARGUMENT. (Triton.)"""
    _statistics(probe, probe.target.model, NO_VERSION).has_code(INVALID_ARGUMENT)
