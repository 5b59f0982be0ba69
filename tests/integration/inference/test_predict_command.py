"""`modelyard predict` and `status` against a pod."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from support import graphs
from support.identity import Identity
from support.inference_pod import Pod
from support.served_registry import ServedRegistry
from support.waiting import eventually

ROWS = json.dumps({"x": [[1, 2]]})


async def test_metadata_goes_along(registry: ServedRegistry, pod: Pod, identity: Identity) -> None:
    registry.add("scale", graphs.scale(2))
    await pod.until_ready("scale")
    command = [sys.executable, "-m", "modelyard.cli", "predict", "scale", "--data", ROWS, "--json"]
    command += ["--metadata", "x-user=a=b", "--metadata", "x-empty="]
    environment = os.environ | {"MODELYARD_ADDRESS": pod.address, "MODELYARD_TOKEN": identity.token("predictor")}
    # A process of its own: the pod's log would be mixed into its output.
    result = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outputs"] == {"y": [[2, 4]]}


@pytest.mark.parametrize("pair", ["x-user", "=value", "X-User=a", "x-user-bin=a", "grpc-timeout=1S", "x user=a"])
def test_metadata_that_cannot_be_sent_is_refused(pair: str) -> None:
    environment = {"MODELYARD_ADDRESS": "127.0.0.1:1", "MODELYARD_TOKEN": "none"}  # never called
    result = CliRunner().invoke(app, ["predict", "scale", "--data", ROWS, "--metadata", pair], env=environment)
    assert result.exit_code == 2
    assert "expected NAME=VALUE" in result.stderr


async def test_the_status_says_why_a_version_is_not_served(
    registry: ServedRegistry, pod: Pod, identity: Identity
) -> None:
    registry.add("scale", graphs.scale(2))
    registry.add("broken", b"no graph")
    await pod.until_ready("scale")
    await eventually(lambda: _says(pod, identity, "broken", "UNAVAILABLE", "not a whole ONNX file"))


async def _says(pod: Pod, identity: Identity, *words: str) -> bool:
    command = [sys.executable, "-m", "modelyard.cli", "status"]
    environment = os.environ | {"MODELYARD_ADDRESS": pod.address, "MODELYARD_TOKEN": identity.token("predictor")}
    result = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    return any(all(word in line for word in words) for line in result.stdout.splitlines())
