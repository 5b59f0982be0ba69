"""ModelReady and ModelMetadata."""

from __future__ import annotations

from modelyard.conformance.answers import INVALID_ARGUMENT, NOT_FOUND, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES

UNKNOWN = "conformance-no-such-model"
"""A model that no server has."""
UNKNOWN_VERSION = "987654321"
NO_VERSION = "no such version!"
"""Neither a number nor a possible alias."""


def served_version(probe: Probe) -> str:
    """A version by number that the model says it serves; NotApplicable if it lists none."""
    versions = list(probe.subject.metadata.versions)
    if not versions:
        raise NotApplicable("ModelMetadata lists no versions")
    return versions[-1]


def _ready(probe: Probe, name: str, version: str = "") -> Answer:
    return probe.call("ModelReady", pb.ModelReadyRequest(name=name, version=version))


def _metadata(probe: Probe, name: str, version: str = "") -> Answer:
    return probe.call("ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))


@check("model.ready", Level.REQUIRED)
def ready(probe: Probe) -> None:
    """ModelReady of a served model says ready. (Protocol: health.)"""
    answer = _ready(probe, probe.target.model, probe.target.version).ok(pb.ModelReadyResponse)
    probe.notes.expect(answer.ready, "ready: true", f"ready: {answer.ready}")


@check("model.ready_version", Level.REQUIRED)
def ready_version(probe: Probe) -> None:
    """ModelReady of a version that ModelMetadata lists says ready. (Protocol: health; `version` chooses.)"""
    answer = _ready(probe, probe.target.model, served_version(probe)).ok(pb.ModelReadyResponse)
    probe.notes.expect(answer.ready, "ready: true", f"ready: {answer.ready}")


@check("model.ready_unknown", Level.REQUIRED)
def ready_unknown(probe: Probe) -> None:
    """ModelReady of an unknown model never says ready. (Protocol: health; an error or `false`.)"""
    answer = _ready(probe, UNKNOWN)
    claimed = answer.payload and pb.ModelReadyResponse.FromString(answer.payload).ready
    probe.notes.expect(not claimed, "no ready: true", "ready: true" if claimed else answer)


@check("model.ready_unknown_is_no_error", Level.TRITON)
def ready_unknown_is_no_error(probe: Probe) -> None:
    """ModelReady of an unknown model is OK with `ready: false`, so that clients may poll. (Triton.)"""
    answer = _ready(probe, UNKNOWN).ok(pb.ModelReadyResponse)
    probe.notes.expect(not answer.ready, "ready: false", f"ready: {answer.ready}")


@check("model.ready_unknown_version", Level.TRITON)
def ready_unknown_version(probe: Probe) -> None:
    """ModelReady of an unknown version is OK with `ready: false`. (Triton.)"""
    answer = _ready(probe, probe.target.model, UNKNOWN_VERSION).ok(pb.ModelReadyResponse)
    probe.notes.expect(not answer.ready, "ready: false", f"ready: {answer.ready}")


@check("model.ready_bad_version", Level.TRITON)
def ready_bad_version(probe: Probe) -> None:
    """ModelReady with a version that can be none is INVALID_ARGUMENT. (Triton.)"""
    _ready(probe, probe.target.model, NO_VERSION).has_code(INVALID_ARGUMENT)


@check("model.metadata", Level.REQUIRED)
def metadata(probe: Probe) -> None:
    """ModelMetadata echoes the name and lists inputs and outputs. (Protocol: model metadata.)"""
    answer = _metadata(probe, probe.target.model, probe.target.version).ok(pb.ModelMetadataResponse)
    probe.notes.expect(answer.name == probe.target.model, f"name {probe.target.model}", answer.name)
    both = bool(answer.inputs and answer.outputs)
    probe.notes.expect(both, "inputs and outputs", f"{len(answer.inputs)} inputs, {len(answer.outputs)} outputs")


@check("model.metadata_tensors", Level.REQUIRED)
def metadata_tensors(probe: Probe) -> None:
    """Each tensor of ModelMetadata has a name of its own, a datatype of the protocol, and sizes of -1 or more.

    (Protocol: tensor metadata.)
    """
    answer = _metadata(probe, probe.target.model, probe.target.version).ok(pb.ModelMetadataResponse)
    for tensors in (answer.inputs, answer.outputs):
        names = [tensor.name for tensor in tensors]
        probe.notes.expect(all(names) and len(set(names)) == len(names), "names, each once", names)
        for tensor in tensors:
            good = tensor.datatype in DATATYPES and all(size >= -1 for size in tensor.shape)
            probe.notes.expect(good, "a known datatype and sizes of -1 or more", tensor)


@check("model.metadata_version", Level.REQUIRED)
def metadata_version(probe: Probe) -> None:
    """ModelMetadata of a version that it lists answers for that version. (Protocol: `version` chooses.)"""
    answer = _metadata(probe, probe.target.model, served_version(probe)).ok(pb.ModelMetadataResponse)
    probe.notes.expect(answer.name == probe.target.model, f"name {probe.target.model}", answer.name)


@check("model.metadata_versions", Level.TRITON)
def metadata_versions(probe: Probe) -> None:
    """ModelMetadata lists the served versions as numbers. (Triton.)"""
    answer = _metadata(probe, probe.target.model, probe.target.version).ok(pb.ModelMetadataResponse)
    versions = list(answer.versions)
    probe.notes.expect(bool(versions) and all(map(str.isdigit, versions)), "version numbers", versions)


@check("model.metadata_platform", Level.TRITON)
def metadata_platform(probe: Probe) -> None:
    """ModelMetadata names the platform. (Triton.)"""
    answer = _metadata(probe, probe.target.model, probe.target.version).ok(pb.ModelMetadataResponse)
    probe.notes.expect(bool(answer.platform), "a platform", repr(answer.platform))


@check("model.metadata_unknown", Level.REQUIRED)
def metadata_unknown(probe: Probe) -> None:
    """ModelMetadata of an unknown model is an error. (Protocol: errors are the call's status.)"""
    _metadata(probe, UNKNOWN).refused()


@check("model.metadata_unknown_code", Level.TRITON)
def metadata_unknown_code(probe: Probe) -> None:
    """ModelMetadata of an unknown model is NOT_FOUND and its text names the model. (Triton.)"""
    answer = _metadata(probe, UNKNOWN)
    answer.has_code(NOT_FOUND)
    answer.says(UNKNOWN)


@check("model.metadata_unknown_version", Level.TRITON)
def metadata_unknown_version(probe: Probe) -> None:
    """ModelMetadata of an unknown version is NOT_FOUND. (Triton.)"""
    _metadata(probe, probe.target.model, UNKNOWN_VERSION).has_code(NOT_FOUND)


@check("model.metadata_bad_version", Level.TRITON)
def metadata_bad_version(probe: Probe) -> None:
    """ModelMetadata with a version that can be none is INVALID_ARGUMENT. (Triton.)"""
    _metadata(probe, probe.target.model, NO_VERSION).has_code(INVALID_ARGUMENT)
