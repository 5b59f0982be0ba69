"""`modelyard train watch`, against a real gRPC server whose job does what the test says."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from modelyard.cli.output import Exit
from modelyard.cli.watching import TAIL, WHOLE_HISTORY
from modelyard.v1 import training_service_pb2 as pb
from support.command import Command
from support.scripted_training import Script
from support.waiting import eventually_sync

ENDS = [
    ("SUCCEEDED", {"model_version": "models/houses/versions/3"}, Exit.OK, "succeeded"),
    ("FAILED", {"failure_reason": "FAILURE_REASON_DIVERGED", "message": "the loss is nan"}, Exit.FAILED,
     "failed: DIVERGED: the loss is nan"),
    ("CANCELLED", {}, Exit.CANCELLED, "cancelled"),
    ("PAUSED", {}, Exit.PAUSED, "paused before its first checkpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "more", "code", "told"), ENDS, ids=[end[0] for end in ENDS])
def test_how_a_job_ended_is_told_and_is_the_exit_code(
    script: Script, command: Command, state: str, more: dict[str, str], code: Exit, told: str
) -> None:
    script.enter("RUNNING")
    script.enter(state, **more)
    result = command.run("train", "watch", "j1")
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout.strip() == more.get("model_version", "")


def test_the_metrics_stand_beside_the_baselines(script: Script, command: Command) -> None:
    evaluation = script.training.job.evaluation
    evaluation.metrics["r2"], evaluation.baseline_metrics["r2"] = 0.51234, 0.4567
    evaluation.baseline, evaluation.test_rows = "linear least squares [ridge]", 67
    script.enter("SUCCEEDED", model_version="models/houses/versions/3")
    told = command.run("train", "watch", "j1").stderr
    assert re.search(r"on 67 test rows +this model +linear least squares \[ridge\]\n +r2 +0\.5123 +0\.4567", told)


def test_a_server_that_restarts_costs_no_line_and_repeats_none(script: Script, command: Command) -> None:
    with command.start("train", "watch", "j1") as watching:
        script.enter("RUNNING")
        script.log("line 1")
        eventually_sync(lambda: len(script.watches()) == 1)
        script.server.stop()
        script.log("line 2")
        script.server.start()
        eventually_sync(lambda: len(script.watches()) == 2)
        script.log("line 3")
        script.enter("SUCCEEDED", model_version="models/houses/versions/3")
        stdout, stderr = watching.communicate(timeout=60)
    assert (watching.returncode, stdout) == (0, "models/houses/versions/3\n")
    assert re.findall(r"line \d", stderr) == ["line 1", "line 2", "line 3"]
    assert "connection lost, reconnecting" in stderr
    assert "connected again" in stderr


def test_who_comes_late_is_shown_the_curve_and_the_attempts_and_not_every_event(
    script: Script, command: Command
) -> None:
    job = script.training.job
    for number in range(WHOLE_HISTORY + 1):
        script.log(f"old line {number}")
    job.attempt = 2
    script.training.attempts += [
        {"attempt": 2, "worker": "b/1"}, {"attempt": 1, "worker": "a/1", "end_cause": "END_CAUSE_WORKER_LOST"},
    ]  # fmt: skip
    script.enter("FAILED")
    told = command.run("train", "watch", "j1").stderr
    assert "earlier events are not shown" in told
    assert "attempt 1 on a/1: worker lost" in told
    assert len(re.findall("old line", told)) == TAIL - 1
    assert script.watches() == [job.last_sequence - TAIL]
    assert any(isinstance(one, pb.ListTrainingProgressRequest) for one in script.training.requests)


def test_programs_get_every_event_on_a_line_or_those_behind_one(script: Script, command: Command) -> None:
    script.log("[brackets] and :smile:")
    script.enter("CANCELLED")
    result = command.run("train", "watch", "j1", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == Exit.CANCELLED
    assert [int(event["sequence"]) for event in events] == [1, 2, 3]
    assert events[1]["log_line"]["text"] == "[brackets] and :smile:"
    behind = command.run("train", "watch", "j1", "--json", "--after", "2").stdout.splitlines()
    assert [json.loads(line)["sequence"] for line in behind] == ["3"]


def test_why_it_waits_is_told_while_it_waits(script: Script, command: Command) -> None:
    script.training.explanation.reasons.add(kind=2, message="both workers of gpu are busy")
    with command.start("train", "watch", "j1") as watching:
        assert watching.stderr is not None
        eventually_sync(lambda: "both workers of gpu are busy" in watching.stderr.readline())
        script.enter("CANCELLED")
        watching.communicate(timeout=60)


def test_a_pause_can_be_sat_through(script: Script, command: Command) -> None:
    with command.start("train", "watch", "j1", "--through-pauses") as watching:
        script.enter("PAUSED")
        assert watching.stderr is not None
        eventually_sync(lambda: "paused" in watching.stderr.readline())
        script.enter("QUEUED")
        script.enter("CANCELLED")
        watching.communicate(timeout=60)
    assert watching.returncode == Exit.CANCELLED


def test_an_attempt_that_ends_is_told_with_its_cause_and_what_follows(script: Script, command: Command) -> None:
    script.happen(attempt=1, attempt_start={"worker": "a/1"})
    script.happen(attempt_end={"cause": "END_CAUSE_WORKER_LOST", "message": "no report for 45 s", "retried": True})
    script.happen(attempt=2, attempt_start={"worker": "b/1", "checkpoint": {"epoch": 4, "step": 1200}})
    script.happen(checkpoint={"epoch": 5, "step": 1500, "size_bytes": 2_000_000})
    script.enter("CANCELLED")
    told = command.run("train", "watch", "j1").stderr
    assert "attempt 1 on a/1, from the beginning" in told
    assert "attempt 1 ended: worker lost: no report for 45 s; tried again at once" in told
    assert "attempt 2 on b/1, from the checkpoint at step 1,200 (epoch 4)" in told
    assert "checkpoint saved at step 1,500 (epoch 5), 2.0 MB" in told


def test_what_a_trainer_prints_cannot_steer_the_terminal(script: Script, command: Command) -> None:
    script.log("\x1b[2J\x07 \x9b31m cleared?")
    script.enter("CANCELLED")
    told = command.run("train", "watch", "j1").stderr
    assert "cleared?" in told
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", told)


def test_a_job_that_is_not_there(command: Command) -> None:
    result = command.run("train", "watch", "j2")
    assert result.exit_code == Exit.NOT_FOUND
    assert result.stderr.splitlines() == ["error: trainingJobs/j2 does not exist (NOT_FOUND)"]


def test_a_terminal_gets_a_picture(script: Script, command: Command) -> None:
    """Curve, bar and figures, drawn over and over, and in the end the outcome below them."""
    script.enter("RUNNING")
    for epoch in range(1, 21):
        script.train(epoch, of=40, remaining={"seconds": 100})
    script.log("a line above the picture")
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environment = {key: value for key, value in command.environment.items() if key != "COLUMNS"}
    command_line = [sys.executable, "-m", "modelyard.cli", "train", "watch", "j1"]
    surroundings = os.environ | environment | {"TERM": "xterm-256color"}
    with subprocess.Popen(command_line, env=surroundings, stdout=subprocess.DEVNULL, stderr=writing) as watching:
        os.close(writing)
        drawn = read_until(reading, "a line above the picture")
        drawn += read_until(reading, "epoch 20/40")
        script.enter("SUCCEEDED", model_version="models/houses/versions/3")
        drawn += read_until(reading, None)
        assert watching.wait(30) == 0
    os.close(reading)
    assert re.search("[\u2801-\u28ff]{3}", drawn)
    assert "━━━" in drawn
    assert "at most 1:40 left" in drawn
    assert drawn.index("a line above the picture") < drawn.rindex("epoch 20/40") < drawn.rindex("succeeded")
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # the cursor is back


def read_until(descriptor: int, text: str | None) -> str:
    """What the terminal is sent until `text` comes, or until its end."""
    found = b""
    while text is None or text.encode() not in found:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # a pseudo-terminal whose program has ended
            chunk = b""
        if not chunk:
            break
        found += chunk
    return found.decode(errors="replace")
