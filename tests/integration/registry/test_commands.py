"""`modelyard models …` against a registry: what people and scripts are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from google.protobuf.duration_pb2 import Duration
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.core.channels import aio_channel, fixed_token
from modelyard.v1 import model_service_pb2 as pb
from modelyard.v1 import pod_pb2, pod_service_pb2
from support.identity import Identity
from support.registry import RegistryClient
from support.registry_program import RegistryProgram
from support.waiting import eventually

_State = pod_pb2.PodVersion


@dataclass
class Shell:
    """Somebody at a terminal, beside a registry with a model of three versions, 1 of them live."""

    registry: RegistryClient
    environment: dict[str, str]

    async def run(self, *arguments: str) -> Result:
        """`modelyard models …`."""
        command = ["models", *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env=self.environment)

    async def pod_says(self, version: int, **facts: object) -> None:
        """A pod reports this version."""
        told = pod_pb2.PodVersion(name=f"models/m/versions/{version}", **facts)  # type: ignore[arg-type]
        pod = pod_pb2.Pod(name="pods/a", display_name="host/1", revision=10**9, versions=[told])
        await self.registry.pods.ReportPod(pod_service_pb2.ReportPodRequest(pod=pod))

    async def live(self) -> int:
        """What `live` points to."""
        request = pb.GetModelAliasRequest(name="models/m/aliases/live")
        return (await self.registry.models.GetModelAlias(request)).version


@pytest.fixture
async def shell(identity: Identity, tmp_path: Path) -> AsyncIterator[Shell]:
    # A process of its own: the command's output must not be mixed with the registry's log.
    with RegistryProgram(tmp_path, identity) as program:
        async with aio_channel(program.address, fixed_token(identity.token())) as channel:
            yield await with_versions(RegistryClient(channel), program.address, identity)


async def with_versions(registry: RegistryClient, address: str, identity: Identity) -> Shell:
    for number in (1, 2, 3):
        await registry.create_version(weight=number, alias="live" if number == 1 else "")
    environment = {"MODELYARD_ADDRESS": address, "MODELYARD_TOKEN": identity.token("developer"), "COLUMNS": "200"}
    return Shell(registry, environment)


async def promoted(shell: Shell) -> bool:
    return await shell.live() == 2


SERVING = {
    "state": _State.STATE_SERVING, "digest": "ab" * 32, "aliases": ["live"], "load_time": Duration(nanos=12_000_000)
}  # fmt: skip
BROKEN = {"state": _State.STATE_FAILED, "reason": "no graph [at all]", "broken": True}


async def test_promoting_shows_every_pod_and_ends_when_all_serve(shell: Shell) -> None:
    running = asyncio.create_task(shell.run("promote", "m", "2", "--reason", "better"))
    await eventually(lambda: promoted(shell))
    await shell.pod_says(2, **SERVING)
    result = await running
    assert result.exit_code == 0, result.output
    assert "m live → 2, served by 1 pod\n" in result.stdout
    assert "host/1" in result.stderr
    assert "serving" in result.stderr
    assert "abababababab, loaded in 12 ms\n" in result.stderr
    pods = await shell.run("pods", "m")
    assert "host/1" in pods.stdout
    assert "12 ms" in pods.stdout
    assert "better" in (await shell.run("history", "m")).stdout


async def test_programs_get_the_receipt_as_one_document(shell: Shell) -> None:
    await shell.pod_says(2, **SERVING)
    result = await shell.run("promote", "m", "2", "--json")
    receipt = json.loads(result.stdout)
    assert (receipt["served"], receipt["model_alias"]["version"]) == (True, "2")
    assert [pod["state"] for pod in receipt["pods"]] == ["STATE_SERVING"]


async def test_a_broken_version_is_exit_code_1_and_says_why(shell: Shell) -> None:
    running = asyncio.create_task(shell.run("promote", "m", "2"))
    await eventually(lambda: promoted(shell))
    await shell.pod_says(2, **BROKEN)
    result = await running
    assert result.exit_code == 1
    receipt, error = result.stderr.strip().splitlines()
    assert receipt.split() == ["host/1", "failed", "no", "graph", "[at", "all]"]
    assert "cannot be served: host/1: no graph [at all]" in error
    assert "is back where it was" in result.stderr
    assert await shell.live() == 1


async def test_without_pods_it_is_exit_code_5_and_the_alias_has_moved(shell: Shell) -> None:
    result = await shell.run("promote", "m", "2", "--wait", "0")
    assert (result.exit_code, await shell.live()) == (5, 2)
    assert "no pod is alive" in result.stderr
    assert (await shell.run("promote", "m", "3", "--no-wait")).exit_code == 0
    assert await shell.live() == 3
    assert "no pod is alive" in (await shell.run("pods")).stderr


async def test_traffic_is_set_shown_and_rolled_back(shell: Shell) -> None:
    result = await shell.run("traffic", "m", "--canary", "2=12.5", "--shadow", "3", "--sticky-key", "x-user")
    assert (result.exit_code, result.stdout) == (0, "m live → 1, 12.5 % 2, by x-user, shadow 3\n")
    assert "live: 1, 12.5 % 2, by x-user, shadow 3" in (await shell.run("show", "m")).stdout
    report = await shell.run("shadow", "m")
    assert "version 3 in the shadow of version 1" in report.stdout
    assert (await shell.run("rollback", "m")).stdout == "m live → 1\n"
    assert (await shell.run("shadow", "m")).exit_code == 3
    assert "12.5 % 2" in (await shell.run("history", "m")).stdout
    for wrong in ("2", "two=1", "2=200"):
        assert (await shell.run("traffic", "m", "--canary", wrong)).exit_code == 2
    assert "expected VERSION=PERCENT, as in 2=10" in (await shell.run("traffic", "m", "--canary", "2")).stderr


async def test_settings_are_set_one_by_one_and_reset(shell: Shell) -> None:
    first = await shell.run("configure", "m", "--runners", "2", "--batching", "off")
    assert first.stdout == "m: runners 2, batching off\n"
    second = await shell.run("configure", "m", "--queue-size", "7")
    assert second.stdout == "m: queue_size 7, runners 2, batching off\n"
    assert "served with queue_size 7, runners 2, batching off" in (await shell.run("show", "m")).stdout
    assert (await shell.run("configure", "m", "--reset")).stdout == "m: each pod decides by itself\n"
    assert (await shell.run("configure", "m")).exit_code == 2
    assert (await shell.run("configure", "m", "--runners", "999")).exit_code == 2
