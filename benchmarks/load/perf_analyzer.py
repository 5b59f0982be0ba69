"""NVIDIA's perf_analyzer as a second opinion: it speaks the protocol itself, and pays for that on the same cores."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from benchmarks import environments
from benchmarks.environments import SetUpFailed

from .target import Load, Measured

_REQUIREMENTS = Path(__file__).with_name("perf_analyzer.txt")
_SPARE_S = 120.0
_WINDOWS = 3


class NoOpinion(Exception):
    """perf_analyzer did not measure; the text has its output."""


def measure(address: str, metadata: tuple[tuple[str, str], ...], model: str, load: Load, seconds: float) -> Measured:
    """Loads a model with random inputs in windows of so long. Raises NoOpinion, SetUpFailed."""
    place = environments.environment("perf_analyzer", _REQUIREMENTS)
    (libraries,) = place.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    command = [
        str(place / "bin/perf_analyzer"), "-m", model, "-u", address, "-i", "grpc", "--async",
        f"--concurrency-range={load.in_flight}", f"--measurement-interval={seconds * 1000:.0f}",
        f"--max-trials={_WINDOWS}", "--stability-percentage=999", "--percentile=50",
        *(argument for name, value in metadata for argument in ("-H", f"{name}:{value}")),
    ]  # fmt: skip
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds * _WINDOWS + _SPARE_S,
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NoOpinion("perf_analyzer did not end") from error
    return parse(finished.stdout, finished.stderr)


def parse(output: str, errors: str = "") -> Measured:
    """Reads the report's last block, which is there also if the figures never settled. Raises NoOpinion."""
    rates = re.findall(r"Throughput: ([\d.]+) infer/sec", output)
    counts = re.findall(r"Request count: (\d+)", output)
    medians = re.findall(r"p50 latency: (\d+) usec", output)
    means = re.findall(r"Avg latency: (\d+) usec", output) or medians
    if not (rates and counts and means) or not float(rates[-1]):
        raise NoOpinion(f"{output[-2000:]}{errors[-2000:]}")
    p50 = float(medians[-1]) if medians else None
    return Measured(float(rates[-1]), int(counts[-1]), float(means[-1]), p50)


__all__ = ["NoOpinion", "SetUpFailed", "measure", "parse"]
