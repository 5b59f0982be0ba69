"""Models, versions and aliases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.v1 import model_pb2 as model_pb
from modelyard.v1 import model_service_pb2 as pb
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub

from .connection import DEFAULT_TIMEOUT_S, Connection, pages, translated


class ModelsClient:
    """`client.models`. Models are named by id (`diabetes`), not by resource name."""

    def __init__(self, connection: Connection) -> None:
        self._stub = ModelServiceStub(connection.channel)

    def get(self, model: str) -> model_pb.Model:
        """One model."""
        with translated():
            return self._stub.GetModel(pb.GetModelRequest(name=f"models/{model}"), timeout=DEFAULT_TIMEOUT_S)

    def list(self, *, limit: int | None = None) -> Iterator[model_pb.Model]:
        """Models by name, fetched page by page."""

        def fetch(token: str) -> tuple[list[model_pb.Model], str]:
            with translated():
                page = self._stub.ListModels(pb.ListModelsRequest(page_token=token), timeout=DEFAULT_TIMEOUT_S)
            return list(page.models), page.next_page_token

        return pages(fetch, limit)

    def configure(
        self, model: str, serving: model_pb.ServingConfig, *, only: Sequence[str] = (), etag: str = ""
    ) -> model_pb.Model:
        """Sets how pods serve the model: all settings, or `only` those named. What is 0 the pods decide by themselves.

        With `etag` only if nobody has changed the model since it was read.
        """
        paths = [f"serving.{name}" for name in only] or ["serving"]
        request = pb.UpdateModelRequest(
            model=model_pb.Model(name=f"models/{model}", serving=serving, etag=etag),
            update_mask=FieldMask(paths=paths),
            request_id=uuid.uuid4().hex,
        )
        with translated():
            return self._stub.UpdateModel(request, timeout=DEFAULT_TIMEOUT_S)

    def version(self, model: str, version: int | str) -> model_pb.ModelVersion:
        """One version by number or alias."""
        request = pb.GetModelVersionRequest(name=f"models/{model}/versions/{version}")
        with translated():
            return self._stub.GetModelVersion(request, timeout=DEFAULT_TIMEOUT_S)

    def versions(self, model: str, *, limit: int | None = None) -> Iterator[model_pb.ModelVersion]:
        """A model's versions, newest first."""

        def fetch(token: str) -> tuple[list[model_pb.ModelVersion], str]:
            request = pb.ListModelVersionsRequest(parent=f"models/{model}", page_token=token)
            with translated():
                page = self._stub.ListModelVersions(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.model_versions), page.next_page_token

        return pages(fetch, limit)

    def promote(
        self, model: str, version: int, *, alias: str = "live", etag: str = "", reason: str = ""
    ) -> model_pb.ModelAlias:
        """Points an alias to a version. With `etag` only if nobody has moved it since it was read."""
        target = model_pb.ModelAlias(name=f"models/{model}/aliases/{alias}", version=version, etag=etag)
        request = pb.SetModelAliasRequest(model_alias=target, request_id=uuid.uuid4().hex, reason=reason)
        with translated():
            return self._stub.SetModelAlias(request, timeout=DEFAULT_TIMEOUT_S)

    def rollback(self, model: str, *, alias: str = "live", etag: str = "", reason: str = "") -> model_pb.ModelAlias:
        """Points an alias back to the version it had before its last move."""
        request = pb.RollbackModelAliasRequest(
            name=f"models/{model}/aliases/{alias}", etag=etag, request_id=uuid.uuid4().hex, reason=reason
        )
        with translated():
            return self._stub.RollbackModelAlias(request, timeout=DEFAULT_TIMEOUT_S)

    def history(self, model: str, *, alias: str = "", limit: int | None = None) -> Iterator[model_pb.ModelAliasChange]:
        """Every move of a model's aliases, newest first."""

        def fetch(token: str) -> tuple[list[model_pb.ModelAliasChange], str]:
            request = pb.ListModelAliasChangesRequest(parent=f"models/{model}", page_token=token, alias=alias)
            with translated():
                page = self._stub.ListModelAliasChanges(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.changes), page.next_page_token

        return pages(fetch, limit)
