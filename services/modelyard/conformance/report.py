"""What came out of a run, as documents: JSON, JUnit, Markdown, and several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

from .registry import SECTIONS, Check, Level
from .run import Outcome, Report, Result

_SHOWN: Final = {Outcome.PASS: "pass", Outcome.FAIL: "**FAIL**", Outcome.SKIP: "–"}


@dataclass(frozen=True, slots=True)
class Score:
    """How many checks of a section ended how."""

    title: str
    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed}/{self.passed + self.failed}"


def scores(results: Sequence[Result]) -> list[Score]:
    """One score for each section that has results, and the sum."""
    found = [
        _score(title, [one for one in results if one.check.section == section]) for section, title in SECTIONS.items()
    ]
    return [*(score for score in found if score.passed + score.failed + score.skipped), _score("all", results)]


def _score(title: str, results: Sequence[Result]) -> Score:
    counted = [sum(one.outcome is outcome for one in results) for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.SKIP)]
    return Score(title, *counted)


def failures(report: Report, strictest: Level) -> int:
    """How many checks failed of the levels up to `strictest`, or were not tried since the server was gone."""
    levels = list(Level)
    failed = report.count(Outcome.FAIL, *levels[: levels.index(strictest) + 1])
    return failed + len(report.unfinished)


def as_json(report: Report) -> dict[str, Any]:
    """The run as plain data; `compare` reads it again."""
    return {
        "server": report.server,
        "address": report.target.address,
        "model": report.target.model,
        "started": report.started.isoformat(timespec="seconds"),
        "summary": {
            level.value: {outcome.value: report.count(outcome, level) for outcome in Outcome} for level in Level
        },
        "unfinished": [check.id for check in report.unfinished],
        "results": [
            {
                "id": one.check.id,
                "level": one.check.level.value,
                "rule": one.check.rule,
                "outcome": one.outcome.value,
                "sent": one.sent,
                "expected": one.expected,
                "got": one.got,
                "seconds": round(one.seconds, 4),
            }
            for one in report.results
        ],
    }


def as_junit(report: Report) -> str:
    """The run for whatever reads JUnit's XML: a suite for each section."""
    root = ET.Element("testsuites", name=f"conformance of {report.server}")
    for section in SECTIONS:
        results = [one for one in report.results if one.check.section == section]
        if results:
            root.append(_suite(section, results))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(section: str, results: Sequence[Result]) -> ET.Element:
    score = _score(section, results)
    suite = ET.Element(
        "testsuite",
        name=f"conformance.{section}",
        tests=str(len(results)),
        failures=str(score.failed),
        skipped=str(score.skipped),
    )
    for one in results:
        case = ET.SubElement(
            suite, "testcase", classname=f"conformance.{section}", name=one.check.id, time=f"{one.seconds:.4f}"
        )
        if one.outcome is Outcome.FAIL:
            failure = ET.SubElement(case, "failure", message=f"expected {one.expected}; got {one.got}")
            failure.text = f"{one.check.rule}\nsent: {one.sent}"
        elif one.outcome is Outcome.SKIP:
            ET.SubElement(case, "skipped", message=one.got)
    return suite


def as_markdown(report: Report) -> str:
    """The run as a page."""
    lines = [
        f"# Conformance of {report.server}",
        "",
        f"Model `{report.target.model}`, {report.started:%Y-%m-%d}.",
        "",
        "| section | passed | failed | not applicable |",
        "|---|---|---|---|",
        *(f"| {one.title} | {one.passed} | {one.failed} | {one.skipped} |" for one in scores(report.results)),
        "",
        "| check | level | result | expected | got |",
        "|---|---|---|---|---|",
        *(
            f"| `{one.check.id}` | {one.check.level} | {_SHOWN[one.outcome]} "
            f"| {_cell(one.expected)} | {_cell(one.got)} |"
            for one in report.results
        ),
    ]
    return "\n".join(lines) + "\n"


def compared(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Several runs (as of `as_json`) side by side, as Markdown: sums, every check, every failure."""
    return "\n".join([*_sums(documents, names), "", *_matrix(documents, names), "", *_failed(documents, names)]) + "\n"


def _sums(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    yield "| | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    yield "| says it is | " + " | ".join(str(one["server"]) for one in documents) + " |"
    yield "| run on | " + " | ".join(str(one["started"])[:10] for one in documents) + " |"
    for level in Level:
        cells = [_sum(document["summary"][level.value]) for document in documents]
        yield f"| {level.value} | " + " | ".join(cells) + " |"


def _sum(counts: Mapping[str, int]) -> str:
    tried = counts["pass"] + counts["fail"]
    return f"{counts['pass']} of {tried}" + (f" ({counts['skip']} not applicable)" if counts["skip"] else "")


def _matrix(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    outcomes = [{one["id"]: Outcome(one["outcome"]) for one in document["results"]} for document in documents]
    checks = {one["id"]: one for document in documents for one in document["results"]}
    yield "| check | level | " + " | ".join(names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for check_id, check in checks.items():
        cells = [_SHOWN[found[check_id]] if check_id in found else "" for found in outcomes]
        yield f"| `{check_id}` | {check['level']} | " + " | ".join(cells) + " |"


def _failed(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    for name, document in zip(names, documents, strict=True):
        failed = [one for one in document["results"] if one["outcome"] == Outcome.FAIL]
        if failed:
            yield f"### {name}: what failed"
            yield ""
            yield "| check | level | expected | got |"
            yield "|---|---|---|---|"
            for one in failed:
                yield f"| `{one['id']}` | {one['level']} | {_cell(one['expected'])} | {_cell(one['got'])} |"
            yield ""


def _cell(text: str) -> str:
    """Text inside a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def listed(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The checks as plain data."""
    return [{"id": one.id, "level": one.level.value, "extension": one.extension, "rule": one.rule} for one in checks]


def dumped(document: Mapping[str, Any]) -> str:
    """JSON, for people and programs."""
    return json.dumps(document, indent=2, ensure_ascii=False)
