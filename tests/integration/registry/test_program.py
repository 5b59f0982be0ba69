"""The registry as a program: start, stop, start again on the same data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from modelyard.client.blobs import download_blob, upload_file
from modelyard.core.channels import fixed_token, sync_channel
from modelyard.v1 import artifact_service_pb2_grpc, model_pb2, model_service_pb2, model_service_pb2_grpc
from support.identity import Identity
from support.onnx_graphs import onnx_bytes
from support.registry_program import RegistryProgram


@pytest.fixture
def program(tmp_path: Path, identity: Identity) -> Iterator[RegistryProgram]:
    with RegistryProgram(tmp_path, identity) as program:
        yield program


def publish(channel: grpc.Channel, folder: Path) -> model_pb2.ModelVersion:
    (folder / "model.onnx").write_bytes(onnx_bytes())
    digest = upload_file(artifact_service_pb2_grpc.ArtifactServiceStub(channel), folder / "model.onnx")
    request = model_service_pb2.CreateModelVersionRequest(
        parent="models/m", model_version=model_pb2.ModelVersion(digest=digest), alias="live"
    )
    return model_service_pb2_grpc.ModelServiceStub(channel).CreateModelVersion(request)


def test_a_second_start_on_the_same_data_has_everything(
    program: RegistryProgram, identity: Identity, tmp_path: Path
) -> None:
    token = fixed_token(identity.token())
    with sync_channel(program.address, token) as channel:
        version = publish(channel, tmp_path)
    assert program.terminate() == 0
    program.start()
    with sync_channel(program.address, token) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_service_pb2.GetModelVersionRequest(name="models/m/versions/live")
        assert models.GetModelVersion(request) == version
        download_blob(artifact_service_pb2_grpc.ArtifactServiceStub(channel), version.digest, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == onnx_bytes()


def test_a_stop_ends_watches_at_once_and_leaves_no_process(program: RegistryProgram, identity: Identity) -> None:
    # The grace is 600 s, far above the test's own time limit.
    with sync_channel(program.address, fixed_token(identity.token("service"))) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        watching = models.WatchModels(model_service_pb2.WatchModelsRequest(pod="p"))
        assert next(watching).snapshot
        readers = psutil.Process(program.process.pid).children()
        assert program.terminate() == 0
        with pytest.raises(grpc.RpcError) as raised:
            list(watching)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    psutil.wait_procs(readers, timeout=30)
    assert not any(reader.is_running() for reader in readers)


def test_its_services_are_listed(program: RegistryProgram) -> None:
    with sync_channel(program.address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(stub.ServerReflectionInfo(iter([request])))
    names = {service.name for service in answer.list_services_response.service}
    assert {
        "modelyard.v1.ModelService", "modelyard.v1.DatasetService", "modelyard.v1.ArtifactService",
        "grpc.health.v1.Health",
    } <= names  # fmt: skip


def test_it_imports_only_what_a_registry_may(program: RegistryProgram) -> None:
    # The reader is the one process that touches uploaded content; the program itself stays small.
    maps = Path(f"/proc/{program.process.pid}/maps").read_text()
    for library in ("torch", "onnxruntime", "pyarrow", "onnx_cpp2py_export"):
        assert library not in maps


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BLOB_URL", "memory:///"), ("BLOB_URL", "/var/blobs"), ("PART_BYTES", "0"), ("DATABASE_URL", None)],
)
def test_wrong_settings_end_it_with_the_variables_name(
    tmp_path: Path, identity: Identity, variable: str, value: str | None
) -> None:
    environment = RegistryProgram(tmp_path, identity).environment
    name = f"MODELYARD_REGISTRY_{variable}"
    if value is None:
        del environment[name]
    else:
        environment[name] = value
    ended = subprocess.run(
        [sys.executable, "-m", "modelyard.registry"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert variable.lower() in ended.stderr
    assert not os.path.lexists(tmp_path / "registry.db")
