"""What is wrong with a request is told by field, before anything is read or written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import artifact_service_pb2 as artifact_pb
from modelyard.v1 import dataset_pb2, model_pb2
from modelyard.v1 import dataset_service_pb2 as dataset_pb
from modelyard.v1 import model_service_pb2 as model_pb
from support.identity import Identity
from support.registry import RegistryClient, refusal, registry_settings, running_registry

Code = grpc.StatusCode
DIGEST = "0" * 64


@pytest.fixture
async def registry(sqlite_settings: RegistrySettings, identity: Identity) -> AsyncIterator[RegistryClient]:
    async with running_registry(sqlite_settings, identity) as client:
        yield client


def version(**fields: Any) -> model_pb.CreateModelVersionRequest:
    origin = model_pb2.ModelVersion(**{"digest": DIGEST} | fields)
    return model_pb.CreateModelVersionRequest(parent="models/m", model_version=origin)


def dataset(**fields: Any) -> dataset_pb.CreateDatasetRequest:
    given: dict[str, Any] = {"format": dataset_pb2.Dataset.FORMAT_CSV, "digest": DIGEST} | fields
    return dataset_pb.CreateDatasetRequest(dataset_id="d", dataset=dataset_pb2.Dataset(**given))


def alias(name: str = "models/m/aliases/live", **fields: Any) -> model_pb.SetModelAliasRequest:
    return model_pb.SetModelAliasRequest(model_alias=model_pb2.ModelAlias(name=name, **{"version": 1} | fields))


Call = Callable[[RegistryClient], Any]

CASES: list[tuple[Call, str]] = [
    (lambda r: r.models.CreateModel(model_pb.CreateModelRequest(model_id="../etc")), "model_id"),
    (lambda r: r.models.CreateModel(model_pb.CreateModelRequest(model_id="")), "model_id"),
    (lambda r: r.models.CreateModel(model_pb.CreateModelRequest(model_id="a" * 64)), "model_id"),
    (lambda r: r.models.CreateModel(model_pb.CreateModelRequest(model_id="m", request_id="a b")), "request_id"),
    (
        lambda r: r.models.CreateModel(
            model_pb.CreateModelRequest(model_id="m", model=model_pb2.Model(display_name="x" * 201))
        ),
        "model.display_name",
    ),
    (
        lambda r: r.models.CreateModel(
            model_pb.CreateModelRequest(model_id="m", model=model_pb2.Model(description="a\0b"))
        ),
        "model.description",
    ),
    (
        lambda r: r.models.CreateModel(
            model_pb.CreateModelRequest(
                model_id="m", model=model_pb2.Model(labels={f"k{number}": "" for number in range(65)})
            )
        ),
        "model.labels",
    ),
    (lambda r: r.models.GetModel(model_pb.GetModelRequest(name="models/m/versions/1")), "name"),
    (lambda r: r.models.GetModel(model_pb.GetModelRequest(name="/etc/passwd")), "name"),
    (lambda r: r.models.ListModels(model_pb.ListModelsRequest(page_size=-1)), "page_size"),
    (lambda r: r.models.ListModels(model_pb.ListModelsRequest(page_token="xyz")), "page_token"),
    (lambda r: r.models.CreateModelVersion(version(digest="abc")), "model_version.digest"),
    (lambda r: r.models.CreateModelVersion(version(digest="A" * 64)), "model_version.digest"),
    (lambda r: r.models.CreateModelVersion(version(training_job="j")), "model_version.training_job"),
    (lambda r: r.models.CreateModelVersion(version(dataset="d")), "model_version.dataset"),
    (lambda r: r.models.CreateModelVersion(version(dataset_digest="d")), "model_version.dataset_digest"),
    (lambda r: r.models.CreateModelVersion(version(spec_digest="d")), "model_version.spec_digest"),
    (lambda r: r.models.CreateModelVersion(version(labels={"": "x"})), "model_version.labels"),
    (lambda r: r.models.CreateModelVersion(version(labels={"k": "v" * 201})), "model_version.labels[k]"),
    (
        lambda r: r.models.CreateModelVersion(
            model_pb.CreateModelVersionRequest(parent="m", model_version=model_pb2.ModelVersion())
        ),
        "parent",
    ),
    (
        lambda r: r.models.CreateModelVersion(
            model_pb.CreateModelVersionRequest(
                parent="models/m", model_version=model_pb2.ModelVersion(digest=DIGEST), alias="1"
            )
        ),
        "alias",
    ),
    (lambda r: r.models.GetModelVersion(model_pb.GetModelVersionRequest(name="models/m/versions/0")), "name"),
    (lambda r: r.models.GetModelVersion(model_pb.GetModelVersionRequest(name="models/m/versions/-1")), "name"),
    (lambda r: r.models.SetModelAlias(alias("models/m/aliases/1")), "model_alias.name"),
    (lambda r: r.models.SetModelAlias(alias(version=0)), "model_alias.version"),
    (lambda r: r.models.RollbackModelAlias(model_pb.RollbackModelAliasRequest(name="live")), "name"),
    (
        lambda r: r.models.RollbackModelAlias(
            model_pb.RollbackModelAliasRequest(name="models/m/aliases/live", reason="x" * 1001)
        ),
        "reason",
    ),
    (
        lambda r: r.models.ListModelAliasChanges(
            model_pb.ListModelAliasChangesRequest(parent="models/m", alias="../x")
        ),
        "alias",
    ),
    (lambda r: r.models.WatchModels(model_pb.WatchModelsRequest(after_revision=-1)), "after_revision"),
    (lambda r: r.datasets.CreateDataset(dataset(digest="abc")), "dataset.digest"),
    (lambda r: r.datasets.CreateDataset(dataset()), "dataset.digest"),
    (lambda r: r.datasets.CreateDataset(dataset(format=0)), "dataset.format"),
    (lambda r: r.datasets.CreateDataset(dataset(format=99)), "dataset.format"),
    (lambda r: r.datasets.CreateDataset(dataset(display_name="a\nb")), "dataset.display_name"),
    (lambda r: r.datasets.CreateDataset(dataset_pb.CreateDatasetRequest(dataset_id="A")), "dataset_id"),
    (lambda r: r.datasets.GetDataset(dataset_pb.GetDatasetRequest(name="datasets/../x")), "name"),
    (lambda r: r.datasets.ListDatasets(dataset_pb.ListDatasetsRequest(page_token="W10")), "page_token"),
    (lambda r: r.artifacts.StartUpload(artifact_pb.StartUploadRequest(digest="../x")), "digest"),
    (
        lambda r: r.artifacts.StartUpload(artifact_pb.StartUploadRequest(digest=DIGEST, size_bytes=-1)),
        "size_bytes",
    ),
    (lambda r: r.artifacts.GetUpload(artifact_pb.GetUploadRequest(name="uploads/../x")), "name"),
    (lambda r: r.artifacts.WriteUpload(iter([artifact_pb.WriteUploadRequest(name="x")])), "name"),
    (lambda r: r.artifacts.WriteUpload(iter([])), "name"),
    (lambda r: r.artifacts.GetBlob(artifact_pb.GetBlobRequest(digest="/etc/passwd")), "digest"),
    (lambda r: r.artifacts.ReadBlob(artifact_pb.ReadBlobRequest(digest="")), "digest"),
]


async def test_every_bad_field_is_named(registry: RegistryClient) -> None:
    for call, field in CASES:
        error = await refusal(call(registry))
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD"), field
        assert field in {violation.field for violation in error.violations}
        assert all(violation.description for violation in error.violations)


async def test_everything_that_is_wrong_is_told_at_once(registry: RegistryClient) -> None:
    error = await refusal(registry.datasets.CreateDataset(dataset(digest="abc", format=0, display_name="x" * 300)))
    assert {violation.field for violation in error.violations} == {
        "dataset.digest", "dataset.format", "dataset.display_name",
    }  # fmt: skip


async def test_roles_decide_what_may_be_called(identity: Identity, tmp_path: Path) -> None:
    async with running_registry(registry_settings(identity, tmp_path), identity, "viewer") as viewer:
        for call, permission in (
            (viewer.models.CreateModel(model_pb.CreateModelRequest(model_id="m")), "models.write"),
            (viewer.artifacts.StartUpload(artifact_pb.StartUploadRequest(digest=DIGEST)), "artifacts.write"),
            (viewer.models.WatchModels(model_pb.WatchModelsRequest()), "models.watch"),
        ):
            error = await refusal(call)
            assert (error.code, error.metadata["permission"]) == (Code.PERMISSION_DENIED, permission)
        assert list((await viewer.models.ListModels(model_pb.ListModelsRequest())).models) == []
