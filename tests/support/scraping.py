"""Reads what a program serves at /metrics: by the parser that Prometheus' own client library has."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from modelyard.core.metrics import MetricsSource

from .required import missing

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """One answer of a metrics endpoint."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (_plain(sample.name), frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels; raises KeyError if there is none."""
        return self._samples[name, frozenset(labels.items())]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of this name."""
        return [dict(labels) for found, labels in self._samples if found == name]


def _plain(name: str) -> str:
    """A sample's name as it was told: the parser puts a suffix behind Triton's counters, which have none."""
    return name.removesuffix("_total") if name.startswith("nv_") else name


async def scrape(address: str) -> Scrape:
    """What is served now at `host:port`."""
    return Scrape(await asyncio.to_thread(fetch, f"http://{address}/metrics"))


async def told_by(source: MetricsSource) -> Scrape:
    """What one source tells, without a server."""
    registry = CollectorRegistry()
    registry.register(Told(await source.metrics()))
    return Scrape(generate_latest(registry).decode())


class Told(Collector):
    """Families that a source has told."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def fetch(url: str) -> str:
    """The text at an HTTP address; raises HTTPError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def promtool() -> str:
    """Prometheus' own checker; skips the test where it is not installed, see `required`."""
    found = shutil.which("promtool")
    if found is None:
        missing("promtool", "MODELYARD_TEST_PROMTOOL")
    return found


def lint(text: str) -> list[str]:
    """What promtool has to say against an exposition, without Triton's names, which are not ours to change."""
    result = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr  # 3: it could be read, and there is something to say
    return [line for line in result.stderr.splitlines() if line and not line.startswith("nv_")]
