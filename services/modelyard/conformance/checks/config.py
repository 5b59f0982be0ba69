"""ModelConfig."""

from __future__ import annotations

from typing import Final

from modelyard.conformance.answers import INVALID_ARGUMENT, NOT_FOUND, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.oip import open_inference_pb2 as pb

from .model import NO_VERSION, UNKNOWN, UNKNOWN_VERSION

EXTENSION: Final = "model_configuration"


def _config(probe: Probe, name: str, version: str = "") -> Answer:
    return probe.call("ModelConfig", pb.ModelConfigRequest(name=name, version=version))


def _own(probe: Probe) -> pb.ModelConfig:
    return _config(probe, probe.target.model, probe.target.version).ok(pb.ModelConfigResponse).config


@check("config.name", Level.TRITON, extension=EXTENSION)
def name(probe: Probe) -> None:
    """ModelConfig names the model and its backend or platform. (Triton.)"""
    config = _own(probe)
    probe.notes.expect(config.name == probe.target.model, probe.target.model, repr(config.name))
    probe.notes.expect_so(bool(config.backend or config.platform), "a backend or platform", "neither")


@check("config.tensors", Level.TRITON, extension=EXTENSION)
def tensors(probe: Probe) -> None:
    """ModelConfig has the tensors of ModelMetadata, their shapes without the batch if it is batched. (Triton.)"""
    config, metadata = _own(probe), probe.subject.metadata
    first = 1 if config.max_batch_size else 0
    for described, configured in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        expected = {one.name: (one.datatype, list(one.shape)[first:]) for one in described}
        got = {one.name: (_datatype(one.data_type), list(one.dims)) for one in configured}
        probe.notes.expect(expected == got, str(expected), got)


def _datatype(number: pb.DataType.ValueType) -> str:
    name = pb.DataType.Name(number).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


@check("config.unknown", Level.TRITON, extension=EXTENSION)
def unknown(probe: Probe) -> None:
    """ModelConfig of an unknown model is NOT_FOUND. (Triton.)"""
    _config(probe, UNKNOWN).has_code(NOT_FOUND)


@check("config.unknown_version", Level.TRITON, extension=EXTENSION)
def unknown_version(probe: Probe) -> None:
    """ModelConfig of an unknown version is NOT_FOUND. (Triton.)"""
    _config(probe, probe.target.model, UNKNOWN_VERSION).has_code(NOT_FOUND)


@check("config.bad_version", Level.TRITON, extension=EXTENSION)
def bad_version(probe: Probe) -> None:
    """ModelConfig with a version that can be none is INVALID_ARGUMENT. (Triton.)"""
    _config(probe, probe.target.model, NO_VERSION).has_code(INVALID_ARGUMENT)
