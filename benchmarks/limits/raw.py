"""How fast ONNX Runtime itself is: `session.run` in a loop, with whatever batch and threads suit it best.

`python -m benchmarks.limits.raw FILE BATCH REQUEST_THREADS GRAPH_THREADS SECONDS RUNS_PER_SECOND` prints rows per
second and a run's median time in microseconds. RUNS_PER_SECOND: of each thread, which waits between; 0: it does not.
"""

from __future__ import annotations

import statistics
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
from benchmarks.load import Measured
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


def raw_loop(model: Path, setting: RawSetting, seconds: float, per_second: int = 0) -> Measured:
    """Measured in a process of its own; each row is a request. `per_second`: at most so many runs of each thread."""
    numbers = (setting.batch, setting.request_threads, setting.graph_threads, seconds, per_second)
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.limits.raw", str(model), *(f"{number:g}" for number in numbers)],
        cwd=workshop.REPOSITORY, capture_output=True, text=True, check=True, timeout=seconds + _SPARE_S,
    )  # fmt: skip
    rate, p50_us = (float(word) for word in finished.stdout.split())
    return Measured(rate, round(rate * seconds), 1e6 / rate, p50_us)


def candidates(most_rows: int, cores: int, *, bounded: bool = False) -> list[RawSetting]:
    """What is tried: batches up to the rows that are in flight, the cores used by runs or within a run.

    `bounded`: runs at once have no more rows together than are in flight.
    """
    batches = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= most_rows][-4:]
    threads = sorted({(1, 1), (cores, 1), (1, cores)})
    settings = [RawSetting(batch, *pair) for batch, pair in product(batches, threads)]
    return [one for one in settings if not bounded or one.batch * one.request_threads <= most_rows]


def best_setting(
    settings: Sequence[RawSetting], merit: Callable[[RawSetting], float]
) -> tuple[RawSetting, dict[str, float]]:
    """The setting with the greatest merit, and what that of each is."""
    merits = {setting: merit(setting) for setting in settings}
    return max(merits, key=lambda setting: merits[setting]), {str(setting): merits[setting] for setting in settings}


def _loop(model: Path, setting: RawSetting, seconds: float, per_second: float) -> tuple[float, float]:
    """Rows per second, and the median of the runs' times in microseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.graph_threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = sample_inputs(read(model), setting.batch)
    times: list[float] = []
    session.run(None, feeds)  # the first is slow
    began = time.perf_counter()
    threads = [
        threading.Thread(target=_run, args=(session, feeds, began, began + seconds, per_second, times))
        for _ in range(setting.request_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) * setting.batch / (time.perf_counter() - began), statistics.median(times) * 1e6


def _run(
    session: Any, feeds: dict[str, Any], began: float, end: float, per_second: float, times: list[float]
) -> None:  # fmt: skip
    while (start := time.perf_counter()) < end:
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
        if per_second:
            time.sleep(-(time.perf_counter() - began) % (1 / per_second))


if __name__ == "__main__":
    file, *rest = sys.argv[1:]
    print(*_loop(Path(file), RawSetting(*(int(number) for number in rest[:3])), float(rest[3]), float(rest[4])))
