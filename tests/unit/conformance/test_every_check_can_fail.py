"""No check is content with a server that says the same to everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelyard.conformance.probe import Probe, Target
from modelyard.conformance.reference import MODELS
from modelyard.conformance.registry import SECTIONS, Check, Level
from modelyard.conformance.run import Outcome, choose, run_check
from support.moody_server import Mood, MoodyServer, moody_server

ALL = choose()


class _PatientProbe(Probe):
    """Believes that the server lives, so that no check fails for that alone."""

    def alive(self) -> bool:
        return True


@pytest.fixture(scope="module")
def server() -> Iterator[MoodyServer]:
    with moody_server() as server:
        yield server


@pytest.fixture(scope="module")
def probe(server: MoodyServer) -> Iterator[Probe]:
    """Knows the models from a truthful moment: what fails is the check's own call."""
    with _PatientProbe(Target(server.address, timeout=1.0)) as probe:
        assert probe.extensions
        assert probe.subject.batched
        for model in MODELS:
            probe.reference(model.name)
        yield probe


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.id)
def test_fails_for_a_server_of_one_answer(check: Check, server: MoodyServer, probe: Probe) -> None:
    outcomes = {}
    for mood in Mood:
        server.mood = mood
        try:
            outcomes[mood] = run_check(check, probe)
        finally:
            server.mood = None
        if outcomes[mood].outcome is Outcome.FAIL:
            assert outcomes[mood].sent
            assert outcomes[mood].got
            return
    pytest.fail(f"passes or is skipped whatever the server says: {outcomes}")


def test_every_check_says_its_rule_and_whose_it_is() -> None:
    for check in ALL:
        assert check.section in SECTIONS
        assert check.rule.endswith((")", ".)")), check.id
        assert check.level in Level
    assert {check.section for check in ALL} == set(SECTIONS)
