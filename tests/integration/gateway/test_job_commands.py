"""What a person types about jobs, queues and tenants, against a real gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog.testing
from click.testing import Result

from modelyard.cli.output import Exit
from modelyard.cli.watching import TAIL
from modelyard.gateway.application import Gateway, open_gateway
from modelyard.v1.training_job_pb2 import TrainingProgress
from support.command import Command
from support.gateway import GatewayClient, gateway_client, gateway_settings, update_of
from support.grpc_server import serve
from support.identity import Identity
from support.registry import RegistryClient


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The gateway's log would mix with what the command prints in the same process."""
    with structlog.testing.capture_logs():
        yield


@dataclass(frozen=True)
class Shell:
    """An administrator at a terminal."""

    command: Command

    async def __call__(self, *arguments: str) -> Result:
        """`modelyard …`, beside the gateway in this event loop."""
        return await asyncio.to_thread(self.command.run, *arguments)


@pytest.fixture
def shell(served: tuple[Gateway, str], identity: Identity) -> Shell:
    """Beside the gateway."""
    return Shell(Command({"MODELYARD_ADDRESS": served[1], "MODELYARD_TOKEN": identity.token(), "COLUMNS": "200"}))


async def test_a_tenants_share_is_set_and_shown(shell: Shell) -> None:
    changed = await shell("tenants", "set", "blue", "--weight", "2.5", "--max-running", "8")
    assert changed.exit_code == 0
    for arguments in (("tenants", "show", "tenants/blue"), ("tenants", "list")):
        rows = [line.split() for line in (await shell(*arguments)).stdout.splitlines()]
        assert ["blue", "2.5", "0", "8", "0"] in [row[:5] for row in rows]


async def test_what_a_service_refuses_is_one_line_with_the_field_and_what_it_expects(
    shell: Shell, admin: GatewayClient
) -> None:
    refused = await shell("tenants", "set", "blue", "--weight", "1000")
    (line,) = refused.stderr.splitlines()
    assert refused.exit_code == Exit.USAGE
    assert line.startswith("error: tenant.weight: ")
    assert "1000" in line


async def test_a_queue_that_is_not_there_is_named_with_those_that_are(shell: Shell, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    refused = await shell("train", "submit", str(spec), "--queue", "tpu")
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: training_job.scheduling.queue: ")
    assert "tpu" in line


async def test_a_submitted_job_is_listed_and_explained(shell: Shell, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    name = (await shell("train", "submit", str(spec), "--priority", "3", "--max-wait", "2h")).stdout.strip()
    assert name.startswith("trainingJobs/")
    listed = (await shell("train", "list")).stdout
    assert "QUEUED" in listed
    assert "waits for 0:0" in listed
    explained = (await shell("train", "explain", name)).stdout
    assert f"{name} is QUEUED" in explained
    assert "NO_WORKER" in explained
    queues = (await shell("queues", "list")).stdout.splitlines()
    assert queues[1].split()[1] == "1"  # that one waits in the default queue
    assert "no worker has reported" in (await shell("workers", "list")).stderr


async def test_a_job_is_paused_and_goes_on(shell: Shell, admin: GatewayClient) -> None:
    name = (await admin.submit()).name
    assert "is PAUSED" in (await shell("train", "pause", name)).stdout
    watched = await shell("train", "watch", name)
    assert watched.exit_code == Exit.PAUSED
    assert f"modelyard train resume {name.rpartition('/')[2]}" in watched.stderr
    assert "PAUSED" in (await shell("train", "explain", name)).stdout
    assert "is QUEUED" in (await shell("train", "resume", name)).stdout
    refused = await shell("train", "preempt", name)
    assert refused.exit_code == Exit.CONFLICT
    assert len(refused.stderr.splitlines()) == 1


async def test_who_comes_late_sees_attempts_and_curve_and_the_newest_lines(shell: Shell, admin: GatewayClient) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    course = [
        update_of(progress=TrainingProgress(epoch=epoch, max_epochs=400, step=epoch, training_loss=1 / epoch))
        for epoch in range(1, 401)
    ]
    old = [update_of(log_line="an old line")] * 400
    await admin.report(name, 1, 1, update_of(state="RUNNING"), *course, *old, update_of(log_line="the newest line"))
    attempts = (await shell("train", "attempts", name)).stdout.splitlines()
    assert attempts[1].split()[:2] == ["1", "host/1"]
    assert " runs" in attempts[1]
    points = json.loads((await shell("train", "progress", name, "--points", "10", "--json")).stdout)
    assert 5 <= len(points) <= 10
    assert points[-1]["progress"]["epoch"] == 400
    await admin.cancel(name)
    await admin.finish(name, 1, cancelled={})
    watched = (await shell("train", "watch", name)).stderr
    assert "earlier events are not shown" in watched
    assert watched.count("the newest line") == 1
    assert watched.count("an old line") < TAIL


async def test_a_gateway_that_restarts_costs_a_watcher_nothing(
    sqlite_url: str, registry_address: str, registry: RegistryClient, identity: Identity, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/gateway.sock"
    settings = gateway_settings(identity, tmp_path, database_url=sqlite_url, registry_address=registry_address)

    @asynccontextmanager
    async def started() -> AsyncIterator[GatewayClient]:
        async with (
            open_gateway(settings) as gateway,
            serve(gateway.service(), identity, listen=address),
            gateway_client(address, identity.token()) as client,
        ):
            yield client

    command = Command({"MODELYARD_ADDRESS": address, "MODELYARD_TOKEN": identity.token(), "COLUMNS": "200"})
    async with started() as gateway:
        name = (await gateway.submit()).name
        await gateway.claim(name)
        await gateway.report(name, 1, 1, update_of(state="RUNNING"), update_of(log_line="line 1"))
        watching = command.start("train", "watch", name)
        told = await asyncio.to_thread(_read_until, watching, "line 1")
    async with started() as gateway:
        await gateway.report(name, 1, 3, update_of(log_line="line 2"))
        await gateway.cancel(name)
        await gateway.finish(name, 1, cancelled={})
        stdout, stderr = await asyncio.to_thread(watching.communicate, timeout=60)
    told += stderr
    assert (watching.returncode, stdout) == (Exit.CANCELLED, "")
    assert [told.count(f"line {number}") for number in (1, 2)] == [1, 1]
    assert told.index("line 1") < told.index("reconnecting") < told.index("connected again") < told.index("line 2")


def _read_until(process: object, text: str) -> str:
    told = ""
    while text not in told:
        line = process.stderr.readline()  # type: ignore[attr-defined]
        assert line, told
        told += line
    return told


SPEC = """
dataset: datasets/table
model: models/table
task: REGRESSION
target_column: y
network: {layers: [{linear: {outputs: 1}}]}
optimizer: {learning_rate: 0.01, adam: {}}
max_epochs: 5
"""
