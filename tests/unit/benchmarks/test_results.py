"""Results on disk, the report about them, and what is published of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks import publishing, report, results
from benchmarks.load import Measured
from benchmarks.measuring import rotated
from benchmarks.results import Results
from benchmarks.scenarios import SCENARIOS, Scenario

MACHINE = {
    "time": "2026-01-02T03:04:05+00:00", "commit": "abc", "cores": 2, "processor": "a processor",
    "versions": {"onnxruntime": "1"}, "peers": {"triton": "0.7.0"},
}  # fmt: skip


@pytest.fixture
def scenario() -> Scenario:
    return SCENARIOS["wide-32"]


@pytest.fixture
def measured(tmp_path: Path, scenario: Scenario) -> Results:
    """Two rounds; one turn of them failed."""
    found = Results(tmp_path / "results/today", MACHINE, {"rounds": 2, "seconds": 1.0})
    for number in (1, 2):
        for entry in scenario.entries:
            rate = 1000.0 * number if entry.server == "raw" else 900.0 * number
            failed = entry.server == "kserve" and number == 2
            found.add(scenario, entry.name, "LoadFailed: refused" if failed else Measured(rate, 10, 5000.0))
    return found


def test_what_was_measured_is_read_back(measured: Results, scenario: Scenario) -> None:
    loaded = results.load(measured.folder)
    assert loaded == measured
    assert loaded.rounds_of(scenario) == 2
    assert loaded.figures(scenario)["kserve"] == [900.0, None]


def test_an_interrupted_round_is_measured_again(measured: Results, scenario: Scenario) -> None:
    measured.add(scenario, scenario.entries[0].name, Measured(1.0, 1, 1.0))
    measured.drop_partial_round(scenario)
    assert {len(rounds) for rounds in measured.turns[scenario.name].values()} == {2}


def test_results_of_another_format_are_refused(measured: Results) -> None:
    file = measured.folder / results.FILE_NAME
    file.write_text(file.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ValueError, match="another version"):
        results.load(measured.folder)


def test_the_report_has_bars_tables_errors_and_a_chart(measured: Results) -> None:
    report.write(measured)
    text = (measured.folder / report.REPORT).read_text()
    assert "| 768-3072-3072-768 network, 32 requests in flight | pod ÷ raw ≥ 0.8 | 0.90 | reached |" in text
    assert "- kserve, round 2: LoadFailed: refused" in text
    assert "| pod | 1,350 | 900 to 1,800 | 5.00 |  |" in text
    chart = ET.parse(measured.folder / report.CHART).getroot()
    assert {"pod", "raw"} <= {text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")}


def test_the_table_is_published_between_the_markers(measured: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publishing.BEGIN}\nold\n{publishing.END}\nafter\n")
    publishing.publish(measured, readme)
    publishing.publish(measured, readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "(results/today/report.md)" in text
    assert text.count("pod ÷ raw ≥ 0.8") == 1


def test_only_what_is_in_the_repository_is_published(measured: Results, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be in the repository"):
        publishing.publish(measured, tmp_path / "elsewhere/README.md")


def test_the_readme_of_the_benchmarks_has_the_markers() -> None:
    text = publishing.README.read_text()
    assert text.index(publishing.BEGIN) < text.index(publishing.END)


def test_rounds_begin_with_another_entry_each(scenario: Scenario) -> None:
    first = [rotated(scenario.entries, number)[0] for number in range(len(scenario.entries))]
    assert first == list(scenario.entries)
    assert sorted(entry.name for entry in rotated(scenario.entries, 9)) == sorted(e.name for e in scenario.entries)
