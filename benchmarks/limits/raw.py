"""How fast ONNX Runtime itself is: `session.run` in a loop, with whatever batch and threads suit it best.

`python -m benchmarks.limits.raw FILE BATCH REQUEST_THREADS GRAPH_THREADS SECONDS` prints rows per second.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks import workshop
from benchmarks.models import sample_inputs
from benchmarks.signature import read

_SPARE_S = 60.0


@dataclass(frozen=True)
class RawSetting:
    """How the loop runs."""

    batch: int
    """Rows per run."""
    request_threads: int
    """Runs at once."""
    graph_threads: int
    """ONNX Runtime's threads within a run."""

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.request_threads} × {self.graph_threads} threads"


def raw_rate(model: Path, setting: RawSetting, seconds: float) -> float:
    """Rows per second, measured in a process of its own."""
    numbers = (setting.batch, setting.request_threads, setting.graph_threads, seconds)
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.limits.raw", str(model), *(f"{number:g}" for number in numbers)],
        cwd=workshop.REPOSITORY, capture_output=True, text=True, check=True, timeout=seconds + _SPARE_S,
    )  # fmt: skip
    return float(finished.stdout)


def candidates(most_rows: int, cores: int, *, bounded: bool = False) -> list[RawSetting]:
    """What is tried: batches up to the rows that are in flight, the cores used by runs or within a run.

    `bounded`: runs at once have no more rows together than are in flight.
    """
    batches = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= most_rows][-4:]
    threads = sorted({(1, 1), (cores, 1), (1, cores)})
    settings = [RawSetting(batch, *pair) for batch, pair in product(batches, threads)]
    return [one for one in settings if not bounded or one.batch * one.request_threads <= most_rows]


def best_setting(
    settings: Sequence[RawSetting], rate: Callable[[RawSetting], float]
) -> tuple[RawSetting, dict[str, float]]:
    """The fastest of the settings, and what each reached."""
    rates = {setting: rate(setting) for setting in settings}
    return max(rates, key=lambda setting: rates[setting]), {str(setting): rates[setting] for setting in settings}


def _loop(model: Path, setting: RawSetting, seconds: float) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.graph_threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = sample_inputs(read(model), setting.batch)
    counts = [0] * setting.request_threads
    session.run(None, feeds)  # the first is slow
    began = time.perf_counter()
    threads = [
        threading.Thread(target=_run, args=(session, feeds, began + seconds, counts, index))
        for index in range(setting.request_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * setting.batch / (time.perf_counter() - began)


def _run(session: Any, feeds: dict[str, Any], end: float, counts: list[int], index: int) -> None:
    while time.perf_counter() < end:
        session.run(None, feeds)
        counts[index] += 1


if __name__ == "__main__":
    file, *rest = sys.argv[1:]
    print(_loop(Path(file), RawSetting(*(int(number) for number in rest[:3])), float(rest[3])))
