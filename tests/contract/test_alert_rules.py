"""The alert rules are valid, are raised by what they are about and by nothing else, and name metrics that there are."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from support.documentation import ROOT, documented
from support.scraping import promtool

FOLDER = ROOT / "deploy/prometheus"
_METRIC = re.compile(r"\b(?:nv|modelyard|grpc)_[a-z_]+")
_LABELS = {"grpc_service", "grpc_code", "grpc_method", "grpc_type"}
_OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    "command",
    [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"], ["check", "config", "prometheus.yml"]],
    ids=" ".join,
)
def test_promtool_agrees(command: list[str]) -> None:
    result = subprocess.run([promtool(), *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_rule_is_tested_both_ways_and_documented() -> None:
    names = {rule["alert"] for rule in rules()}
    quiet, loud = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    assert {test["alertname"] for test in quiet["alert_rule_test"]} == names
    assert {test["alertname"] for test in loud["alert_rule_test"]} == names
    page = (ROOT / "docs/observability.md").read_text()
    assert [name for name in names if name not in page] == []


def test_rules_and_queries_name_metrics_that_there_are() -> None:
    expressions = [rule["expr"] for rule in rules()]
    page = (ROOT / "docs/observability.md").read_text()
    queries = [line for line in page.splitlines() if line.startswith("    ")]
    used = {name for text in (*expressions, *queries) for name in _METRIC.findall(text)} - _LABELS
    known = documented()
    assert {name for name in used if name not in known and _OF_A_HISTOGRAM.sub("", name) not in known} == set()
