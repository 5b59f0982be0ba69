"""Programs that are not ours, against the door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.local_cluster import UpCluster

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
PROTOS = Path(__file__).parents[2] / "protos"


def grpcurl(cluster: UpCluster, *arguments: str) -> str:
    headers = ["-H", f"authorization: Bearer {cluster.token}"]
    # The last argument but the address comes behind it in grpcurl's order: options, address, verb or method.
    *options, verb = arguments
    finished = subprocess.run(
        [BIN / "grpcurl", "-plaintext", *headers, *options, cluster.address, *verb.split(" ")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_grpcurl_lists_every_public_service_and_no_internal_one(cluster: UpCluster) -> None:
    services = set(grpcurl(cluster, "list").split())
    assert {
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "modelyard.v1.AccessService",
        "modelyard.v1.ArtifactService",
        "modelyard.v1.DatasetService",
        "modelyard.v1.ModelService",
        "modelyard.v1.PodService",
        "modelyard.v1.TrainingService",
    } <= services
    assert "modelyard.v1.WorkerService" not in services


def test_grpcurl_describes_messages_of_both_packages(cluster: UpCluster) -> None:
    assert "max_epochs" in grpcurl(cluster, "describe modelyard.v1.TrainingSpec")
    assert "raw_input_contents" in grpcurl(cluster, "describe inference.ModelInferRequest")


def test_grpcurl_calls_each_service(cluster: UpCluster) -> None:
    assert "training_jobs" in grpcurl(cluster, "-emit-defaults", "modelyard.v1.TrainingService/ListTrainingJobs")
    assert "models" in grpcurl(cluster, "-emit-defaults", "modelyard.v1.ModelService/ListModels")
    assert json.loads(grpcurl(cluster, "inference.GRPCInferenceService/ServerReady")) == {"ready": True}
    assert json.loads(grpcurl(cluster, "grpc.health.v1.Health/Check")) == {"status": "SERVING"}


def test_buf_curl_speaks_grpc_and_grpc_web_with_our_protos(cluster: UpCluster) -> None:
    for protocol in ("grpc", "grpcweb"):
        finished = subprocess.run(
            [
                BIN / "buf", "curl", "--schema", PROTOS, "--protocol", protocol, "--http2-prior-knowledge",
                "--header", f"authorization: Bearer {cluster.token}",
                f"http://{cluster.address}/modelyard.v1.AccessService/GetCaller",
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert "ROLE_ADMIN" in finished.stdout
