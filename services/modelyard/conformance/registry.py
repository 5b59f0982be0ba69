"""What a check is, and the list of all of them.

A check is a function that takes a `Probe`, sends something, and raises `CheckFailed` if the answer breaks the rule that
its docstring states, or `NotApplicable` if this server or model cannot show it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .probe import Probe

CheckFunction = Callable[[Probe], None]


class Level(StrEnum):
    """Whose rule it is."""

    REQUIRED = "required"
    """The protocol's own words, or those of gRPC and protobuf below it: a server that breaks it does not speak it."""
    TRITON = "triton"
    """What Triton does, and the clients people have (tritonclient, perf_analyzer) rely on."""
    RECOMMENDED = "recommended"
    """Neither asks for it; callers are better off with it."""


SECTIONS: Final[dict[str, str]] = {
    "server": "Server",
    "model": "Model",
    "infer": "Predictions",
    "contents": "Contents, raw and typed",
    "datatypes": "Datatypes",
    "outputs": "Requested outputs",
    "refused": "Wrong requests are refused",
    "code": "Wrong requests are told why",
    "parameters": "Parameters",
    "wire": "Bytes and sizes",
    "calls": "Deadlines, cancels, many at once",
    "stream": "ModelStreamInfer",
    "config": "ModelConfig",
    "statistics": "ModelStatistics",
    "repository": "Model repository",
    "memory": "Shared memory",
    "classification": "Classification",
    "settings": "Trace and log settings",
    "health": "grpc.health.v1 and reflection",
}
"""What the first part of an id stands for, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and what proves it."""

    id: str
    """`section.name`; it does not change between releases."""
    level: Level
    rule: str
    """What must be so, with its source, for people."""
    function: CheckFunction
    extension: str = ""
    """The extension it belongs to, by the name in ServerMetadata; empty for the protocol's core."""
    only_declared: bool = False
    """Skipped unless the server declares the extension: it has no call of its own that could be UNIMPLEMENTED."""

    @property
    def section(self) -> str:
        """The part of the id that names its section."""
        return self.id.partition(".")[0]


_CHECKS: dict[str, Check] = {}
# Filled by the modules of `checks` when they are imported, and by nothing else.


def register(check: Check) -> None:
    """Adds a check; its id must be new and its section known."""
    if check.id in _CHECKS or check.section not in SECTIONS or not check.rule:
        raise ValueError(f"the check {check.id} has an id that is taken, an unknown section or no rule")
    _CHECKS[check.id] = check


def check(
    check_id: str, level: Level, *, extension: str = "", only_declared: bool = False
) -> Callable[[CheckFunction], CheckFunction]:
    """Makes the decorated function a check; its docstring is the rule."""

    def decorate(function: CheckFunction) -> CheckFunction:
        rule = " ".join(inspect.getdoc(function).split()) if function.__doc__ else ""  # type: ignore[union-attr]
        register(Check(check_id, level, rule, function, extension, only_declared))
        return function

    return decorate


def registered() -> list[Check]:
    """Every registered check, by section, each section in the order written."""
    order = list(SECTIONS)
    return sorted(_CHECKS.values(), key=lambda one: order.index(one.section))
