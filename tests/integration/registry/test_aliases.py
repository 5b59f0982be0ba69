"""Aliases over gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from modelyard.core.errors import RemoteError
from modelyard.v1 import model_service_pb2 as pb
from support.onnx_graphs import onnx_bytes
from support.registry import RegistryClient, refusal

Code = grpc.StatusCode
LIVE = "models/m/aliases/live"


@pytest.fixture
async def with_versions(registry: RegistryClient) -> RegistryClient:
    """A model with four versions and no alias."""
    digest = await registry.upload(onnx_bytes())
    for _ in range(4):
        await registry.create_version(digest=digest)
    return registry


async def history(registry: RegistryClient, alias: str = "") -> list[tuple[str, int, int]]:
    request = pb.ListModelAliasChangesRequest(parent="models/m", alias=alias)
    answer = await registry.models.ListModelAliasChanges(request)
    return [(change.alias, change.previous_version, change.version) for change in answer.changes]


async def test_a_version_comes_with_its_alias_and_the_history_names_job_and_person(registry: RegistryClient) -> None:
    await registry.create_version(weight=1, alias="live", training_job="trainingJobs/j1")
    await registry.create_version(weight=2, alias="live")
    answer = await registry.models.ListModelAliasChanges(pb.ListModelAliasChangesRequest(parent="models/m"))
    newest, oldest = answer.changes
    assert (oldest.sequence, oldest.alias, oldest.previous_version, oldest.version) == (1, "live", 0, 1)
    assert (oldest.actor, oldest.reason) == ("tester", "trainingJobs/j1")
    assert (newest.previous_version, newest.version, newest.sequence) == (1, 2, 2)
    assert newest.HasField("time")


async def test_an_alias_moves_only_for_the_one_who_saw_it_last(with_versions: RegistryClient) -> None:
    seen = await with_versions.set_alias(1, reason="first")
    ends = await asyncio.gather(
        *(with_versions.set_alias(version, etag=seen.etag) for version in (2, 3)), return_exceptions=True
    )
    lost = [RemoteError.from_rpc(end) for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    won = [end for end in ends if not isinstance(end, BaseException)]
    assert [(error.code, error.reason) for error in lost] == [(Code.ABORTED, "CONFLICT")]
    now = await with_versions.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE))
    assert [now] == won
    assert (await refusal(with_versions.set_alias(4, name="models/m/aliases/new", etag="1"))).reason == "CONFLICT"


async def test_setting_an_alias_to_where_it_is_changes_nothing(with_versions: RegistryClient) -> None:
    first = await with_versions.set_alias(1)
    assert await with_versions.set_alias(1) == first
    assert await history(with_versions) == [("live", 0, 1)]


async def test_rolling_back_walks_into_the_past_and_stops_at_its_end(with_versions: RegistryClient) -> None:
    for version in (1, 2, 4):
        await with_versions.set_alias(version)
    assert (await with_versions.roll_back(reason="4 answers nonsense")).version == 2
    assert (await with_versions.roll_back()).version == 1
    error = await refusal(with_versions.roll_back())
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "WRONG_STATE")
    assert (await with_versions.set_alias(3)).version == 3
    assert (await with_versions.roll_back()).version == 1
    answer = await with_versions.models.ListModelAliasChanges(pb.ListModelAliasChangesRequest(parent="models/m"))
    assert [(change.version, change.reason) for change in answer.changes] == [
        (1, "rollback"), (3, ""), (1, "rollback"), (2, "4 answers nonsense"), (4, ""), (2, ""), (1, ""),
    ]  # fmt: skip


async def test_a_repeated_move_or_rollback_is_done_once(with_versions: RegistryClient) -> None:
    await with_versions.set_alias(1)
    moved = [await with_versions.set_alias(2, request_id="move") for _ in range(2)]
    await with_versions.set_alias(3)
    assert moved[0] == moved[1] == await with_versions.set_alias(2, request_id="move")
    rolled = await asyncio.gather(*(with_versions.roll_back(request_id="undo") for _ in range(4)))
    assert {alias.version for alias in rolled} == {2}
    assert await history(with_versions) == [("live", 3, 2), ("live", 2, 3), ("live", 1, 2), ("live", 0, 1)]
    error = await refusal(with_versions.set_alias(4, request_id="move"))
    assert error.reason == "REQUEST_ID_REUSED"


async def test_a_deleted_alias_is_gone_and_its_past_stays(with_versions: RegistryClient) -> None:
    alias = await with_versions.set_alias(1)
    delete = pb.DeleteModelAliasRequest(name=LIVE, etag="999")
    assert (await refusal(with_versions.models.DeleteModelAlias(delete))).reason == "CONFLICT"
    await with_versions.models.DeleteModelAlias(pb.DeleteModelAliasRequest(name=LIVE, etag=alias.etag))
    for call in (
        with_versions.models.GetModelAlias(pb.GetModelAliasRequest(name=LIVE)),
        with_versions.models.DeleteModelAlias(pb.DeleteModelAliasRequest(name=LIVE)),
        with_versions.roll_back(),
    ):
        error = await refusal(call)
        assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, LIVE)
    again = await with_versions.set_alias(2)
    assert again.etag != alias.etag
    assert (await refusal(with_versions.roll_back())).reason == "WRONG_STATE"
    assert await history(with_versions) == [("live", 0, 2), ("live", 1, 0), ("live", 0, 1)]


async def test_the_history_of_one_alias_is_listed_page_by_page(with_versions: RegistryClient) -> None:
    for version in (1, 2, 3):
        await with_versions.set_alias(version)
        await with_versions.set_alias(version, name="models/m/aliases/canary")
    assert await history(with_versions, "canary") == [("canary", 2, 3), ("canary", 1, 2), ("canary", 0, 1)]
    request = pb.ListModelAliasChangesRequest(parent="models/m", alias="live", page_size=2)
    first = await with_versions.models.ListModelAliasChanges(request)
    request.page_token = first.next_page_token
    second = await with_versions.models.ListModelAliasChanges(request)
    assert [change.sequence for change in (*first.changes, *second.changes)] == [5, 3, 1]
    assert second.next_page_token == ""


async def test_an_alias_cannot_point_to_nothing(with_versions: RegistryClient) -> None:
    error = await refusal(with_versions.set_alias(5))
    assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, "models/m/versions/5")
    error = await refusal(with_versions.set_alias(1, name="models/none/aliases/live"))
    assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, "models/none")
