"""What a run makes of its checks, and the documents that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from modelyard.conformance import run as running
from modelyard.conformance.probe import Probe, Target
from modelyard.conformance.registry import Check, Level
from modelyard.conformance.report import as_json, as_junit, as_markdown, compared, failures, scores
from modelyard.conformance.run import Outcome, Report, Result, choose, run, run_check
from modelyard.conformance.verdicts import CheckFailed, NotApplicable, Notes
from support.moody_server import Mood, MoodyServer, moody_server


@pytest.fixture
def server() -> Iterator[MoodyServer]:
    with moody_server() as server:
        yield server


def result(check_id: str, outcome: Outcome, got: str = "got | this") -> Result:
    (check,) = choose([check_id])
    return Result(check, outcome, "sent", "expected", got, 0.25)


@pytest.fixture
def report() -> Report:
    results = [
        result("infer.id", Outcome.PASS),
        result("infer.no_id", Outcome.FAIL),
        result("outputs.order", Outcome.FAIL),
        result("health.watch", Outcome.SKIP, "not offered"),
    ]
    return Report(Target("host:1"), "a server 1", datetime(2026, 1, 2, tzinfo=UTC), results)


def test_checks_are_chosen_by_id_section_and_pattern() -> None:
    assert [check.id for check in choose(["infer.id"])] == ["infer.id"]
    assert {check.section for check in choose(["infer", "code.*"])} == {"infer", "code"}
    assert len(choose(skip=["datatypes"])) == len(choose()) - len(choose(["datatypes"]))
    with pytest.raises(ValueError, match="no check fits 'nonsense'"):
        choose(["nonsense"])


def test_what_is_so_is_noted_as_expected_and_what_is_not_with_its_words() -> None:
    notes = Notes()
    notes.expect_so(True, "ready after the load", "not ready")
    assert (notes.expected, notes.got) == ("ready after the load", "ready after the load")
    with pytest.raises(CheckFailed, match="expected ready after the load; got not ready"):
        notes.expect_so(False, "ready after the load", "not ready")
    assert notes.got == "not ready"


def test_only_the_levels_that_count_make_a_failure(report: Report) -> None:
    assert [failures(report, level) for level in Level] == [0, 1, 2]


def test_scores_are_by_section_and_in_all(report: Report) -> None:
    seen = {score.title: (score.passed, score.failed, score.skipped) for score in scores(report.results)}
    assert seen["Predictions"] == (1, 1, 0)
    assert seen["all"] == (1, 2, 1)


def test_junit_has_a_case_for_each_check(report: Report) -> None:
    root = ET.fromstring(as_junit(report))
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert cases == {"infer.id": [], "infer.no_id": ["failure"], "outputs.order": ["failure"],
                     "health.watch": ["skipped"]}  # fmt: skip
    (suite,) = [suite for suite in root if suite.get("name") == "conformance.infer"]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_several_runs_stand_side_by_side(report: Report) -> None:
    assert "| `infer.no_id` | triton | **FAIL** | expected | got \\| this |" in as_markdown(report)
    document = as_json(report)
    other = {**document, "server": "another 2", "results": document["results"][:1]}
    page = compared([document, other], ["first", "second"])
    assert "| says it is | a server 1 | another 2 |" in page
    assert "| `infer.no_id` | triton | **FAIL** |  |" in page
    assert "| `infer.id` | required | pass | pass |" in page
    assert "### first: what failed" in page


def test_a_server_that_is_gone_ends_the_run(server: MoodyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_RETURN_S", 0.0)

    def end(probe: Probe) -> None:
        server.mood = Mood.NO

    last = Check("server.live", Level.REQUIRED, "ends the server", end)
    report = run(Target(server.address), [last, *choose(["infer.id", "infer.no_id"])])
    assert [one.outcome for one in report.results] == [Outcome.FAIL]
    assert report.results[0].expected == "a server that lives on"
    assert len(report.unfinished) == 2
    assert failures(report, Level.REQUIRED) == 3


def test_nothing_at_the_address_is_no_report() -> None:
    with pytest.raises(ConnectionError, match="does not answer"):
        run(Target("127.0.0.1:1", timeout=2.0), choose(["infer.id"]))


@pytest.mark.parametrize(
    ("error", "extension", "outcome"),
    [
        (NotApplicable("no model"), "", Outcome.SKIP),
        (CheckFailed("wrong"), "", Outcome.FAIL),
        (KeyError("y"), "", Outcome.FAIL),
        (CheckFailed("wrong", running.UNIMPLEMENTED), "", Outcome.FAIL),
        (CheckFailed("wrong", running.UNIMPLEMENTED), "not_declared", Outcome.SKIP),
        (CheckFailed("wrong", running.UNIMPLEMENTED), "statistics", Outcome.FAIL),
        (None, "", Outcome.PASS),
    ],
)
def test_verdicts(error: Exception | None, extension: str, outcome: Outcome, server: MoodyServer) -> None:
    def function(probe: Probe) -> None:
        if error:
            raise error

    with Probe(Target(server.address)) as probe:
        assert run_check(Check("infer.x", Level.REQUIRED, "rule", function, extension), probe).outcome is outcome
