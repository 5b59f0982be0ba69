"""What a pod counts beside its versions' statistics: reasons, tenants, the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modelyard.core import errors
from modelyard.inference.observation.failures import failure_reason
from modelyard.inference.observation.machine import MachineMetrics
from modelyard.inference.serving.tenants import ANONYMOUS, OTHERS, Tenants
from support.scraping import told_by


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ResourceExhausted("full"), "REJECTED"),
        (errors.DeadlineExceeded("late"), "REJECTED"),
        (asyncio.CancelledError(), "CANCELED"),
        (errors.Cancelled("gone"), "CANCELED"),
        (RuntimeError("the runtime"), "BACKEND"),
        (errors.InvalidFields.one("inputs", "wrong"), "OTHER"),
        (errors.Unavailable("stopping"), "OTHER"),
    ],
    ids=repr,
)
def test_every_failure_has_one_of_tritons_reasons(error: BaseException, reason: str) -> None:
    assert failure_reason(error) == reason


def test_tenants_beyond_the_limit_share_one_series() -> None:
    tenants = Tenants(limit=2)
    for name in ("", "blue", "red", "green", "blue"):
        tenants.of(name).requests += 1
    tenants.of("red").failures["OTHER"] += 1
    requests, _rows, failures, *_histograms = tenants.tell()
    counts = {sample.labels["tenant"]: sample.value for sample in requests.samples}
    assert counts == {ANONYMOUS: 1, "blue": 2, OTHERS: 2}
    assert [(sample.labels, sample.value) for sample in failures.samples] == [
        ({"tenant": OTHERS, "reason": "OTHER"}, 1)
    ]


def test_the_times_of_tenants_are_told_apart() -> None:
    tenants = Tenants()
    tenants.of("blue").queue.observe(30_000_000)  # nanoseconds
    tenants.of("red").queue.observe(2_000_000)
    queue = next(family for family in tenants.tell() if family.name == "modelyard_inference_tenant_queue_seconds")
    within = {sample.labels["tenant"]: sample.value for sample in queue.samples if sample.labels.get("le") == "0.025"}
    assert within == {"blue": 0, "red": 1, OTHERS: 0}


def write_proc(folder: Path, *ticks: int) -> None:
    (folder / "stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4\n")
    (folder / "meminfo").write_text(
        "MemTotal:       1000 kB\nMemFree:   100 kB\nMemAvailable:    400 kB\nHugePages_Total: 0\n"
    )


async def test_the_machine_is_told_as_proc_has_it(tmp_path: Path) -> None:
    write_proc(tmp_path, 100, 0, 100, 800, 0, 0, 0, 0, 50, 0)
    machine = MachineMetrics(tmp_path)
    write_proc(tmp_path, 150, 0, 125, 850, 75, 0, 0, 0, 60, 0)
    told = await told_by(machine)
    # Of 200 ticks 50 were idle and 75 waited for a disk; a guest's time is in its host's already.
    assert told.value("nv_cpu_utilization") == pytest.approx(75 / 200)
    assert told.value("nv_cpu_memory_total_bytes") == 1000 * 1024
    assert told.value("nv_cpu_memory_used_bytes") == 600 * 1024
    assert (await told_by(machine)).value("nv_cpu_utilization") == 0
