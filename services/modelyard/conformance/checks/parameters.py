"""Parameters of requests: free ones are ignored, reserved ones are checked."""

from __future__ import annotations

from functools import partial
from typing import Final

from modelyard.conformance.answers import INVALID_ARGUMENT, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Check, Level, check, register
from modelyard.oip import open_inference_pb2 as pb

Value = bool | int | float | str

_FAR_AHEAD_US: Final = 20_000_000


def parameter(**choice: Value) -> pb.InferParameter:
    """A parameter by its field: `parameter(int64_param=1)`; without one it has no value."""
    return pb.InferParameter(**choice)  # type: ignore[arg-type]


def _with(probe: Probe, name: str, value: pb.InferParameter) -> Answer:
    request = probe.subject.request()
    request.parameters[name].CopyFrom(value)
    return probe.infer(request)


@check("parameters.unknown", Level.REQUIRED)
def unknown(probe: Probe) -> None:
    """Unknown parameters of every type are ignored. (Protocol: parameters are optional and server-specific.)"""
    request = probe.subject.request()
    values = {"b": parameter(bool_param=True), "i": parameter(int64_param=-1), "s": parameter(string_param="x")}
    for name, value in values.items():
        request.parameters[f"conformance_{name}"].CopyFrom(value)
    probe.infer(request).ok(pb.ModelInferResponse)


@check("parameters.unknown_double", Level.TRITON)
def unknown_double(probe: Probe) -> None:
    """So is one of the type that Triton added, `double_param`. (Triton.)"""
    _with(probe, "conformance_double", parameter(double_param=1.5)).ok(pb.ModelInferResponse)


@check("parameters.of_input", Level.REQUIRED)
def of_input(probe: Probe) -> None:
    """An unknown parameter of an input is ignored. (Protocol: InferInputTensor.parameters.)"""
    request = probe.subject.request()
    request.inputs[0].parameters["conformance_unknown"].string_param = "x"
    probe.infer(request).ok(pb.ModelInferResponse)


@check("parameters.reserved_prefix", Level.TRITON, extension="parameters", only_declared=True)
def reserved_prefix(probe: Probe) -> None:
    """A parameter that begins with `triton_` is INVALID_ARGUMENT. (Triton: the prefix is reserved.)"""
    _with(probe, "triton_conformance", parameter(string_param="x")).has_code(INVALID_ARGUMENT)


@check("parameters.empty_final_response", Level.TRITON, extension="parameters", only_declared=True)
def empty_final_response(probe: Probe) -> None:
    """`triton_enable_empty_final_response` is the one such parameter that a request may have. (Triton.)"""
    _with(probe, "triton_enable_empty_final_response", parameter(bool_param=True)).ok(pb.ModelInferResponse)


@check("parameters.without_value", Level.TRITON, extension="parameters", only_declared=True)
def without_value(probe: Probe) -> None:
    """A parameter without a value of any type is INVALID_ARGUMENT. (Triton.)"""
    _with(probe, "conformance_empty", parameter()).has_code(INVALID_ARGUMENT)


_ACCEPTED: Final = (
    ("timeout", "a timeout as int64", "timeout", parameter(int64_param=_FAR_AHEAD_US)),
    ("timeout_zero", "a timeout of 0, for none", "timeout", parameter(int64_param=0)),
    ("priority", "a priority as uint64", "priority", parameter(uint64_param=1)),
    ("priority_int64", "a priority as int64", "priority", parameter(int64_param=1)),
    ("sequence_id", "a sequence id of 0, for none", "sequence_id", parameter(int64_param=0)),
    ("headers", "headers", "headers", parameter(string_param="x")),
    ("binary_data_output", "binary_data_output", "binary_data_output", parameter(bool_param=True)),
)

_REFUSED: Final = (
    ("timeout_as_text", "A timeout as text", "timeout", parameter(string_param="soon")),
    ("priority_as_text", "A priority as text", "priority", parameter(string_param="high")),
    ("priority_negative", "A priority below 0", "priority", parameter(int64_param=-1)),
    ("sequence_id_as_bool", "A sequence id as bool", "sequence_id", parameter(bool_param=True)),
    ("sequence_start_as_number", "A sequence start as a number", "sequence_start", parameter(int64_param=1)),
)


def _accept(probe: Probe, name: str, value: pb.InferParameter) -> None:
    _with(probe, name, value).ok(pb.ModelInferResponse)


def _refuse(probe: Probe, name: str, value: pb.InferParameter) -> None:
    _with(probe, name, value).has_code(INVALID_ARGUMENT)


def _register_reserved() -> None:
    for short_name, what, name, value in _ACCEPTED:
        register(
            Check(
                f"parameters.{short_name}", Level.TRITON, f"{what[0].upper()}{what[1:]} is accepted. (Triton.)",
                partial(_accept, name=name, value=value),
            )
        )  # fmt: skip
    for short_name, what, name, value in _REFUSED:
        register(
            Check(
                f"parameters.{short_name}", Level.TRITON, f"{what} is INVALID_ARGUMENT. (Triton.)",
                partial(_refuse, name=name, value=value),
                extension="parameters", only_declared=True,
            )
        )  # fmt: skip


_register_reserved()
