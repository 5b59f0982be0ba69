"""Reasons to stop, and the bell that brings one of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelyard_workers.bell import Bell
from modelyard_workers.interruptions import Interrupted, Interruption, Interruptions


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def test_without_a_reason_work_goes_on(bell: Bell) -> None:
    interruptions = Interruptions(bell)
    interruptions.check()
    assert interruptions.current() is None
    assert not interruptions.hopeless()


def test_the_strongest_reason_counts_in_whatever_order_they_come(bell: Bell) -> None:
    interruptions = Interruptions(bell)
    bell.ring()
    assert interruptions.current() is Interruption.SHUTDOWN
    interruptions.add(Interruption.STALE, "another attempt")
    interruptions.add(Interruption.CANCELLED, "too late")
    assert interruptions.current() is Interruption.STALE
    assert interruptions.message == "another attempt"
    with pytest.raises(Interrupted) as raised:
        interruptions.check()
    assert raised.value.reason is Interruption.STALE


def test_a_cancelled_job_is_still_worth_telling_about_and_for_a_moment_when_the_worker_stops(
    bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    interruptions = Interruptions(bell)
    interruptions.add(Interruption.CANCELLED)
    assert not interruptions.hopeless()
    bell.ring()
    assert not interruptions.hopeless()
    monkeypatch.setattr("modelyard_workers.interruptions.GOODBYE_S", 0.0)
    another = Interruptions(bell)
    another.add(Interruption.CANCELLED)
    assert another.hopeless()


def test_a_bell_is_heard_by_every_process_forked_before_it_rings() -> None:
    program = """
import os
from modelyard_workers.bell import Bell
bell = Bell()
children = [os.fork() or os._exit(0 if bell.rung(30) else 1) for _ in range(2)]
bell.ring()
print([os.waitpid(child, 0)[1] for child in children], bell.rung())
"""
    # In a process of its own: this one has threads by now.
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "[0, 0] True"
