"""The parameters of a request that the protocol gives a meaning. Others are the caller's own affair and ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelyard.core.errors import Violations
from modelyard.core.names import shorten
from modelyard.oip import open_inference_pb2 as pb

Parameters = Mapping[str, pb.InferParameter]

RESERVED_PREFIX: Final = "triton_"
EMPTY_FINAL_RESPONSE: Final = "triton_enable_empty_final_response"
"""Asks for an answer without content behind the last one. A request here has one answer, which is the last."""

_KINDS: Final = {
    EMPTY_FINAL_RESPONSE: ("bool_param",),
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
}
"""What these must be; of the sequence's parameters no more is asked, since no model here has a state."""


def read_priority(parameters: Parameters, violations: Violations) -> int:
    """The priority: 1 is the highest, 0 is none given. What is wrong with any parameter is among the violations."""
    for name, parameter in parameters.items():
        if name == "timeout":
            _check_timeout(parameter, violations)
        elif name in _KINDS:
            kind = parameter.WhichOneof("parameter_choice")
            violations.check(
                kind in _KINDS[name], f"parameters[{name}]", f"expected {' or '.join(_KINDS[name])}, got {kind}"
            )
        elif name.startswith(RESERVED_PREFIX):
            text = f"expected no parameter that begins with {RESERVED_PREFIX}, which is reserved"
            violations.add(f"parameters[{shorten(name)}]", text)
        elif parameter.WhichOneof("parameter_choice") is None:
            violations.add(f"parameters[{shorten(name)}]", "expected a value, got none")
    if "priority" not in parameters:
        return 0
    priority = parameters["priority"].uint64_param or parameters["priority"].int64_param
    violations.check(priority >= 0, "parameters[priority]", f"expected 0 or more, got {priority}")
    return priority


def read_timeout(request: pb.ModelInferRequest) -> float | None:
    """The `timeout` parameter in seconds. None without one, and for 0, by which clients mean none.

    None for a wrong one too: it is among what `read_priority` finds.
    """
    if "timeout" not in request.parameters:
        return None
    microseconds = _microseconds(request.parameters["timeout"])
    return microseconds / 1e6 if microseconds else None


def _check_timeout(parameter: pb.InferParameter, violations: Violations) -> None:
    if _microseconds(parameter) is None:
        got = shorten(str(parameter).strip()) or "nothing"
        violations.add("parameters[timeout]", f"expected microseconds as an int64, 0 or more; got {got}")


def _microseconds(parameter: pb.InferParameter) -> int | None:
    """What a timeout says; None if it is none."""
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        return None
    microseconds: int = parameter.uint64_param if kind == "uint64_param" else parameter.int64_param
    return microseconds if microseconds >= 0 else None
