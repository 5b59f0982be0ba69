"""`modelyard train logs` against a gateway: the lines of every attempt, while the job runs and afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest

from modelyard.gateway.application import Gateway
from modelyard.v1 import worker_service_pb2
from support.gateway import GatewayClient, expire_leases, update_of
from support.identity import Identity

FIRST = "epoch [1/2] :smile: [/bold]"
"""A line that a terminal library would read as markup."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    exit_code: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Shell:
    """Somebody at a terminal."""

    environment: dict[str, str]

    async def logs(self, *arguments: str) -> Result:
        """`modelyard train logs …`."""
        return await self.train("logs", *arguments)

    async def train(self, *arguments: str) -> Result:
        """`modelyard train …`, in a process of its own: its output must not be mixed with the gateway's log."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "modelyard.cli", "train", *arguments,
            env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        stdout, stderr = await process.communicate()
        return Result(process.returncode, stdout.decode(), stderr.decode())


@pytest.fixture
def shell(served: tuple[Gateway, str], identity: Identity) -> Shell:
    """A developer's, beside the gateway."""
    told = {"MODELYARD_ADDRESS": served[1], "MODELYARD_TOKEN": identity.token("developer"), "COLUMNS": "200"}
    return Shell(dict(os.environ) | told)


@pytest.fixture
async def job(served: tuple[Gateway, str], admin: GatewayClient) -> str:
    """A job in its second attempt, each attempt having printed a line."""
    name = (await admin.submit()).name
    for attempt, line in ((1, FIRST), (2, "again")):
        assert (await admin.claim(name)).claimed
        await admin.report(name, attempt, 1, update_of(log_line=line))
        if attempt == 1:
            served[0].leases.end_grace()
            await expire_leases(served[0])
    return name


async def _end(admin: GatewayClient, job: str) -> None:
    reason = "FAILURE_REASON_DIVERGED"
    await admin.finish(job, 2, failed=worker_service_pb2.TrainingFailure(reason=reason, message="the loss is nan"))


async def test_the_lines_of_a_running_job_are_printed_as_they_are(shell: Shell, job: str) -> None:
    result = await shell.logs(job.rpartition("/")[2])
    assert (result.exit_code, result.stdout) == (0, f"{FIRST}\nagain\n")


async def test_one_attempt_alone(shell: Shell, job: str) -> None:
    assert (await shell.logs(job, "--attempt", "2")).stdout == "again\n"


async def test_following_ends_with_the_job(shell: Shell, job: str, admin: GatewayClient) -> None:
    following = asyncio.create_task(shell.logs(job, "--follow"))
    await admin.report(job, 2, 2, update_of(log_line="the last"))
    await _end(admin, job)
    result = await following
    assert (result.exit_code, result.stdout) == (0, f"{FIRST}\nagain\nthe last\n")


async def test_programs_get_time_and_attempt(shell: Shell, job: str, admin: GatewayClient) -> None:
    await _end(admin, job)
    events = [json.loads(line) for line in (await shell.logs(job, "--json")).stdout.splitlines()]
    assert [(event["attempt"], event["log_line"]["text"]) for event in events] == [(1, FIRST), (2, "again")]
    assert all(event["time"] for event in events)


async def test_an_unknown_job_is_not_found(shell: Shell) -> None:
    assert (await shell.logs("0" * 16)).exit_code == 3


async def test_watching_draws_a_line_with_brackets_as_it_is(shell: Shell, job: str, admin: GatewayClient) -> None:
    await _end(admin, job)
    result = await shell.train("watch", job)
    assert result.exit_code == 1
    assert FIRST in result.stderr
