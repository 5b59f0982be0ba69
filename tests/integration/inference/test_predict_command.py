"""`modelyard predict` against a pod."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import Result
from typer.testing import CliRunner

from modelyard.cli.main import app
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod
from support.served_registry import ServedRegistry


async def predict(pod: Pod, identity: Identity, *arguments: str) -> Result:
    environment = {"MODELYARD_ADDRESS": pod.address, "MODELYARD_TOKEN": identity.token("predictor")}
    command = ["predict", "scale", "--data", "[[1, 2]]", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)


async def test_metadata_goes_along(registry: ServedRegistry, pod: Pod, identity: Identity) -> None:
    registry.add("scale", graphs.scale(2))
    await pod.until_ready("scale")
    result = await predict(pod, identity, "--metadata", "x-user=a=b", "--metadata", "x-empty=", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["outputs"] == {"y": [[2, 4]]}


@pytest.mark.parametrize("pair", ["x-user", "=value", "X-User=a", "x-user-bin=a", "grpc-timeout=1S", "x user=a"])
async def test_metadata_that_cannot_be_sent_is_refused(pod: Pod, identity: Identity, pair: str) -> None:
    result = await predict(pod, identity, "--metadata", pair)
    assert result.exit_code != 0
    assert "expected NAME=VALUE" in result.stderr
