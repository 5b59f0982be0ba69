"""`python -m modelyard.gateway` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core.channels import fixed_token, sync_channel
from modelyard.core.health import SERVING
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1 import training_service_pb2_grpc
from support.identity import Identity
from support.redis_server import RedisServer
from support.waiting import eventually_sync


def _environment(identity: Identity, folder: Path, redis: RedisServer) -> dict[str, str]:
    variables = {
        "LISTEN": f"unix:{folder}/gateway.sock",
        "TOKEN_KEYS_FILE": str(identity.keys_file),
        "SIGNING_KEY_FILE": str(identity.signing_key_file),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/gateway.sqlite",
        "BROKER_URL": redis.url,
        "REGISTRY_ADDRESS": f"unix:{folder}/registry.sock",
        "INFERENCE_ADDRESSES": f"unix:{folder}/a.sock, unix:{folder}/b.sock",
        "DRAIN_DELAY_S": "0",
    }
    return {**os.environ, **{f"MODELYARD_GATEWAY_{name}": value for name, value in variables.items()}}


@contextmanager
def _program(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "modelyard.gateway"], env=environment, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _serves(address: str) -> bool:
    with sync_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == SERVING)


def test_it_serves_until_sigterm_and_leaves_cleanly(identity: Identity, redis: RedisServer, tmp_path: Path) -> None:
    environment = _environment(identity, tmp_path, redis)
    address = environment["MODELYARD_GATEWAY_LISTEN"]
    for _ in range(2):  # the second time on what the first has left
        with _program(environment) as process:
            eventually_sync(lambda: _serves(address))
            with sync_channel(address, fixed_token(identity.token())) as channel:
                stub = training_service_pb2_grpc.TrainingServiceStub(channel)
                assert not stub.ListTrainingJobs(pb.ListTrainingJobsRequest()).training_jobs
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors.decode()
            assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DATABASE_URL", None), ("LEASE_S", "5"), ("INFRASTRUCTURE_RETRIES", "-1"), ("LOG_LEVEL", "LOUD")],
)
def test_wrong_settings_end_it_with_the_name(
    identity: Identity, redis: RedisServer, tmp_path: Path, variable: str, value: str | None
) -> None:
    environment = _environment(identity, tmp_path, redis)
    if value is None:
        del environment[f"MODELYARD_GATEWAY_{variable}"]
    else:
        environment[f"MODELYARD_GATEWAY_{variable}"] = value
    with _program(environment) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert variable.lower() in errors.decode().lower()


def test_it_imports_only_what_it_may() -> None:
    code = "import modelyard.gateway.__main__, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "pyarrow", "obstore", "modelyard_workers"} & set(loaded)
