"""Watching over gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import model_pb2
from modelyard.v1 import model_service_pb2 as pb
from support.identity import Identity
from support.registry import RegistryClient, running_registry


async def changes(registry: RegistryClient, after_revision: int = 0) -> AsyncGenerator[pb.WatchModelsResponse]:
    """What a pod is told, without heartbeats."""
    first = True
    async for message in registry.models.WatchModels(pb.WatchModelsRequest(after_revision=after_revision, pod="p")):
        if first or message.models:
            yield message
        first = False


def told(message: pb.WatchModelsResponse) -> dict[str, dict[str, int]]:
    """Aliases by model; checks that exactly the versions are there that they point to."""
    for model in message.models:
        assert {version.model_version.version for version in model.versions} == set(model.aliases.values())
    return {model.name: dict(model.aliases) for model in message.models}


async def delete(registry: RegistryClient, alias: str, model: str = "models/m") -> None:
    await registry.models.DeleteModelAlias(pb.DeleteModelAliasRequest(name=f"{model}/aliases/{alias}"))


async def test_a_pod_is_told_what_to_serve_with_digest_and_signature(registry: RegistryClient) -> None:
    watching = changes(registry)
    empty = await anext(watching)
    assert (empty.snapshot, list(empty.models)) == (True, [])
    await registry.create_version(weight=1)
    version = await registry.create_version(weight=2, alias="live", labels={"left": "out"})
    message = await anext(watching)
    assert (message.snapshot, told(message)) == (False, {"models/m": {"live": 2}})
    assert message.revision > empty.revision
    served = message.models[0].versions[0].model_version
    for field in ("name", "digest", "size_bytes", "inputs", "outputs", "opset_version", "ir_version", "create_time"):
        assert getattr(served, field) == getattr(version, field), field
    await watching.aclose()


async def test_every_kind_of_change_reaches_pods_of_every_replica(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    await registry.create_version(weight=1, alias="live")
    await registry.create_version(weight=2)
    async with running_registry(settings, identity, "service") as replica:
        watchers = [changes(registry), changes(replica)]
        for watching in watchers:
            assert told(await anext(watching)) == {"models/m": {"live": 1}}
        steps: list[tuple[Callable[[], Any], dict[str, int]]] = [
            (lambda: registry.set_alias(2), {"live": 2}),
            (lambda: replica.set_alias(1, name="models/m/aliases/canary"), {"live": 2, "canary": 1}),
            (replica.roll_back, {"live": 1, "canary": 1}),
            (lambda: delete(registry, "live"), {"canary": 1}),
            (lambda: delete(replica, "canary"), {}),
        ]
        for call, expected in steps:
            await call()
            for watching in watchers:
                assert told(await anext(watching)) == {"models/m": expected}
        for watching in watchers:
            await watching.aclose()


async def test_a_pod_resumes_at_another_replica_without_a_gap(
    registry: RegistryClient, settings: RegistrySettings, identity: Identity
) -> None:
    await registry.create_version("models/a", alias="live")
    watching = changes(registry)
    revision = (await anext(watching)).revision
    await watching.aclose()
    await registry.create_version("models/b", alias="live")
    async with running_registry(settings, identity, "service") as replica:
        watching = changes(replica, revision)
        message = await anext(watching)
        assert (message.snapshot, told(message)) == (False, {"models/b": {"live": 1}})
        await watching.aclose()


@pytest.mark.parametrize("after_revision", [0, 1_000_000])
async def test_a_new_pod_and_one_from_another_time_get_a_snapshot(
    registry: RegistryClient, after_revision: int
) -> None:
    for model in ("models/a", "models/b"):
        await registry.create_version(model, alias="live")
    await delete(registry, "live", "models/a")
    watching = changes(registry, after_revision)
    message = await anext(watching)
    assert (message.snapshot, told(message)) == (True, {"models/b": {"live": 1}})
    await watching.aclose()


async def test_a_change_of_the_serving_settings_reaches_pods(registry: RegistryClient) -> None:
    await registry.create_version(weight=1, alias="live")
    watching = changes(registry)
    assert not (await anext(watching)).models[0].HasField("serving")
    model = model_pb2.Model(name="models/m", serving=model_pb2.ServingConfig(runners=3))
    await registry.models.UpdateModel(pb.UpdateModelRequest(model=model))
    message = await anext(watching)
    assert told(message) == {"models/m": {"live": 1}}
    assert message.models[0].serving.runners == 3
    await watching.aclose()
