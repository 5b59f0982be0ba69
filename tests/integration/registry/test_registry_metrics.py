"""What the registry tells of itself, on both databases."""

from __future__ import annotations

import asyncio

from modelyard.v1 import model_service_pb2 as pb
from support.documentation import documented, types_told
from support.registry import RegistryClient
from support.scraping import Scrape, lint, told_by
from support.waiting import eventually


async def told(registry: RegistryClient) -> Scrape:
    return await told_by(registry.registry.service().metrics["registry"])


async def test_uploads_count_until_they_are_complete(registry: RegistryClient) -> None:
    assert (await told(registry)).value("modelyard_registry_uploads_open") == 0
    upload = await registry.start(b"some content")
    assert (await told(registry)).value("modelyard_registry_uploads_open") == 1
    await registry.write(upload, b"some content")
    assert (await told(registry)).value("modelyard_registry_uploads_open") == 0


async def test_changes_are_counted_and_told_to_those_who_watch(registry: RegistryClient) -> None:
    before = (await told(registry)).value("modelyard_registry_revision")
    watching = registry.models.WatchModels(pb.WatchModelsRequest(pod="p"))
    await watching.read()
    assert (await told(registry)).value("modelyard_registry_watchers") == 1
    await registry.create_version(alias="live")
    assert (await told(registry)).value("modelyard_registry_revision") > before

    async def caught_up() -> bool:
        return (await told(registry)).value("modelyard_registry_revision_lag") == 0

    await eventually(caught_up)
    watching.cancel()

    async def nobody_watches() -> bool:
        return (await told(registry)).value("modelyard_registry_watchers") == 0

    await eventually(nobody_watches)


async def test_what_is_told_is_what_the_documentation_says_in_good_form(registry: RegistryClient) -> None:
    answer = await told(registry)
    assert await asyncio.to_thread(lint, answer.text) == []
    ours = {name: kind for name, kind in documented().items() if name.startswith("modelyard_registry_")}
    assert types_told(answer) == ours
