"""The protocol's calls: each converts, delegates, converts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import modelyard
from modelyard.core.errors import InvalidFields, NotFound
from modelyard.core.interceptors import current_caller
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import Context

from . import responses
from .calls import PredictionCall
from .prediction import Predictor
from .readiness import Readiness
from .reconcile import Reconciler
from .sessions import RuntimeOptions
from .table import ModelEntry, ServingTable, check_version_form
from .versions import LoadedVersion

SERVER_NAME = "modelyard"
EXTENSIONS = ("model_repository", "model_configuration", "parameters", "statistics")
"""Of the protocol's extensions, those that a pod offers, by Triton's names."""


class Inference:
    """`inference.GRPCInferenceService`; see the proto for what each call does."""

    def __init__(
        self,
        table: ServingTable,
        predictor: Predictor,
        reconciler: Reconciler,
        readiness: Readiness,
        *,
        options: RuntimeOptions,
        request_threads: int,
    ) -> None:
        self._table = table
        self._predictor = predictor
        self._reconciler = reconciler
        self._readiness = readiness
        self._options = options
        self._request_threads = request_threads

    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._readiness.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, _context: Context) -> pb.ModelReadyResponse:
        check_version_form(request.version, "version")
        ready = not self._readiness.draining and self._table.ready(request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest, _context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=modelyard.__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _context: Context) -> pb.ModelMetadataResponse:
        version = self._table.resolve(request.name, request.version, "version")
        return responses.metadata(self._table.models[request.name], version)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._predictor.predict(request, _call(context))

    async def ModelConfig(self, request: pb.ModelConfigRequest, _context: Context) -> pb.ModelConfigResponse:
        version = self._table.resolve(request.name, request.version, "version")
        entry = self._table.models[request.name]
        config = responses.config(entry, version, runners=self._request_threads, on_gpu=self._options.on_gpu)
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, _context: Context
    ) -> pb.ModelStatisticsResponse:
        chosen = self._chosen(request) if request.name else _all_loaded(self._table.models.values())
        return pb.ModelStatisticsResponse(model_stats=[responses.statistics(name, version) for name, version in chosen])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, _context: Context
    ) -> pb.RepositoryIndexResponse:
        return responses.index(self._table.models.values(), only_ready=request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, _context: Context
    ) -> pb.RepositoryModelLoadResponse:
        if request.parameters:
            raise InvalidFields.one("parameters", "expected none: what is served is decided by the registry")
        await self._reconciler.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, _context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        self._reconciler.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _chosen(self, request: pb.ModelStatisticsRequest) -> list[tuple[str, LoadedVersion]]:
        """The loaded versions of one model, or one of them. An unknown one is, by the protocol, a wrong argument."""
        entry = self._table.models.get(request.name)
        if entry is not None and not request.version:
            return _all_loaded([entry])
        try:
            return [(request.name, self._table.resolve(request.name, request.version, "version"))]
        except NotFound as error:
            raise InvalidFields.one("version" if entry else "name", error.message) from error


def _call(context: Context) -> PredictionCall:
    remaining: float | None = context.time_remaining()  # None without a deadline; the stubs do not say so
    expires = None if remaining is None else asyncio.get_running_loop().time() + remaining
    return PredictionCall(expires, current_caller(), dict(context.invocation_metadata() or ()))


def _all_loaded(entries: Iterable[ModelEntry]) -> list[tuple[str, LoadedVersion]]:
    """Every loaded version with its model's name, by name and number."""
    by_name = sorted(entries, key=lambda entry: entry.name)
    return [(entry.name, entry.loaded[number]) for entry in by_name for number in sorted(entry.loaded)]
