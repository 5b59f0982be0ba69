"""The kernel's count of processes killed for want of memory, from files as each kind of kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard_workers.memory_kills import count_memory_kills

V1 = "12:cpuset:/a\n5:cpu,memory:/docker/abc\n0::/\n"


def machine(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    machine(
        tmp_path,
        proc__self__cgroup="0::/job.slice\n",
        sys__fs__cgroup__jobDOTslice__memoryDOTevents="low 0\nmax 7\noom 3\noom_kill 2\n",
        proc__vmstat="oom_kill 99\n",
    )
    assert count_memory_kills(tmp_path) == 2


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    oom_control = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
    machine(tmp_path, proc__self__cgroup=V1, sys__fs__cgroup__memory__docker__abc__memoryDOToom_control=oom_control)
    assert count_memory_kills(tmp_path) == 4


@pytest.mark.parametrize("cgroup", ["0::/\n", V1, ""])
def test_without_a_group_that_counts_the_whole_machine_is_looked_at(tmp_path: Path, cgroup: str) -> None:
    machine(tmp_path, proc__self__cgroup=cgroup, proc__vmstat="nr_free_pages 5\noom_kill 1\n")
    assert count_memory_kills(tmp_path) == 1


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    assert count_memory_kills(tmp_path) is None


def test_this_machine_answers() -> None:
    count = count_memory_kills()
    assert count is None or count >= 0
