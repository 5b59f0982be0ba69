"""Runs a soak: cluster, samples, the C++ client, and a look at the pod's memory every now and then."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import environments
from benchmarks.models import CATALOGUE
from benchmarks.ours import Cluster, running_cluster
from benchmarks.peers import ModelFile
from modelyard.envoy.process import Admin
from modelyard.inference.lane.config import NAME
from modelyard.oip.service import method_path

from .samples import write_samples
from .verdict import Outcome, counts, problems_in_log

_SOURCE = Path(__file__).parent / "inside/soak.cpp"
_LOOKS = 400
"""At most so many looks at memory are kept; when there are more, every second one is dropped."""


@dataclass(frozen=True)
class SoakPlan:
    """What is sent."""

    requests: int
    in_flight: int = 256
    connections: int = 8
    cancelled: float = 0.05
    """Share of the calls that are cancelled after a random time; as many again expire after one."""
    expired: float = 0.05
    least_ms: int = 0
    """The shortest of those times. A call that is given up before its headers were written makes gRPC's core reset a
    stream that the server has never heard of (github.com/grpc/grpc/issues/19655). HTTP/2 calls that an error of the
    connection, and Envoy ends it with all its calls: on the express lane, 20 ms keep most calls from that."""
    most_ms: int = 50
    """The longest: about what an answer takes under this load, so that both happen."""
    model: str = "small"
    limit_s: float = 6 * 3600


def soak(plan: SoakPlan) -> Outcome:
    """Runs it against a direct pod. Raises SetUpFailed, StartFailed, WrongAnswer."""
    program = environments.compiled(_SOURCE)
    model = CATALOGUE[plan.model].file()
    with running_cluster([ModelFile(plan.model, model)]) as cluster, tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch) / "samples"
        floats = write_samples(samples, cluster.pod, cluster.metadata, plan.model, model)
        command = [
            str(program), cluster.pod, method_path("ModelInfer"), cluster.token, str(samples), str(plan.requests),
            str(plan.in_flight), str(plan.connections), str(plan.cancelled), str(plan.expired),
            str(plan.least_ms), str(plan.most_ms), str(floats),
        ]  # fmt: skip
        began = time.monotonic()
        with _looking(cluster) as memory:
            output = _run(command, plan.limit_s)
        seconds = time.monotonic() - began
        broken = _broken_connections(cluster)
        problems = problems_in_log(cluster.pod_log.read_text(errors="replace").splitlines())
    found = counts(output)
    done, wrong = found.pop("done", 0), found.pop("wrong-answer", 0)
    at_once = math.ceil(plan.in_flight / plan.connections)
    return Outcome(done, found, wrong, seconds, memory, problems, broken, at_once)


def soak_report(plan: SoakPlan, outcome: Outcome) -> dict[str, Any]:
    """The outcome for JSON, and why it is not good."""
    return {
        "plan": asdict(plan),
        "done": outcome.done,
        "seconds": round(outcome.seconds, 1),
        "rate": round(outcome.done / outcome.seconds),
        "ended": dict(outcome.ended),
        "given_up": outcome.given_up,
        "unanswered": outcome.unanswered,
        "connections_broken_by_the_client": outcome.broken_connections,
        "calls_on_them": outcome.broken_off,
        "wrong_answers": outcome.wrong_answers,
        "memory_growth": round(outcome.growth, 4),
        "memory_bytes": list(outcome.memory_bytes),
        "log_problems": list(outcome.log_problems[:20]),
        "failures": outcome.failures(plan.requests),
    }


def _run(command: list[str], limit_s: float) -> str:
    """Runs the client, passing on its progress, and answers what it printed; ends it if it hangs."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        timer = threading.Timer(limit_s, client.kill)
        timer.start()
        lines = []
        try:
            for line in client.stdout or ():
                lines.append(line)
                print(line, end="", file=sys.stderr, flush=True)
        finally:
            timer.cancel()
            client.kill()
    return "".join(lines)


def _broken_connections(cluster: Cluster) -> int:
    """Connections that the direct pod's Envoy ended because of what came on them."""
    for process in cluster.pod_processes():
        command = process.cmdline()
        if "--config-path" in command:
            admin = Admin(Path(command[command.index("--config-path") + 1]).parent / "admin.sock")
            told = admin.request("GET", f"/stats?filter=^http.{NAME}.downstream_cx_protocol_error$")
            return int(told.rpartition(":")[2])
    return 0


@contextmanager
def _looking(cluster: Cluster) -> Iterator[list[int]]:
    """Fills the list with the pod's memory in bytes, from a thread."""
    looks, end = [memory_bytes(cluster)], threading.Event()
    pause = 0.5

    def look() -> None:
        nonlocal pause
        while not end.wait(pause):
            looks.append(memory_bytes(cluster))
            if len(looks) > _LOOKS:
                del looks[::2]
                pause *= 2

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        end.set()
        thread.join()
        looks.append(memory_bytes(cluster))


def memory_bytes(cluster: Cluster) -> int:
    """The pod's proportional set size: what it has for itself, and its share of what it shares (proc(5))."""
    total = 0
    for process in cluster.pod_processes():
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


__all__ = ["SoakPlan", "memory_bytes", "soak", "soak_report"]
