"""What people type about jobs: the requests that it becomes, and what is printed."""

from __future__ import annotations

import json
import re

from modelyard.cli.output import Exit
from modelyard.training import recipes
from support.command import Command
from support.scripted_training import Script

RECIPE = recipes.builtin_recipe_names()[0]


def test_where_and_how_long_a_job_may_wait_and_run_is_sent(script: Script, command: Command) -> None:
    options = "--queue gpu --priority 7 --max-wait 90m --max-run 2d --retries 3 --name night"
    result = command.run("train", "submit", "--recipe", RECIPE, *options.split())
    assert (result.exit_code, result.stdout) == (0, "trainingJobs/j1\n")
    (request,) = script.training.requests
    scheduling = request.training_job.scheduling
    assert (scheduling.queue, scheduling.priority, scheduling.max_retries) == ("gpu", 7, 3)
    assert (scheduling.max_queue_time.seconds, scheduling.max_run_time.seconds) == (90 * 60, 2 * 86400)
    assert request.training_job.display_name == "night"


def test_without_options_nothing_is_said_of_scheduling(script: Script, command: Command) -> None:
    assert command.run("train", "submit", "--recipe", RECIPE).exit_code == 0
    (request,) = script.training.requests
    assert not request.training_job.HasField("scheduling")


def test_a_time_that_is_none_is_refused_in_one_line(command: Command) -> None:
    result = command.run("train", "submit", "--recipe", RECIPE, "--max-run", "2 days")
    assert result.exit_code == Exit.USAGE
    (line,) = result.stderr.splitlines()
    assert line == "error: expected for --max-run a time such as 45s, 30m, 12h or 90d; got '2 days'"


def test_explaining_names_reasons_figures_and_the_estimated_start(script: Script, command: Command) -> None:
    explanation = script.training.explanation
    explanation.reasons.add(kind="KIND_WORKERS_BUSY", message="both workers of gpu are busy")
    explanation.jobs_ahead, explanation.tenant_jobs_ahead = 3, 1
    explanation.waited.FromSeconds(130)
    explanation.estimated_start_time.FromSeconds(4_000_000_000)
    script.training.job.scheduling.queue = "gpu"
    told = command.run("train", "explain", "j1").stdout
    assert "trainingJobs/j1 is QUEUED in queue gpu, for 2:10" in told
    assert "both workers of gpu are busy (WORKERS_BUSY)" in told
    assert "3 jobs go first, 1 of them your tenant's" in told
    assert re.search(r"starts at about \d\d:\d\d", told)


def test_what_cannot_be_estimated_is_not_made_up(script: Script, command: Command) -> None:
    script.training.explanation.reasons.add(kind="KIND_NO_WORKER", message="no worker of gpu has reported lately")
    assert "when it starts cannot be told" in command.run("train", "explain", "j1").stdout


def test_the_list_shows_how_long_a_job_waits_and_how_far_one_is(script: Script, command: Command) -> None:
    script.training.job.scheduling.queue = "gpu"
    waiting = command.run("train", "list").stdout
    assert re.search(r"j1 +QUEUED +gpu +– .* waits for \d+ d \d\d:\d\d", waiting)
    script.happen(attempt=2, attempt_start={"worker": "b/1"})
    script.enter("RUNNING")
    script.train(3, of=40, remaining={"seconds": 62})
    assert re.search(r"j1 +RUNNING +gpu +2 .*epoch 3/40, at most 1:02 left", command.run("train", "list").stdout)


def test_attempts_show_who_for_how_long_and_why_it_ended(script: Script, command: Command) -> None:
    script.training.attempts.append(
        {
            "attempt": 1, "worker": "a/1", "node": "a", "start_time": {"seconds": 1_700_000_000},
            "end_time": {"seconds": 1_700_000_065}, "end_cause": "END_CAUSE_WORKER_LOST", "message": "[silent]",
            "resumed_step": 1200,
        }
    )  # fmt: skip
    told = command.run("train", "attempts", "j1").stdout
    assert re.search(r"1 +a/1 +a +\S+ \S+ +1:05 +1,200 +worker lost +\[silent\]", told)


def test_progress_prints_as_many_points_as_asked_for(script: Script, command: Command) -> None:
    script.training.points += [
        {"attempt": 1, "progress": {"epoch": epoch, "max_epochs": 9, "step": epoch, "training_loss": 0.5}}
        for epoch in range(1, 10)
    ]
    result = command.run("train", "progress", "j1", "--points", "4", "--json")
    assert [point["progress"]["epoch"] for point in json.loads(result.stdout)] == [6, 7, 8, 9]
    table = command.run("train", "progress", "j1", "--points", "2").stdout.splitlines()
    assert len(table) == 3
    assert "9/9" in table[-1]


def test_events_after_a_number_are_for_programs_only(command: Command) -> None:
    assert command.run("train", "watch", "j1", "--after", "3").exit_code == Exit.USAGE


def test_a_tenant_with_nothing_to_change_is_refused_before_anybody_is_asked(command: Command) -> None:
    result = command.run("tenants", "set", "blue")
    assert result.exit_code == Exit.USAGE
    assert "--weight" in result.stderr
