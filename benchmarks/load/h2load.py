"""nghttp2's h2load as a load generator: C++, cheap enough that the server is what is measured.

It knows nothing of gRPC: the request is a ready-made frame, and a call that fails looks to it like any other. But a
failed call has no message in its answer, so the bytes of data that came tell how many calls succeeded.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import workshop
from benchmarks.environments import system_program

from .target import Load, Measured, Target, framed
from .verification import Answer, WrongAnswer

_SPARE_S = 30.0
_DEADLINE = "30S"
_WINDOW_BITS = "30"
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


class LoadFailed(Exception):
    """h2load did not measure: connections refused or broken, or it hung; the text has its output."""


@dataclass(frozen=True)
class Summary:
    """What h2load prints."""

    rate: float
    """Answers per second."""
    succeeded: int
    failed: int
    """Answered with an HTTP error, reset or not at all."""
    data_bytes: int
    """Of all answers' bodies."""
    mean_us: float


def measure(target: Target, load: Load, seconds: float, answer: Answer, *, percentiles: bool = False) -> Measured:
    """Loads a server for so long. Raises LoadFailed, or WrongAnswer if the answers were not all of the right size.

    `percentiles`: logs every request, which slows h2load down by a few per cent at high rates.
    """
    with tempfile.TemporaryDirectory(dir=workshop.folder("run")) as scratch:
        body, log = Path(scratch) / "frame", Path(scratch) / "log"
        body.write_bytes(target.frame)
        command = _command(target, load, seconds, body)
        if percentiles:
            command.insert(1, f"--log-file={log}")
        summary = parse(_run(command, seconds))
        times = sorted(logged_us(log.read_text())) if percentiles else []
    check(summary, answer, load)
    return Measured(summary.rate, summary.succeeded, summary.mean_us, percentile(times, 50), percentile(times, 99))


def _command(target: Target, load: Load, seconds: float, body: Path) -> list[str]:
    headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", _DEADLINE), *target.metadata]
    return [
        system_program("h2load", "nghttp2-client"),
        f"--clients={load.connections}",
        f"--max-concurrent-streams={load.streams}",
        "--threads=1",
        f"--duration={round(seconds * 1000)}ms",
        f"--window-bits={_WINDOW_BITS}",
        f"--connection-window-bits={_WINDOW_BITS}",
        *([f"--rps={load.per_second}"] if load.per_second else []),
        *(f"--header={name}: {value}" for name, value in headers),
        f"--data={body}",
        f"http://{target.address}{target.path}",
    ]


def _run(command: list[str], seconds: float) -> str:
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + _SPARE_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"h2load did not end within {seconds + _SPARE_S:g} s") from error
    if finished.returncode != 0:
        raise LoadFailed(f"h2load ended with {finished.returncode}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def parse(output: str) -> Summary:
    """Reads h2load's report. Raises LoadFailed if something is missing in it."""
    found = {
        "rate": re.search(r"finished in .*?, ([\d.]+) req/s", output),
        "requests": re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output),
        "data": re.search(r"\((\d+)\) data", output),
        "times": re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)\s", output),
    }
    if any(match is None for match in found.values()):
        raise LoadFailed(f"h2load's report is not as expected:\n{output}")
    rate, requests, data, times = (match for match in found.values() if match is not None)
    succeeded, *others = (int(number) for number in requests.groups())
    mean_us = float(times[1]) * _UNITS_US[times[2]]
    return Summary(float(rate[1]), succeeded, sum(others), int(data[1]), mean_us)


def check(summary: Summary, answer: Answer, load: Load) -> None:
    """Raises WrongAnswer if requests failed or the answers do not have the size of right ones."""
    if summary.failed or not summary.succeeded:
        raise WrongAnswer(f"{summary.failed} requests failed, {summary.succeeded} succeeded")
    size = len(framed(b"")) + answer.size_bytes
    # At the end up to one answer per request in flight may be cut off half-way: counted in bytes, not as an answer.
    surplus = summary.data_bytes - summary.succeeded * size
    if not 0 <= surplus <= load.in_flight * size:
        expected = summary.succeeded * size
        raise WrongAnswer(f"{summary.succeeded} answers had {summary.data_bytes} bytes of data, not {expected}")


def logged_us(log: str) -> list[float]:
    """The times of the requests in a log, in microseconds."""
    return [float(line.split("\t")[2]) for line in log.splitlines()]


def percentile(ordered: list[float], per_cent: float) -> float | None:
    """The nearest-rank percentile of ordered values; None if there are none."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * per_cent / 100) - 1)]
