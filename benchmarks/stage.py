"""Everything that takes turns, running at once: starting servers anew for each turn would cost more than measuring.

A server that waits for its turn costs next to nothing: `Stage.idle_cores` says how little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import psutil

from .bars import Figure
from .environments import SetUpFailed
from .limits import RawSetting, best_setting, raw, running_aio_echo, running_cpp_echo
from .load import Answer, Measured, Target, WrongAnswer, sample_request, verify
from .load.h2load import LoadFailed, measure
from .models import CATALOGUE
from .ours import running_cluster
from .peers import PEERS, ModelFile, StartFailed, Tuning
from .peers.peer import is_ready
from .scenarios import Entry, Scenario

_CORES = os.cpu_count() or 1
TUNINGS = {
    "triton": (
        Tuning(instances=1, max_batch_size=0),
        Tuning(instances=1, max_batch_size=64),
        Tuning(instances=_CORES, max_batch_size=64),
        Tuning(instances=_CORES, max_batch_size=0),
        Tuning(instances=1, graph_threads=_CORES, max_batch_size=64),
    ),
    "mlserver": (
        Tuning(max_batch_size=0, beside_the_loop=False),
        Tuning(max_batch_size=0),
        Tuning(max_batch_size=32),
    ),
    "kserve": (Tuning(beside_the_loop=False), Tuning()),
}
"""What each peer may choose from. Each variant is a model of its own in the same server."""

_WARM_UP_SHARE, _WARM_UP_LEAST_S = 0.15, 0.2
"""So much of a turn goes by before measuring."""


@dataclass(frozen=True)
class Speaker:
    """A server that answers requests."""

    address: str
    metadata: tuple[tuple[str, str], ...] = ()
    echoes: bool = False


@dataclass
class Stage:
    """The running servers, and what was found best for each."""

    speakers: dict[str, Speaker]
    failures: dict[str, str]
    """Servers that could not be started, with the reason."""
    restarts: dict[str, int] = field(default_factory=dict)
    """How often a server that had crashed was started again."""
    starts: Mapping[str, Callable[[], Speaker]] = field(default_factory=dict)
    """How to start each server that may be started again."""
    chosen: dict[str, str] = field(default_factory=dict)
    """`SCENARIO/ENTRY`: the setting that was found best, for the report."""
    _variants: dict[tuple[str, str], str] = field(default_factory=dict)
    _raw: dict[tuple[str, str], RawSetting] = field(default_factory=dict)

    def prepare(self, scenario: Scenario, seconds: float) -> None:
        """Finds the best setting of each peer and of the raw loop by trying all of them for so long."""
        seconds *= scenario.stretch
        for entry in scenario.entries:
            key = f"{scenario.name}/{entry.name}"
            if entry.server == "raw":
                self._prepare_raw(key, scenario, entry, seconds)
            elif entry.setting is not None:
                self.chosen[key] = describe(entry.server, TUNINGS[entry.server][entry.setting])
            elif entry.server in TUNINGS and entry.server in self.speakers:
                self._prepare_peer(key, scenario, entry, seconds)

    def turn(self, scenario: Scenario, entry: Entry, seconds: float) -> Measured:
        """One turn of so long times the scenario's stretch.

        Raises WrongAnswer, LoadFailed, or KeyError for a server that is not there.
        """
        seconds *= scenario.stretch
        if entry.server == "raw":
            return self._raw_loop(self._raw[scenario.name, entry.name], scenario, entry, seconds)
        return self._load(self.model_of(scenario, entry), scenario, entry, seconds)

    def model_of(self, scenario: Scenario, entry: Entry) -> str:
        """The name under which the entry's server has the scenario's model, in its best setting."""
        if entry.server not in TUNINGS:
            return scenario.model
        usual, _ = variants(entry.server, scenario.model)[entry.setting or 0]
        return self._variants.get((scenario.name, entry.name), usual)

    def idle_cores(self, seconds: float) -> float:
        """Processor time that all servers together take while nobody calls them, in cores."""
        children = psutil.Process().children(recursive=True)
        began = _busy_s(children)
        psutil.cpu_percent(interval=seconds)
        return (_busy_s(children) - began) / seconds

    def _load(self, model: str, scenario: Scenario, entry: Entry, seconds: float) -> Measured:
        """Loads a server; a second time if it turns out to be dead, as Triton may be after a client that hung up."""
        try:
            return self._load_once(model, scenario, entry, seconds)
        except (WrongAnswer, LoadFailed):
            if entry.server not in PEERS or is_ready(self.speakers[entry.server].address, model):
                raise
        _say(f"{entry.server} has died; starting it again")
        self.restarts[entry.server] = self.restarts.get(entry.server, 0) + 1
        self.speakers[entry.server] = self.starts[entry.server]()
        return self._load_once(model, scenario, entry, seconds)

    def _load_once(self, model: str, scenario: Scenario, entry: Entry, seconds: float) -> Measured:
        speaker = self.speakers[entry.server]
        path = CATALOGUE[scenario.model].file()
        target = Target(speaker.address, sample_request(model, path), speaker.metadata)
        answer: Answer = verify(target, None if speaker.echoes else path)
        percentiles = scenario.figure.value.startswith("p")
        measure(target, entry.load, max(_WARM_UP_LEAST_S, seconds * _WARM_UP_SHARE), answer)
        result = measure(target, entry.load, seconds, answer, percentiles=percentiles)
        verify(target, None if speaker.echoes else path)
        return result

    def _prepare_raw(self, key: str, scenario: Scenario, entry: Entry, seconds: float) -> None:
        def merit(setting: RawSetting) -> float:
            found = self._raw_loop(setting, scenario, entry, seconds)
            return found.rate if scenario.figure is Figure.RATE else -(found.p50_us or 0.0)

        settings = raw.candidates(entry.load.in_flight, _CORES, bounded=entry.bounded)
        best, merits = best_setting(settings, merit)
        self._raw[scenario.name, entry.name] = best
        self.chosen[key] = f"{best} (of {len(merits)} settings)"

    def _raw_loop(self, setting: RawSetting, scenario: Scenario, entry: Entry, seconds: float) -> Measured:
        return raw.raw_loop(CATALOGUE[scenario.model].file(), setting, seconds, entry.load.per_second)

    def _prepare_peer(self, key: str, scenario: Scenario, entry: Entry, seconds: float) -> None:
        rates = {}
        for variant, tuning in variants(entry.server, scenario.model):
            try:
                found = self._load(variant, scenario, entry, seconds)
            except Exception as error:  # noqa: BLE001 - a variant that does not work is not the best
                print(f"  {key}: {variant} is left out: {error}", file=sys.stderr)
                continue
            rates[variant] = (found.rate, tuning)
        if rates:
            best = max(rates, key=lambda variant: rates[variant][0])
            self._variants[scenario.name, entry.name] = best
            self.chosen[key] = f"{describe(entry.server, rates[best][1])} (of {len(rates)} settings)"


def variants(server: str, model: str) -> list[tuple[str, Tuning]]:
    """The names under which a peer serves a model, one per setting."""
    return [(f"{model}-{number}", tuning) for number, tuning in enumerate(TUNINGS[server])]


def describe(server: str, tuning: Tuning) -> str:
    """A setting for people."""
    batch = f"batches up to {tuning.max_batch_size}" if tuning.max_batch_size else "no batches"
    threads = f"{tuning.graph_threads} graph threads" if tuning.graph_threads > 1 else "1 graph thread"
    where = "runs in threads" if tuning.beside_the_loop else "runs in the event loop"
    return {
        "triton": f"{tuning.instances} instance{'s'[: tuning.instances > 1]}, {threads}, {batch}",
        "mlserver": f"{where}, {batch}",
        "kserve": where,
    }[server]


@contextmanager
def stage(scenarios: Iterable[Scenario]) -> Iterator[Stage]:
    """Starts whatever the scenarios need. A peer or an echo that cannot start is left out; ours must."""
    chosen = list(scenarios)
    servers = {entry.server for scenario in chosen for entry in scenario.entries} - {"raw"}
    models = {scenario.model: CATALOGUE[scenario.model].file() for scenario in chosen}
    built = Stage({}, {})
    with ExitStack() as stack:
        built.starts = {name: _starter(stack, name, start) for name, start in _others(models).items()}
        for name, start in built.starts.items():
            if name not in servers:
                continue
            _say(f"starting {name}")
            try:
                built.speakers[name] = start()
            except (SetUpFailed, StartFailed) as error:
                built.failures[name] = str(error)
                _say(f"{name} is left out: {error}")
        if servers & {"pod", "door"}:
            _say("starting modelyard")
            cluster = stack.enter_context(running_cluster([ModelFile(*model) for model in models.items()]))
            built.speakers["pod"] = Speaker(cluster.pod, cluster.metadata)
            built.speakers["door"] = Speaker(cluster.door, cluster.metadata)
        yield built


def _starter(stack: ExitStack, name: str, start: Callable[[], AbstractContextManager[str]]) -> Callable[[], Speaker]:
    """Starts the server, anew if it was started before: what is left of that is stopped first."""
    current = stack.enter_context(ExitStack())

    def run() -> Speaker:
        current.close()
        return Speaker(current.enter_context(start()), echoes=name.startswith("echo"))

    return run


def _others(models: Mapping[str, Path]) -> dict[str, Callable[[], AbstractContextManager[str]]]:
    def peer(name: str) -> Callable[[], AbstractContextManager[str]]:
        served = chain.from_iterable(
            (ModelFile(variant, path, tuning) for variant, tuning in variants(name, model))
            for model, path in models.items()
        )
        files = list(served)
        return lambda: PEERS[name].running(files)

    echoes: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "echo-cpp": lambda: running_cpp_echo(threads=_CORES),
        "echo-aio": running_aio_echo,
    }
    return {name: peer(name) for name in PEERS} | echoes


def _busy_s(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
