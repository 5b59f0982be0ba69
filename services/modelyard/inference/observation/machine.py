"""The machine under the pod, under Triton's names: processor and memory of the whole host, as /proc tells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

KIBIBYTE = 1024


class MachineMetrics:
    """Processor time since the last time somebody asked, and memory now (proc(5))."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Raises OSError where there is no /proc."""
        self._proc = proc
        self._idle, self._total = self._ticks()

    async def metrics(self) -> Iterable[Metric]:
        """See `modelyard.core.metrics.MetricsSource`."""
        memory = self._memory()
        total = memory["MemTotal"]
        return (
            GaugeMetricFamily("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", self._utilization()),
            GaugeMetricFamily("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", total),
            GaugeMetricFamily(
                "nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", total - memory["MemAvailable"]
            ),
        )

    def _utilization(self) -> float:
        idle, total = self._ticks()
        idled, passed = idle - self._idle, total - self._total
        self._idle, self._total = idle, total
        return 1 - idled / passed if passed > 0 else 0.0

    def _ticks(self) -> tuple[int, int]:
        """Clock ticks of all processors since the machine started: idle ones, and all."""
        first, _, _ = (self._proc / "stat").read_text().partition("\n")
        # user nice system idle iowait irq softirq steal; guest time is part of user time.
        ticks = [int(field) for field in first.split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    def _memory(self) -> Mapping[str, int]:
        """Bytes by name."""
        lines = (line.split() for line in (self._proc / "meminfo").read_text().splitlines())
        return {name.rstrip(":"): int(value) * KIBIBYTE for name, value, *_ in lines}
