"""modelyard.v1.ModelService: converts, delegates, converts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.database import Database
from modelyard.core.interceptors import current_caller
from modelyard.core.logs import get_logger
from modelyard.core.names import MODEL, MODEL_VERSION, shorten
from modelyard.core.paging import page_size
from modelyard.v1 import model_pb2, model_service_pb2_grpc
from modelyard.v1 import model_service_pb2 as pb

from .alias_history import list_alias_changes
from .aliases import Aliases
from .model_converters import (
    check_alias_filter,
    check_move,
    check_revision,
    from_alias_name,
    from_create_model,
    from_create_version,
    from_update_model,
    to_alias,
    to_alias_change,
    to_model,
    to_version,
    to_watch_response,
)
from .models import Models
from .pod_converters import from_promote, to_progress
from .promotions import Promotions
from .shadow_counts import read_shadow_report
from .traffic_converters import from_traffic, to_shadow_report
from .versions import Versions
from .watching import Watch

_Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger()


@dataclass(frozen=True)
class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Models, each caller in its own tenant; what should be served, for pods."""

    database: Database
    models: Models
    versions: Versions
    aliases: Aliases
    promotions: Promotions
    watch: Watch

    async def CreateModel(self, request: pb.CreateModelRequest, _context: _Context) -> model_pb2.Model:
        """See the proto."""
        new = from_create_model(request)
        return to_model(await self.models.create(current_caller(), new, request.request_id))

    async def GetModel(self, request: pb.GetModelRequest, _context: _Context) -> model_pb2.Model:
        """See the proto."""
        return to_model(await self.models.get(current_caller(), MODEL.parse(request.name, "name")["model"]))

    async def UpdateModel(self, request: pb.UpdateModelRequest, _context: _Context) -> model_pb2.Model:
        """See the proto."""
        model_id = MODEL.parse(request.model.name, "model.name")["model"]
        wanted = from_update_model(request)
        return to_model(await self.models.update(current_caller(), model_id, wanted, request.request_id))

    async def ListModels(self, request: pb.ListModelsRequest, _context: _Context) -> pb.ListModelsResponse:
        """See the proto."""
        page, token = await self.models.list(current_caller(), page_size(request.page_size), request.page_token)
        return pb.ListModelsResponse(models=[to_model(model) for model in page], next_page_token=token)

    async def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, _context: _Context
    ) -> model_pb2.ModelVersion:
        """See the proto."""
        model_id = MODEL.parse(request.parent, "parent")["model"]
        origin = from_create_version(request)
        version = await self.versions.create(
            current_caller(), model_id, origin, alias=request.alias, request_id=request.request_id
        )
        return to_version(version)

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, _context: _Context) -> model_pb2.ModelVersion:
        """See the proto."""
        parts = MODEL_VERSION.parse(request.name, "name")
        return to_version(await self.versions.get(current_caller(), parts["model"], parts["version"]))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, _context: _Context
    ) -> pb.ListModelVersionsResponse:
        """See the proto."""
        model_id = MODEL.parse(request.parent, "parent")["model"]
        page, token = await self.versions.list(
            current_caller(), model_id, page_size(request.page_size), request.page_token
        )
        return pb.ListModelVersionsResponse(
            model_versions=[to_version(version) for version in page], next_page_token=token
        )

    async def SetModelAlias(self, request: pb.SetModelAliasRequest, _context: _Context) -> model_pb2.ModelAlias:
        """See the proto."""
        wanted = request.model_alias
        model_id, alias = from_alias_name(wanted.name, "model_alias.name")
        check_move(request.request_id, request.reason, wanted.version)
        moved = await self.aliases.set(
            current_caller(), model_id, alias, wanted.version,
            traffic=from_traffic(wanted.traffic, wanted.version, "model_alias.traffic"), etag=wanted.etag,
            reason=request.reason, request_id=request.request_id,
        )  # fmt: skip
        return to_alias(moved)

    async def PromoteModelVersion(
        self, request: pb.PromoteModelVersionRequest, _context: _Context
    ) -> AsyncIterator[pb.PromoteModelVersionResponse]:
        """See the proto."""
        alias = await self.promotions.begin(current_caller(), from_promote(request))
        async for progress in self.promotions.watch(alias):
            yield to_progress(progress)

    async def GetShadowReport(self, request: pb.GetShadowReportRequest, _context: _Context) -> model_pb2.ShadowReport:
        """See the proto."""
        model_id, alias = from_alias_name(request.name, "name")
        return to_shadow_report(await read_shadow_report(self.database, current_caller(), model_id, alias))

    async def GetModelAlias(self, request: pb.GetModelAliasRequest, _context: _Context) -> model_pb2.ModelAlias:
        """See the proto."""
        model_id, alias = from_alias_name(request.name, "name")
        return to_alias(await self.aliases.get(current_caller(), model_id, alias))

    async def DeleteModelAlias(
        self, request: pb.DeleteModelAliasRequest, _context: _Context
    ) -> pb.DeleteModelAliasResponse:
        """See the proto."""
        model_id, alias = from_alias_name(request.name, "name")
        await self.aliases.delete(current_caller(), model_id, alias, etag=request.etag)
        return pb.DeleteModelAliasResponse()

    async def RollbackModelAlias(
        self, request: pb.RollbackModelAliasRequest, _context: _Context
    ) -> model_pb2.ModelAlias:
        """See the proto."""
        model_id, alias = from_alias_name(request.name, "name")
        check_move(request.request_id, request.reason)
        moved = await self.aliases.rollback(
            current_caller(), model_id, alias,
            etag=request.etag, reason=request.reason, request_id=request.request_id,
        )  # fmt: skip
        return to_alias(moved)

    async def ListModelAliasChanges(
        self, request: pb.ListModelAliasChangesRequest, _context: _Context
    ) -> pb.ListModelAliasChangesResponse:
        """See the proto."""
        model_id = MODEL.parse(request.parent, "parent")["model"]
        page, token = await list_alias_changes(
            self.database, current_caller(), model_id, check_alias_filter(request.alias),
            page_size(request.page_size), request.page_token,
        )  # fmt: skip
        return pb.ListModelAliasChangesResponse(
            changes=[to_alias_change(change) for change in page], next_page_token=token
        )

    async def WatchModels(
        self, request: pb.WatchModelsRequest, _context: _Context
    ) -> AsyncIterator[pb.WatchModelsResponse]:
        """See the proto."""
        after_revision = check_revision(request.after_revision)
        log.info("a pod watches", pod=shorten(request.pod), after_revision=after_revision)
        async for update in self.watch.updates(after_revision):
            yield to_watch_response(update)
