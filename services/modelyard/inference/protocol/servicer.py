"""The protocol's calls: each converts, delegates, converts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

import modelyard
from modelyard.core.errors import InvalidFields, NotFound, Unimplemented
from modelyard.core.interceptors import current_caller
from modelyard.core.names import shorten
from modelyard.core.tokens import Caller
from modelyard.core.tracing import SAMPLING
from modelyard.inference.calls import PredictionCall
from modelyard.inference.execution.sessions import RuntimeOptions
from modelyard.inference.prediction import Predictor
from modelyard.inference.serving.readiness import Readiness
from modelyard.inference.serving.reconcile import Reconciler
from modelyard.inference.serving.table import ModelEntry, ServingTable, check_version_form
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import Context

from . import responses
from .log_settings import change_log_settings, log_settings
from .shared_memory import SharedMemory, unknown_region
from .streaming import GRPC_ERRORS, PredictionStream, check_token
from .trace_settings import TraceSettings

SERVER_NAME = "modelyard"
EXTENSIONS = (
    "classification", "model_repository", "model_configuration", "schedule_policy", "statistics", "trace", "logging",
    "parameters",
)  # fmt: skip
"""Of the protocol's extensions, those that every pod offers, by Triton's names."""
SHARED_MEMORY_EXTENSION = "system_shared_memory"
"""Offered if the settings say so."""


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
        stream_requests: int,
        stopping: asyncio.Event,
        memory: SharedMemory | None = None,
    ) -> None:
        """`stopping`: set when streams should end. `memory`: None if clients may not use shared memory."""
        self._table = table
        self._predictor = predictor
        self._reconciler = reconciler
        self._readiness = readiness
        self._options = options
        self._stream_requests = stream_requests
        self._stopping = stopping
        self._memory = memory
        self._tracing = TraceSettings(SAMPLING)

    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._readiness.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, _context: Context) -> pb.ModelReadyResponse:
        check_version_form(request.version, "version")
        ready = not self._readiness.draining and self._table.ready(request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest, _context: Context) -> pb.ServerMetadataResponse:
        extensions = EXTENSIONS if self._memory is None else (*EXTENSIONS, SHARED_MEMORY_EXTENSION)
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=modelyard.__version__, extensions=extensions)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, _context: Context) -> pb.ModelMetadataResponse:
        await self._predictor.until_loaded(request.name, request.version)
        version = self._table.resolve(request.name, request.version, "version")
        return responses.metadata(self._table.models[request.name], version)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._predictor.predict(request, _call(context))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        call = _call(context)
        stream = PredictionStream(
            lambda request: self._predictor.predict(request, call),
            limit=self._stream_requests,
            stopping=self._stopping,
            grpc_errors=call.metadata.get(GRPC_ERRORS) == "true",
        )
        async with aclosing(stream.replies(_while_valid(requests, call.caller))) as replies:
            async for reply in replies:
                yield reply

    async def ModelConfig(self, request: pb.ModelConfigRequest, _context: Context) -> pb.ModelConfigResponse:
        await self._predictor.until_loaded(request.name, request.version)
        version = self._table.resolve(request.name, request.version, "version")
        entry = self._table.models[request.name]
        config = responses.config(entry, version, on_gpu=self._options.on_gpu)
        return pb.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, _context: Context
    ) -> pb.ModelStatisticsResponse:
        chosen = self._chosen(request) if request.name else _all_loaded(self._table.models.values())
        on_gpu = self._options.on_gpu
        told = [responses.statistics(name, version, on_gpu=on_gpu) for name, version in chosen]
        return pb.ModelStatisticsResponse(model_stats=told)

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

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, _context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        regions = self._memory.of(current_caller().tenant).by_name if self._memory is not None else {}
        if request.name and request.name not in regions:
            raise unknown_region(request.name)
        chosen = [regions[request.name]] if request.name else regions.values()
        return responses.shared_memory_status(chosen)

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, _context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        if self._memory is None:
            raise Unimplemented("this pod does not offer system shared memory; see the setting system_shared_memory")
        tenant = current_caller().tenant
        self._memory.register(tenant, request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, _context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        if self._memory is not None:
            self._memory.unregister(current_caller().tenant, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, _context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        if request.name:
            raise unknown_region(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, _context: Context
    ) -> pb.CudaSharedMemoryRegisterResponse:
        name = shorten(request.name)
        raise Unimplemented(f"failed to register CUDA shared memory region: '{name}', GPUs not supported")

    async def CudaSharedMemoryUnregister(
        self, _request: pb.CudaSharedMemoryUnregisterRequest, _context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        return pb.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, request: pb.TraceSettingRequest, _context: Context) -> pb.TraceSettingResponse:
        if request.model_name and request.model_name not in self._table.models:
            text = f"expected a model that is served here, got {shorten(request.model_name)!r}"
            raise InvalidFields.one("model_name", text)
        return self._tracing.change(request)

    async def LogSettings(self, request: pb.LogSettingsRequest, _context: Context) -> pb.LogSettingsResponse:
        change_log_settings(request.settings)
        return log_settings()

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


async def _while_valid(
    requests: AsyncIterator[pb.ModelInferRequest], caller: Caller
) -> AsyncIterator[pb.ModelInferRequest]:
    """The requests until the caller's token is over; then raises TokenExpired."""
    async for request in requests:
        check_token(caller)
        yield request


def _all_loaded(entries: Iterable[ModelEntry]) -> list[tuple[str, LoadedVersion]]:
    """Every loaded version with its model's name, by name and number."""
    by_name = sorted(entries, key=lambda entry: entry.name)
    return [(entry.name, entry.loaded[number]) for entry in by_name for number in sorted(entry.loaded)]
