"""What is measured, and which ratios have to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from .bars import Bar, Figure, ratio, time_within
from .load import Load

PEERS = ("triton", "mlserver", "kserve")
"""Servers that one can install from a package index."""


@dataclass(frozen=True)
class Entry:
    """One of those that take turns in a scenario."""

    server: str
    """`pod`, `door`, a peer, `echo-cpp`, `echo-aio` or `raw`."""
    load: Load
    label: str = ""
    """Its name in the results; default: the server's."""
    setting: int | None = None
    """A peer's setting by its number in `stage.TUNINGS`; None: the best one."""
    bounded: bool = False
    """The raw loop: no more rows at once, in all its runs together, than are in flight, as it is for a server."""

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.label or self.server


@dataclass(frozen=True)
class Scenario:
    """A model under a load."""

    name: str
    title: str
    model: str
    figure: Figure
    """What is compared."""
    entries: tuple[Entry, ...]
    bars: tuple[Bar, ...]
    stretch: float = 1.0
    """Turns and trials take so many times longer: a slow model needs more time for as many answers."""


def _entries(load: Load, *servers: str) -> tuple[Entry, ...]:
    return tuple(Entry(server, load) for server in servers)


def _small(in_flight: int) -> Scenario:
    load = Load(connections=4, streams=in_flight // 4)
    return Scenario(
        f"small-{in_flight}",
        f"10-20-40-1 network, {in_flight} requests in flight",
        "small",
        Figure.RATE,
        (
            *_entries(load, "pod", "door", *PEERS),
            Entry("triton", load, "triton, plain", setting=0),
            *_entries(load, "echo-cpp", "echo-aio"),
        ),
        (
            ratio("pod", PEERS, at_least=8),
            ratio("pod", ("echo-cpp",), at_least=0.35),
            ratio("door", PEERS, at_least=4),
        ),
    )


def _computing(name: str, title: str, model: str, in_flight: int, of_raw: float, stretch: float = 1.0) -> Scenario:
    load = Load(connections=4, streams=in_flight // 4)
    return Scenario(
        f"{name}-{in_flight}",
        f"{title}, {in_flight} requests in flight",
        model,
        Figure.RATE,
        (*_entries(load, "pod", "door", *PEERS, "raw"), Entry("raw", load, "raw, rows in flight", bounded=True)),
        (ratio("pod", ("raw",), at_least=of_raw), ratio("door", ("pod",), at_least=0.9)),
        stretch,
    )


_ONE = Load(connections=1, streams=1)
_NOW_AND_THEN = Load(connections=1, streams=1, per_second=20)
_EIGHT = Load(connections=4, streams=2)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _small(32),
        _small(64),
        _computing("wide", "768-3072-3072-768 network", "wide", 32, 0.80),
        _computing("wide", "768-3072-3072-768 network", "wide", 64, 0.95),
        _computing("bert", "BERT-Small, 64 tokens", "bert", 8, 0.92, stretch=2),
        _computing("cnn", "ResNet-18, 224 × 224", "cnn", 8, 0.92, stretch=2),
        Scenario(
            "one-caller",
            "10-20-40-1 network, one caller, one request after the other",
            "small",
            Figure.P50_US,
            _entries(_ONE, "pod", "door", *PEERS, "echo-cpp", "echo-aio"),
            (time_within("pod", at_most=300),),
        ),
        Scenario(
            "tensors-8",
            "600 kB in and 600 kB out, 8 requests in flight",
            "tensors",
            Figure.RATE,
            _entries(_EIGHT, "pod", "door", *PEERS),
            (ratio("pod", ("mlserver",), at_least=8), ratio("door", ("pod",), at_least=0.9)),
        ),
        Scenario(
            "idle",
            "768-3072-3072-768 network, a single request now and then",
            "wide",
            Figure.P50_US,
            (
                Entry("pod", _NOW_AND_THEN),
                Entry("pod", _ONE, "pod, no pauses"),
                *_entries(_NOW_AND_THEN, *PEERS),
                Entry("raw", _NOW_AND_THEN, bounded=True),
            ),
            (time_within("pod", "raw", at_most=1000),),
        ),
    )
}
"""By name, in the order of the report."""
