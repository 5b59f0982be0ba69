"""Runs checks and says what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from modelyard.oip import open_inference_pb2 as pb

from . import checks
from .answers import OK, UNIMPLEMENTED
from .probe import Probe, Target
from .registry import Check, Level, registered
from .verdicts import CheckFailed, NotApplicable, short

ALL_MODULES = checks.__all__
"""Importing them registered the checks."""


_RETURN_S: Final = 10.0
_PAUSE_S: Final = 0.2


class Outcome(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """One check's verdict."""

    check: Check
    outcome: Outcome
    sent: str = ""
    expected: str = ""
    got: str = ""
    """What came instead or indeed; for a skipped check, why."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    target: Target
    server: str
    """Name and version as the server says."""
    started: datetime
    results: list[Result] = field(default_factory=list)
    unfinished: list[Check] = field(default_factory=list)
    """What was not tried because the last check ended the server."""

    def count(self, outcome: Outcome, *levels: Level) -> int:
        """How many checks of these levels (all if none is given) ended so."""
        return sum(one.outcome is outcome and (not levels or one.check.level in levels) for one in self.results)


def choose(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Check]:
    """The checks whose id or section fits a pattern of `only` (all if there is none) and none of `skip`.

    Patterns as in file names: `refused.*`. Raises ValueError for a pattern that fits nothing.
    """
    every = registered()
    for pattern in (*only, *skip):
        if not any(_fits(check, [pattern]) for check in every):
            raise ValueError(f"no check fits {pattern!r}; --list shows them all")
    return [check for check in every if (not only or _fits(check, only)) and not _fits(check, skip)]


def _fits(check: Check, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(check.id, one) or check.section == one for one in patterns)


def run(target: Target, chosen: Sequence[Check], told: Callable[[Result], None] = lambda _: None) -> Report:
    """Runs the checks in order, telling each result, until the server is gone.

    Raises ConnectionError if nothing answers at the address.
    """
    with Probe(target) as probe:
        report = Report(target, greet(probe), datetime.now(UTC))
        for index, check in enumerate(chosen):
            result = run_check(check, probe)
            report.results.append(result)
            told(result)
            if result.outcome is Outcome.FAIL and not _comes_back(probe):
                report.unfinished.extend(chosen[index + 1 :])
                break
    return report


def _comes_back(probe: Probe) -> bool:
    """Whether the server lives, or lives again soon: where somebody restarts it, the run goes on."""
    deadline = time.monotonic() + _RETURN_S
    while not probe.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def greet(probe: Probe) -> str:
    """The server's name and version. Raises ConnectionError if nothing that speaks the protocol answers."""
    answer = probe.call("ServerMetadata")
    if answer.code is not OK:
        live = probe.call("ServerLive")
        if live.code is not OK:
            raise ConnectionError(f"{probe.target.address} does not answer ServerLive: {live}")
        return "a server without ServerMetadata"
    metadata = pb.ServerMetadataResponse.FromString(answer.payload)
    return f"{metadata.name} {metadata.version}".strip()


def run_check(check: Check, probe: Probe) -> Result:
    """One check's verdict. A server that does not live afterwards has failed it, whatever it answered."""
    probe.notes.clear()
    begin = time.monotonic()
    outcome, reason = _judge(check, probe)
    notes = probe.notes
    expected, got = notes.expected, reason or notes.got
    sent = notes.sent
    if outcome is not Outcome.SKIP and not probe.alive():
        outcome, expected, got = Outcome.FAIL, "a server that lives on", f"ServerLive fails afterwards ({got})"
    return Result(check, outcome, sent, expected, got, time.monotonic() - begin)


def _judge(check: Check, probe: Probe) -> tuple[Outcome, str]:
    """The verdict, and the reason if the notes do not have it."""
    declared = check.extension in probe.extensions
    if check.only_declared and not declared:
        return Outcome.SKIP, f"the extension {check.extension} is not declared"
    try:
        check.function(probe)
    except NotApplicable as error:
        return Outcome.SKIP, str(error)
    except CheckFailed as error:
        if error.code is UNIMPLEMENTED and check.extension and not declared:
            return Outcome.SKIP, "not offered (UNIMPLEMENTED)"
        return Outcome.FAIL, ""
    except Exception as error:  # noqa: BLE001 - an answer nobody thought of is the server's failure, not the end of the run
        return Outcome.FAIL, short(f"an answer that cannot be read: {type(error).__name__}: {error}")
    return Outcome.PASS, ""
