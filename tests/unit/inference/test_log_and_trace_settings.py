"""What a pod logs and traces, in Triton's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modelyard.core.errors import InvalidFields, WrongState
from modelyard.core.logs import Severities, set_severities, severities
from modelyard.inference.protocol.log_settings import change_log_settings, log_settings
from modelyard.inference.protocol.trace_settings import TraceSettings
from modelyard.oip import open_inference_pb2 as pb

Log = pb.LogSettingsRequest.SettingValue
Trace = pb.TraceSettingRequest.SettingValue


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = severities()
    set_severities(Severities())
    yield
    set_severities(before)


def told() -> dict[str, Any]:
    return {
        name: getattr(value, str(value.WhichOneof("parameter_choice")))
        for name, value in log_settings().settings.items()
    }


def test_the_log_settings_are_told_by_triton_s_names() -> None:
    assert told() == {
        "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
        "log_format": "ISO8601",
    }  # fmt: skip


def test_log_settings_change_what_is_logged() -> None:
    change_log_settings({"log_info": Log(bool_param=False), "log_verbose_level": Log(uint32_param=3)})
    assert severities() == Severities(debug=True, info=False, warning=True)
    assert (told()["log_info"], told()["log_verbose_level"]) == (False, 1)
    change_log_settings({"log_warning": Log(bool_param=False), "log_verbose_level": Log(uint32_param=0)})
    assert severities() == Severities(debug=False, info=False, warning=False)


def test_what_already_is_so_may_be_said_again() -> None:
    change_log_settings({
        "log_file": Log(string_param=""), "log_error": Log(bool_param=True), "log_format": Log(string_param="ISO8601"),
    })  # fmt: skip
    assert severities() == Severities()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_file", Log(string_param="/etc/passwd")),
        ("log_error", Log(bool_param=False)),
        ("log_format", Log(string_param="default")),
        ("log_info", Log(string_param="true")),
        ("log_info", Log()),
        ("log_verbose_level", Log(bool_param=True)),
        ("log_everything", Log(bool_param=True)),
    ],
)
def test_what_cannot_be_logged_otherwise_is_refused_and_nothing_changes(name: str, value: Log) -> None:
    with pytest.raises(InvalidFields) as raised:
        change_log_settings({name: value, "log_warning": Log(bool_param=False)})
    assert raised.value.violations[0].field == f"settings[{name}]"
    assert severities() == Severities()


class Sampling:
    """A tracer's sampling."""

    available = True
    ratio = 0.0


def change(settings: TraceSettings, model: str = "", **values: list[str]) -> dict[str, list[str]]:
    request = pb.TraceSettingRequest(
        settings={name: Trace(value=value) for name, value in values.items()}, model_name=model
    )
    return {name: list(setting.value) for name, setting in settings.change(request).settings.items()}


def test_without_a_tracer_nothing_is_traced_and_that_is_told() -> None:
    settings = TraceSettings()
    off = {
        "trace_level": ["OFF"], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"],
        "trace_file": [""], "trace_mode": ["opentelemetry"],
    }  # fmt: skip
    assert change(settings) == off
    assert change(settings, trace_level=["OFF"]) == off
    with pytest.raises(WrongState):
        change(settings, trace_level=["TIMESTAMPS"])


def test_the_rate_is_one_of_so_many_requests() -> None:
    sampling = Sampling()
    settings = TraceSettings(sampling)
    assert change(settings, trace_rate=["4"])["trace_level"] == ["OFF"]
    assert sampling.ratio == 0
    assert change(settings, trace_level=["TIMESTAMPS"])["trace_rate"] == ["4"]
    assert sampling.ratio == 0.25
    change(settings, trace_rate=[])
    assert sampling.ratio == 0.001
    assert change(settings, trace_level=[])["trace_level"] == ["OFF"]
    assert sampling.ratio == 0


def test_a_sampling_that_is_on_is_told_as_a_rate() -> None:
    sampling = Sampling()
    sampling.ratio = 0.1
    told = change(TraceSettings(sampling))
    assert (told["trace_level"], told["trace_rate"]) == (["TIMESTAMPS"], ["10"])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("trace_level", ["TENSORS"]),
        ("trace_level", ["TIMESTAMPS", "TENSORS"]),
        ("trace_rate", ["0"]),
        ("trace_rate", ["-1"]),
        ("trace_rate", ["1", "2"]),
        ("trace_rate", ["often"]),
        ("trace_file", ["/etc/passwd"]),
        ("trace_count", ["5"]),
        ("log_frequency", ["1"]),
        ("trace_everything", ["yes"]),
    ],
)
def test_what_cannot_be_traced_otherwise_is_refused_and_nothing_changes(name: str, values: list[str]) -> None:
    sampling = Sampling()
    settings = TraceSettings(sampling)
    with pytest.raises(InvalidFields) as raised:
        change(settings, **{"trace_level": ["TIMESTAMPS"], name: values})
    assert raised.value.violations[0].field == f"settings[{name}]"
    assert sampling.ratio == 0


def test_tracing_is_set_for_the_whole_pod() -> None:
    with pytest.raises(InvalidFields) as raised:
        change(TraceSettings(Sampling()), "scale", trace_rate=["2"])
    assert raised.value.violations[0].field == "model_name"
