"""Aliases that send a share of their callers elsewhere, over gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

import grpc
import pytest

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import model_pb2
from modelyard.v1 import model_service_pb2 as pb
from support.registry import RegistryClient, refusal
from support.registry_rows import add_versions

LIVE = "models/m/aliases/live"


def traffic(*split: tuple[int, float], shadow: int = 0, sticky_key: str = "") -> model_pb2.Traffic:
    weighted = [model_pb2.WeightedVersion(version=version, percent=percent) for version, percent in split]
    message = model_pb2.Traffic(split=weighted, sticky_key=sticky_key)
    if shadow:
        message.shadow.version, message.shadow.percent = shadow, 100
    return message


async def move(
    registry: RegistryClient, version: int, wanted: model_pb2.Traffic | None = None, **fields: str
) -> model_pb2.ModelAlias:
    alias = model_pb2.ModelAlias(name=LIVE, version=version, traffic=wanted)
    return await registry.models.SetModelAlias(pb.SetModelAliasRequest(model_alias=alias, **fields))


async def served(registry: RegistryClient) -> pb.ServedModel:
    watching = registry.models.WatchModels(pb.WatchModelsRequest())
    message = await anext(aiter(watching))
    watching.cancel()
    return message.models[0]


@pytest.fixture
async def with_versions(registry: RegistryClient, settings: RegistrySettings) -> RegistryClient:
    """A model with four versions, rows only; 1 is live."""
    await add_versions(settings, 4)
    await registry.set_alias(1)
    return registry


async def test_an_alias_names_its_split_and_shadow_and_pods_hear_of_all_versions(with_versions: RegistryClient) -> None:
    wanted = traffic((2, 10), (3, 0.25), shadow=4, sticky_key="x-user")
    moved = await move(with_versions, 1, wanted)
    assert (moved.version, moved.traffic) == (1, wanted)
    assert await with_versions.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE)) == moved
    model = await served(with_versions)
    assert {version.model_version.version for version in model.versions} == {1, 2, 3, 4}
    assert (dict(model.aliases), dict(model.traffic)) == ({"live": 1}, {"live": wanted})


async def test_every_move_says_all_of_the_traffic(with_versions: RegistryClient) -> None:
    canary = await move(with_versions, 1, traffic((2, 10)))
    assert await move(with_versions, 1, traffic((2, 10))) == canary
    full = await move(with_versions, 2)
    assert not full.HasField("traffic")
    assert {version.model_version.version for version in (await served(with_versions)).versions} == {2}


async def test_a_new_version_by_a_job_ends_the_split(with_versions: RegistryClient) -> None:
    await move(with_versions, 1, traffic((2, 10)))
    await with_versions.create_version(weight=5, alias="live", training_job="trainingJobs/j")
    alias = await with_versions.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE))
    assert (alias.version, alias.HasField("traffic")) == (5, False)


async def test_rolling_back_is_one_call_and_the_history_tells_all(with_versions: RegistryClient) -> None:
    await move(with_versions, 1, traffic((2, 10)))
    await move(with_versions, 1, traffic((2, 50)))
    await move(with_versions, 2)
    back = [await with_versions.roll_back(LIVE) for _ in range(3)]
    assert [(alias.version, alias.traffic) for alias in back] == [
        (1, traffic((2, 50))), (1, traffic((2, 10))), (1, model_pb2.Traffic())
    ]  # fmt: skip
    answer = await with_versions.models.ListModelAliasChanges(pb.ListModelAliasChangesRequest(parent="models/m"))
    second = answer.changes[-2]
    assert (second.previous_version, second.version) == (1, 1)
    assert (second.HasField("previous_traffic"), second.traffic) == (False, traffic((2, 10)))


async def test_a_repeated_request_with_other_traffic_is_another_request(with_versions: RegistryClient) -> None:
    first = await move(with_versions, 1, traffic((2, 10)), request_id="r")
    assert await move(with_versions, 1, traffic((2, 10)), request_id="r") == first
    assert (await refusal(move(with_versions, 1, traffic((2, 20)), request_id="r"))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (traffic((2, 0)), "split[0].percent"),
        (traffic((2, -5)), "split[0].percent"),
        (traffic((2, 100.01)), "split[0].percent"),
        (traffic((2, 0.001)), "split[0].percent"),
        (traffic((2, float("nan"))), "split[0].percent"),
        (traffic((2, 60), (3, 60)), "split"),
        (traffic(*((number, 1) for number in range(2, 11))), "split"),
        (traffic((1, 10)), "split[0].version"),
        (traffic((2, 10), (2, 10)), "split[1].version"),
        (traffic((0, 10)), "split[0].version"),
        (traffic((2, 10), shadow=2), "shadow.version"),
        (traffic((2, 10), sticky_key="X-User"), "sticky_key"),
        (traffic((2, 10), sticky_key="x-user-bin"), "sticky_key"),
        (traffic((2, 10), sticky_key="grpc-timeout"), "sticky_key"),
        (traffic((2, 10), sticky_key="authorization"), "sticky_key"),
    ],
)
async def test_traffic_that_makes_no_sense_is_refused(
    sqlite_registry: RegistryClient, wanted: model_pb2.Traffic, field: str
) -> None:
    error = await refusal(move(sqlite_registry, 1, wanted))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [f"model_alias.traffic.{field}"]


async def test_traffic_goes_to_versions_that_exist(with_versions: RegistryClient) -> None:
    for wanted in (traffic((9, 10)), traffic(shadow=9)):
        error = await refusal(move(with_versions, 1, wanted))
        assert (error.code, error.metadata["resource"]) == (grpc.StatusCode.NOT_FOUND, "models/m/versions/9")
