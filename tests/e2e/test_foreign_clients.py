"""Programs that are not ours, against the door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelyard import RemoteError
from modelyard.client import blobs
from modelyard.client.connection import Connection, Endpoint, translated
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_service_pb2 import CreateModelRequest, CreateModelVersionRequest
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub
from support import graphs
from support.foreign_venv import triton_python
from support.local_cluster import UpCluster
from support.waiting import eventually_sync

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


EXTENSIONS = Path(__file__).parents[1] / "integration" / "inference" / "triton_extensions.py"


@pytest.fixture(scope="module")
def scale(cluster: UpCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A served model that doubles two numbers."""
    path = tmp_path_factory.mktemp("graphs") / "scale.onnx"
    path.write_bytes(graphs.scale(2))
    connection = Connection(Endpoint(cluster.address, cluster.token))
    stub = ModelServiceStub(connection.channel)
    request = CreateModelVersionRequest(parent="models/scale", alias="live")
    request.model_version.digest = blobs.upload_file(ArtifactServiceStub(connection.channel), path)
    with translated():
        stub.CreateModel(CreateModelRequest(model_id="scale"))
        stub.CreateModelVersion(request)
    connection.close()
    with cluster.client() as client:

        def answered() -> bool:
            try:
                return client.predict("scale", {"x": [[1, 2]]}).version == "1"
            except RemoteError:
                return False

        eventually_sync(answered)
    return "scale"


def seen_by_triton(cluster: UpCluster, part: str) -> Any:
    """What the stock client saw of a part of the protocol, through the door."""
    finished = subprocess.run(
        [triton_python(), EXTENSIONS, cluster.address, cluster.token, part],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_the_stock_client_streams_through_the_door(cluster: UpCluster, scale: str) -> None:
    seen = seen_by_triton(cluster, "stream")
    good = [number for number in range(20) if number not in (3, 7)]
    assert seen["answers"] == [[[2 * number, 2 * number + 2]] for number in good]
    assert [index for index, _ in seen["errors"]] == [3, 7]
    assert seen["ended"] == "StatusCode.NOT_FOUND"
    assert [entry[:2] for entry in seen_by_triton(cluster, "aio_stream")] == [
        [str(number), [[2 * number, 2 * number + 2]]] for number in range(10)
    ]


def test_the_stock_client_uses_shared_memory_through_the_door(cluster: UpCluster, scale: str) -> None:
    seen = seen_by_triton(cluster, "shared_memory")
    assert (seen["answer"], seen["streamed"]) == ([[2, 4], [10, 12]], [[14, 16], [18, 20]])


def test_grpcurl_streams_through_the_door(cluster: UpCluster, scale: str) -> None:
    request = {
        "model_name": "scale",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}],
    }
    requests = "".join(json.dumps({**request, "id": name}) for name in ("a", "b"))
    finished = subprocess.run(
        [
            BIN / "grpcurl", "-plaintext", "-H", f"authorization: Bearer {cluster.token}", "-d", "@", cluster.address,
            "inference.GRPCInferenceService/ModelStreamInfer",
        ],
        input=requests, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    replies = json.loads("[" + finished.stdout.replace("}\n{", "},{") + "]")
    assert [reply["inferResponse"]["id"] for reply in replies] == ["a", "b"], finished.stdout
