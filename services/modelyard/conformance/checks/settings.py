"""TraceSetting and LogSettings. What is written is what was read: a server that others use keeps its settings."""

from __future__ import annotations

from typing import Final

from modelyard.conformance.answers import INVALID_ARGUMENT, Answer
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.oip import open_inference_pb2 as pb

from .model import UNKNOWN

TRACE: Final = "trace"
LOG: Final = "logging"


def _trace(probe: Probe, **settings: str) -> Answer:
    request = pb.TraceSettingRequest()
    for name, value in settings.items():
        request.settings[name].value.append(value)
    return probe.call("TraceSetting", request)


@check("settings.trace", Level.TRITON, extension=TRACE)
def trace(probe: Probe) -> None:
    """TraceSetting without settings says what they are, `trace_level` and `trace_rate` among them. (Triton.)"""
    names = set(_trace(probe).ok(pb.TraceSettingResponse).settings)
    probe.notes.expect({"trace_level", "trace_rate"} <= names, "trace_level and trace_rate", sorted(names))


@check("settings.trace_write", Level.TRITON, extension=TRACE)
def trace_write(probe: Probe) -> None:
    """A setting that is written is answered with its new value. (Triton.)"""
    now = _trace(probe).ok(pb.TraceSettingResponse).settings["trace_rate"].value[:]
    rate = now[0] if now else "1000"
    got = _trace(probe, trace_rate=rate).ok(pb.TraceSettingResponse).settings["trace_rate"].value[:]
    probe.notes.expect(got == [rate], f"trace_rate {rate}", got)


@check("settings.trace_bad_value", Level.TRITON, extension=TRACE)
def trace_bad_value(probe: Probe) -> None:
    """A rate that is no number is INVALID_ARGUMENT. (Triton.)"""
    _trace(probe, trace_rate="often").has_code(INVALID_ARGUMENT)


@check("settings.trace_unknown_model", Level.TRITON, extension=TRACE)
def trace_unknown_model(probe: Probe) -> None:
    """The trace settings of an unknown model are INVALID_ARGUMENT. (Triton.)"""
    probe.call("TraceSetting", pb.TraceSettingRequest(model_name=UNKNOWN)).has_code(INVALID_ARGUMENT)


def _log(probe: Probe, request: pb.LogSettingsRequest | None = None) -> Answer:
    return probe.call("LogSettings", request or pb.LogSettingsRequest())


@check("settings.log", Level.TRITON, extension=LOG)
def log(probe: Probe) -> None:
    """LogSettings without settings says what they are, each of its type. (Triton.)"""
    settings = _log(probe).ok(pb.LogSettingsResponse).settings
    kinds = {name: settings[name].WhichOneof("parameter_choice") for name in settings}
    wanted = {"log_info": "bool_param", "log_error": "bool_param", "log_verbose_level": "uint32_param"}
    probe.notes.expect(wanted.items() <= kinds.items(), str(wanted), kinds)


@check("settings.log_write", Level.TRITON, extension=LOG)
def log_write(probe: Probe) -> None:
    """A setting that is written is answered with its new value. (Triton.)"""
    level = _log(probe).ok(pb.LogSettingsResponse).settings["log_verbose_level"].uint32_param
    request = pb.LogSettingsRequest()
    request.settings["log_verbose_level"].uint32_param = level
    got = _log(probe, request).ok(pb.LogSettingsResponse).settings["log_verbose_level"].uint32_param
    probe.notes.expect(got == level, f"log_verbose_level {level}", got)


@check("settings.log_wrong_type", Level.TRITON, extension=LOG)
def log_wrong_type(probe: Probe) -> None:
    """A setting of the wrong type is INVALID_ARGUMENT. (Triton.)"""
    request = pb.LogSettingsRequest()
    request.settings["log_verbose_level"].string_param = "much"
    _log(probe, request).has_code(INVALID_ARGUMENT)
