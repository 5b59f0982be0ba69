"""The tests that `pytest_plugin` fills with the checks."""

from __future__ import annotations

import pytest

from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Check, Level
from modelyard.conformance.run import Outcome, run_check


def test_conformance(conformance_check: Check, conformance_probe: Probe, conformance_strictest: Level) -> None:
    """The rule of one check."""
    result = run_check(conformance_check, conformance_probe)
    if result.outcome is Outcome.SKIP:
        pytest.skip(result.got)
    if result.outcome is Outcome.FAIL:
        text = f"{conformance_check.rule}\nsent: {result.sent}\nexpected: {result.expected}\ngot: {result.got}"
        levels = list(Level)
        if levels.index(conformance_check.level) > levels.index(conformance_strictest):
            pytest.xfail(text)
        pytest.fail(text, pytrace=False)
