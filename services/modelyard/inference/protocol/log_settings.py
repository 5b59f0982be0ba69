"""The LogSettings call: Triton's names for what this process logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelyard.core.errors import Violations
from modelyard.core.logs import Severities, get_logger, set_severities, severities
from modelyard.core.names import shorten
from modelyard.oip import open_inference_pb2 as pb

Value = pb.LogSettingsRequest.SettingValue

FORMAT: Final = "ISO8601"
"""Of the times in log lines, which are JSON or text, as the process was started."""

_KINDS: Final = {
    "log_file": "string_param",
    "log_info": "bool_param",
    "log_warning": "bool_param",
    "log_error": "bool_param",
    "log_verbose_level": "uint32_param",
    "log_format": "string_param",
}

log = get_logger()


def log_settings() -> pb.LogSettingsResponse:
    """What is logged now."""
    logged = severities()
    response = pb.LogSettingsResponse()
    response.settings["log_file"].string_param = ""
    response.settings["log_info"].bool_param = logged.info
    response.settings["log_warning"].bool_param = logged.warning
    response.settings["log_error"].bool_param = True
    response.settings["log_verbose_level"].uint32_param = int(logged.debug)
    response.settings["log_format"].string_param = FORMAT
    return response


def change_log_settings(settings: Mapping[str, Value]) -> None:
    """Changes what is given, all or nothing. Raises InvalidFields for what cannot be changed."""
    if not settings:
        return
    violations = Violations()
    for name, value in settings.items():
        _check(name, value, violations)
    violations.raise_if_any()
    logged = severities()
    for name, value in settings.items():
        _apply(logged, name, value)
    log.warning("log settings changed", debug=logged.debug, info=logged.info, warning=logged.warning)
    set_severities(logged)


def _check(name: str, value: Value, violations: Violations) -> None:
    path = f"settings[{shorten(name)}]"
    if name not in _KINDS:
        violations.add(path, f"expected one of {', '.join(_KINDS)}")
        return
    kind = value.WhichOneof("parameter_choice")
    if kind != _KINDS[name]:
        violations.add(path, f"expected {_KINDS[name]}, got {kind}")
    elif name == "log_file" and value.string_param:
        violations.add(path, "expected nothing: logs go to standard error, and what collects them decides where")
    elif name == "log_error" and not value.bool_param:
        violations.add(path, "expected true: errors are always logged")
    elif name == "log_format" and value.string_param != FORMAT:
        violations.add(path, f"expected {FORMAT}; the rest of the form is chosen when the process starts")


def _apply(logged: Severities, name: str, value: Value) -> None:
    if name == "log_info":
        logged.info = value.bool_param
    elif name == "log_warning":
        logged.warning = value.bool_param
    elif name == "log_verbose_level":
        logged.debug = value.uint32_param > 0
