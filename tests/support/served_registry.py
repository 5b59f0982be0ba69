"""A registry for pods: what should be served, over real gRPC, changed by the test; blobs with faults on demand.

The real registry is tested by itself. This one can be away, forget, and lie.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from modelyard.core import errors
from modelyard.core.serving import Service
from modelyard.v1 import artifact_service_pb2_grpc, model_service_pb2_grpc
from modelyard.v1 import model_service_pb2 as pb

from . import graphs
from .artifact_store import ArtifactStore


@dataclass
class ServedRegistry(model_service_pb2_grpc.ModelServiceServicer):
    """Models with versions and aliases. Change them in the event loop that serves; watchers hear of it."""

    store: ArtifactStore = field(default_factory=ArtifactStore)
    models: dict[str, pb.ServedModel] = field(default_factory=dict)
    revision: int = 0
    watches: list[pb.WatchModelsRequest] = field(default_factory=list)
    """Every watch that was begun."""
    away: bool = False
    """Watches are refused, and those that run are ended by `wake`."""
    heartbeat_s: float = 0.2
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _changes: list[str] = field(default_factory=list)

    def add(self, model: str, content: bytes, *, aliases: tuple[str, ...] = ("live",), **facts: Any) -> int:
        """A new version that these aliases point to; answers its number."""
        served = self.models.setdefault(model, pb.ServedModel(name=f"models/{model}"))
        number = max([0, *(v.model_version.version for v in served.versions), *served.aliases.values()]) + 1
        version = served.versions.add().model_version
        try:
            version.CopyFrom(graphs.describe(content))
        except Exception:  # noqa: BLE001 - a graph that is no graph is what the test wants
            version.Clear()
        version.name, version.version = f"models/{model}/versions/{number}", number
        version.digest, version.size_bytes = self.store.put(content), len(content)
        for name, value in facts.items():
            if name == "external_data":
                version.external_data.CopyFrom(value)
            else:
                setattr(version, name, value)
        for alias in aliases:
            served.aliases[alias] = number
        self.changed(model)
        return number

    def point(self, model: str, alias: str, number: int | None) -> None:
        """Moves an alias, or deletes it."""
        served = self.models[model]
        if number is None:
            del served.aliases[alias]
        else:
            served.aliases[alias] = number
        self.changed(model)

    def changed(self, model: str) -> None:
        """Drops what no alias points to and tells the watchers."""
        served = self.models[model]
        kept = [v for v in served.versions if v.model_version.version in served.aliases.values()]
        del served.versions[:]
        served.versions.extend(kept)
        self.revision += 1
        self._changes.append(model)
        self.wake()

    def wake(self) -> None:
        """Has every watcher look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def service(self) -> Service:
        """Ready for serving."""

        def register(server: grpc.aio.Server) -> None:
            artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self.store, server)
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

        return Service(register, ["modelyard.v1.ArtifactService", "modelyard.v1.ModelService"])

    async def WatchModels(self, request: pb.WatchModelsRequest, context: Any) -> AsyncIterator[pb.WatchModelsResponse]:
        self.watches.append(request)
        seen = request.after_revision
        if not seen:
            self._refuse_if_away()
            seen = self.revision
            yield pb.WatchModelsResponse(
                revision=seen, snapshot=True, models=[m for m in self.models.values() if m.versions]
            )
        while True:
            self._refuse_if_away()
            waiter = self._changed
            if seen == self.revision:
                try:
                    async with asyncio.timeout(self.heartbeat_s):
                        await waiter.wait()
                except TimeoutError:
                    yield pb.WatchModelsResponse(revision=seen)
                continue
            names, seen = dict.fromkeys(self._changes[seen:]), self.revision
            yield pb.WatchModelsResponse(revision=seen, models=[self.models[name] for name in names])

    def _refuse_if_away(self) -> None:
        if self.away:
            raise errors.Unavailable("away")


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()
