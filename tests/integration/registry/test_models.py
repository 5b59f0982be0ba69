"""Models and versions over gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import shutil
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import model_pb2, training_job_pb2
from modelyard.v1 import model_service_pb2 as pb
from support.external_graphs import LOCATION, external
from support.identity import Identity
from support.onnx_graphs import onnx_bytes
from support.registry import RegistryClient, refusal, running_registry

Code = grpc.StatusCode


async def version_numbers(registry: RegistryClient, parent: str = "models/m") -> list[int]:
    answer = await registry.models.ListModelVersions(pb.ListModelVersionsRequest(parent=parent))
    return [version.version for version in answer.model_versions]


async def create_model(registry: RegistryClient, model_id: str, request_id: str = "", **fields: Any) -> model_pb2.Model:
    request = pb.CreateModelRequest(model_id=model_id, model=model_pb2.Model(**fields), request_id=request_id)
    return await registry.models.CreateModel(request)


async def test_a_model_is_created_once(registry: RegistryClient) -> None:
    fields: dict[str, Any] = {
        "display_name": "Prices",
        "description": "Of houses.\nIn euros.",
        "labels": {"team": "blue"},
    }
    model = await create_model(registry, "prices", **fields)
    assert (model.name, model.display_name, model.description) == ("models/prices", "Prices", "Of houses.\nIn euros.")
    assert (dict(model.labels), model.tenant, model.latest_version) == ({"team": "blue"}, "default", 0)
    assert model.HasField("create_time")
    assert await create_model(registry, "prices", **fields) == model
    error = await refusal(create_model(registry, "prices", display_name="Others"))
    assert (error.code, error.reason) == (Code.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert error.metadata["resource"] == "models/prices"


async def test_versions_count_up_from_one_and_change_the_models_etag(registry: RegistryClient) -> None:
    first = await registry.create_version(weight=1)
    before = await registry.models.GetModel(pb.GetModelRequest(name="models/m"))
    second = await registry.create_version(weight=2)
    after = await registry.models.GetModel(pb.GetModelRequest(name="models/m"))
    assert (first.version, second.name) == (1, "models/m/versions/2")
    assert (before.latest_version, after.latest_version) == (1, 2)
    assert before.etag != after.etag


async def test_the_signature_comes_from_the_graph_and_the_origin_from_the_caller(registry: RegistryClient) -> None:
    origin = model_pb2.ModelVersion(
        training_job="trainingJobs/abc1", dataset="datasets/d", dataset_digest="1" * 64, spec_digest="2" * 64,
        evaluation=training_job_pb2.Evaluation(metrics={"r2": 0.5}, baseline_metrics={"log_loss": math.inf}),
        parity=training_job_pb2.ParityReport(rows=256, batch_sizes=[1, 2, 7]),
        library_versions={"torch": "2.13.0"}, labels={"stage": "test"},
        version=77, name="models/x/versions/9", opset_version=3,
    )  # fmt: skip
    digest = await registry.upload(onnx_bytes())
    origin.digest = digest
    request = pb.CreateModelVersionRequest(parent="models/m", model_version=origin)
    version = await registry.models.CreateModelVersion(request)
    assert (version.name, version.version, version.digest) == ("models/m/versions/1", 1, digest)
    assert [(tensor.name, list(tensor.shape)) for tensor in version.inputs] == [("x", [-1, 2])]
    assert (version.opset_version, version.ir_version, version.size_bytes) == (20, 10, len(onnx_bytes()))
    for field in ("training_job", "dataset", "dataset_digest", "spec_digest", "evaluation", "parity"):
        assert getattr(version, field) == getattr(origin, field), field
    assert dict(version.library_versions) == {"torch": "2.13.0"}
    found = await registry.models.GetModelVersion(pb.GetModelVersionRequest(name="models/m/versions/1"))
    assert found == version


async def test_numbers_have_no_gap_and_no_twin_under_concurrency(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    digest = await registry.upload(onnx_bytes())
    async with running_registry(settings, identity) as replica:
        versions = await asyncio.gather(
            *(one.create_version(digest=digest, alias="live") for one in (registry, replica) for _ in range(10))
        )
    assert sorted(version.version for version in versions) == list(range(1, 21))
    model = await registry.models.GetModel(pb.GetModelRequest(name="models/m"))
    assert (model.latest_version, dict(model.aliases)) == (20, {"live": 20})


async def test_one_request_makes_one_version_however_often_it_comes(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    digest = await registry.upload(onnx_bytes())
    async with running_registry(settings, identity) as replica:
        versions = await asyncio.gather(
            *(
                one.create_version(digest=digest, alias="live", request_id="job1")
                for one in (registry, replica)
                for _ in range(5)
            )
        )
    assert {version.name for version in versions} == {"models/m/versions/1"}
    assert await version_numbers(registry) == [1]
    error = await refusal(registry.create_version(weight=3, alias="live", request_id="job1"))
    assert (error.code, error.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await version_numbers(registry) == [1]


async def test_a_repeated_request_is_answered_without_reading_the_blob_again(
    registry: RegistryClient, settings: RegistrySettings
) -> None:
    version = await registry.create_version(request_id="job1")
    shutil.rmtree(settings.blob_url.removeprefix("file://"))
    again = await registry.create_version(digest=version.digest, request_id="job1")
    assert again == version


async def test_a_request_id_belongs_to_its_tenant(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    digest = await registry.upload(onnx_bytes())
    await registry.create_version("models/a", digest=digest, request_id="r")
    async with running_registry(settings, identity, "developer", tenant="blue") as blue:
        version = await blue.create_version("models/b", digest=digest, request_id="r")
    assert version.name == "models/b/versions/1"


async def test_a_version_is_found_by_number_and_by_alias(registry: RegistryClient) -> None:
    await registry.create_version(weight=1, alias="live")
    await registry.create_version(weight=2)
    for name, number in (("models/m/versions/live", 1), ("models/m/versions/2", 2)):
        found = await registry.models.GetModelVersion(pb.GetModelVersionRequest(name=name))
        assert found.version == number
    for name in ("models/m/versions/3", "models/m/versions/canary", "models/n/versions/1"):
        error = await refusal(registry.models.GetModelVersion(pb.GetModelVersionRequest(name=name)))
        assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, name)


async def test_versions_and_models_are_listed_page_by_page(registry: RegistryClient) -> None:
    digest = await registry.upload(onnx_bytes())
    for _ in range(5):
        await registry.create_version("models/b", digest=digest)
    for model_id in ("a", "c"):
        await create_model(registry, model_id)
    pages, token = [], ""
    while True:
        request = pb.ListModelVersionsRequest(parent="models/b", page_size=2, page_token=token)
        answer = await registry.models.ListModelVersions(request)
        pages.append([version.version for version in answer.model_versions])
        token = answer.next_page_token
        if not token:
            break
    assert pages == [[5, 4], [3, 2], [1]]
    first = await registry.models.ListModels(pb.ListModelsRequest(page_size=2))
    second = await registry.models.ListModels(pb.ListModelsRequest(page_token=first.next_page_token))
    assert [model.name for model in first.models] == ["models/a", "models/b"]
    assert ([model.name for model in second.models], second.next_page_token) == (["models/c"], "")


async def test_tenants_do_not_see_each_other(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    digest = await registry.upload(onnx_bytes())
    async with running_registry(settings, identity, "developer", tenant="blue") as blue:
        await blue.create_version("models/theirs", digest=digest, alias="live")
        await registry.create_version("models/mine", digest=digest, alias="live")
        listed = await blue.models.ListModels(pb.ListModelsRequest())
        assert [model.name for model in listed.models] == ["models/theirs"]
        for call in (
            blue.models.GetModel(pb.GetModelRequest(name="models/mine")),
            blue.models.GetModelVersion(pb.GetModelVersionRequest(name="models/mine/versions/1")),
            blue.models.GetModelVersion(pb.GetModelVersionRequest(name="models/mine/versions/live")),
            blue.models.ListModelVersions(pb.ListModelVersionsRequest(parent="models/mine")),
            blue.models.GetModelAlias(pb.GetModelAliasRequest(name="models/mine/aliases/live")),
            blue.models.ListModelAliasChanges(pb.ListModelAliasChangesRequest(parent="models/mine")),
            blue.set_alias(1, name="models/mine/aliases/live"),
            blue.roll_back("models/mine/aliases/live"),
            blue.models.DeleteModelAlias(pb.DeleteModelAliasRequest(name="models/mine/aliases/live")),
        ):
            assert (await refusal(call)).code is Code.NOT_FOUND
        for creation in (create_model(blue, "mine"), blue.create_version("models/mine", digest=digest)):
            assert (await refusal(creation)).code is Code.ALREADY_EXISTS
    everything = await registry.models.ListModels(pb.ListModelsRequest())
    assert [model.tenant for model in everything.models] == ["default", "blue"]
    assert await version_numbers(registry, "models/mine") == [1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (onnx_bytes()[:-10], "cannot be parsed"),
        (b"not a graph at all", "ONNX"),
        (onnx_bytes(opset=6), "loads 7 to 28"),
    ],
)
async def test_a_broken_graph_leaves_no_version_and_no_model(
    registry: RegistryClient, content: bytes, expected: str
) -> None:
    digest = await registry.upload(content)
    error = await refusal(registry.create_version(digest=digest, alias="live"))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_CONTENT")
    assert expected in error.message
    assert (await refusal(registry.models.GetModel(pb.GetModelRequest(name="models/m")))).code is Code.NOT_FOUND


async def test_a_version_of_a_blob_that_is_not_there_is_refused(registry: RegistryClient) -> None:
    error = await refusal(registry.create_version(digest="0" * 64))
    assert (error.reason, error.violations[0].field) == ("INVALID_FIELD", "model_version.digest")
    assert "upload it first" in error.message


async def update_model(registry: RegistryClient, *paths: str, etag: str = "", **fields: Any) -> model_pb2.Model:
    model = model_pb2.Model(name="models/m", etag=etag, **fields)
    request = pb.UpdateModelRequest(model=model, update_mask=FieldMask(paths=paths))
    return await registry.models.UpdateModel(request)


async def test_a_model_is_changed_where_the_mask_says(registry: RegistryClient) -> None:
    await create_model(registry, "m", display_name="old", description="kept", labels={"a": "1"})
    changed = await update_model(registry, "display_name", "labels", display_name="new", description="not this")
    assert (changed.display_name, changed.description, dict(changed.labels)) == ("new", "kept", {})
    implied = await update_model(registry, description="only what is set")
    assert (implied.display_name, implied.description) == ("new", "only what is set")
    replaced = await update_model(registry, "*", display_name="all")
    assert (replaced.display_name, replaced.description) == ("all", "")
    assert len({changed.etag, implied.etag, replaced.etag}) == 3
    assert await update_model(registry, "display_name", display_name="all") == replaced


async def test_an_outdated_etag_changes_nothing(registry: RegistryClient) -> None:
    etag = (await create_model(registry, "m")).etag
    await update_model(registry, "display_name", etag=etag, display_name="first")
    error = await refusal(update_model(registry, "display_name", etag=etag, display_name="second"))
    assert (error.code, error.reason) == (Code.ABORTED, "CONFLICT")
    found = await registry.models.GetModel(pb.GetModelRequest(name="models/m"))
    assert (found.display_name, found.etag) == ("first", error.metadata["etag"])


async def test_serving_settings_are_kept_one_by_one(registry: RegistryClient) -> None:
    created = await create_model(registry, "m", serving={"runners": 2, "batching": "BATCHING_OFF"})
    assert (created.serving.runners, created.serving.batching) == (2, model_pb2.ServingConfig.BATCHING_OFF)
    changed = await update_model(registry, "serving.queue_size", serving={"queue_size": 7, "runners": 99})
    assert (changed.serving.queue_size, changed.serving.runners) == (7, 2)
    reset = await update_model(registry, "serving")
    assert not reset.HasField("serving")


@pytest.mark.parametrize(
    ("serving", "field"),
    [
        ({"runners": -1}, "model.serving.runners"),
        ({"max_batch_size": 65_537}, "model.serving.max_batch_size"),
        ({"queue_size": 1_000_001}, "model.serving.queue_size"),
        ({"graph_threads": 1025}, "model.serving.graph_threads"),
        ({"batching": 9}, "model.serving.batching"),
    ],
)
async def test_serving_settings_out_of_bounds_are_refused(
    sqlite_registry: RegistryClient, serving: dict[str, int], field: str
) -> None:
    await create_model(sqlite_registry, "m")
    for call in (update_model(sqlite_registry, serving=serving), create_model(sqlite_registry, "n", serving=serving)):
        error = await refusal(call)
        assert [violation.field for violation in error.violations] == [field]


async def test_a_mask_that_names_no_field_is_refused(sqlite_registry: RegistryClient) -> None:
    await create_model(sqlite_registry, "m")
    error = await refusal(update_model(sqlite_registry, "tenant", "serving.speed", "displayName"))
    assert [violation.field for violation in error.violations] == ["update_mask"] * 2
    assert (await refusal(registry_update_of_nobody(sqlite_registry))).code is Code.NOT_FOUND


async def registry_update_of_nobody(registry: RegistryClient) -> model_pb2.Model:
    return await registry.models.UpdateModel(pb.UpdateModelRequest(model=model_pb2.Model(name="models/nobody")))


async def test_weights_in_a_file_of_their_own_are_part_of_the_version(registry: RegistryClient) -> None:
    graph, weights = external()
    data = model_pb2.ExternalData(digest=await registry.upload(weights), location=LOCATION)
    version = model_pb2.ModelVersion(digest=await registry.upload(graph), external_data=data)
    request = pb.CreateModelVersionRequest(parent="models/m", model_version=version, alias="live")
    created = await registry.models.CreateModelVersion(request)
    assert created.external_data == model_pb2.ExternalData(digest=data.digest, location=LOCATION, size_bytes=16)
    watch = registry.models.WatchModels(pb.WatchModelsRequest())
    snapshot = await watch.read()
    watch.cancel()
    (served,) = snapshot.models[0].versions
    assert served.model_version.external_data == created.external_data
    for wrong, path in (
        (model_pb2.ExternalData(digest=data.digest, location="../x"), "external_data.location"),
        (model_pb2.ExternalData(digest=data.digest, location="model.onnx"), "external_data.location"),
        (model_pb2.ExternalData(digest="x", location=LOCATION), "external_data.digest"),
        (model_pb2.ExternalData(digest="0" * 64, location=LOCATION), "external_data.digest"),
    ):
        version.external_data.CopyFrom(wrong)
        request = pb.CreateModelVersionRequest(parent="models/m", model_version=version)
        error = await refusal(registry.models.CreateModelVersion(request))
        assert [violation.field for violation in error.violations] == [f"model_version.{path}"]
    version.external_data.CopyFrom(model_pb2.ExternalData(digest=version.digest, location="other.bin"))
    request = pb.CreateModelVersionRequest(parent="models/m", model_version=version)
    error = await refusal(registry.models.CreateModelVersion(request))
    assert error.reason == "MALFORMED_CONTENT"
