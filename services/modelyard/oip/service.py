"""The protocol's service: handlers for a server, stubs for clients, both made from the descriptor.

What generated code would be, but for the private pool. A test holds the typed declarations equal to the descriptor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StreamStreamMultiCallable as Stream
from grpc import UnaryUnaryMultiCallable as Call
from grpc.aio import StreamStreamMultiCallable as AioStream
from grpc.aio import UnaryUnaryMultiCallable as AioCall

from . import open_inference_pb2 as pb
from .pool import DESCRIPTOR

_SERVICE: Final = DESCRIPTOR.services_by_name["GRPCInferenceService"]

SERVICE_NAME: Final[str] = _SERVICE.full_name
"""`inference.GRPCInferenceService`."""

METHODS: Final[tuple[str, ...]] = tuple(method.name for method in _SERVICE.methods)
"""Names of the calls, in the order of the source."""


def method_path(name: str) -> str:
    """The path of a call on the wire, as in `/inference.GRPCInferenceService/ModelInfer`."""
    return f"/{SERVICE_NAME}/{name}"


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InferenceServicer(Protocol):
    """What a server of the protocol implements."""

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context, /) -> pb.ServerLiveResponse:
        """Whether the process runs."""
        ...

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context, /) -> pb.ServerReadyResponse:
        """Whether the pod should be sent requests."""
        ...

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context, /) -> pb.ModelReadyResponse:
        """Whether a model or version would be answered now."""
        ...

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context, /) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        ...

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context, /) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        ...

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context, /) -> pb.ModelInferResponse:
        """One prediction."""
        ...

    def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context, /
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Predictions over one stream, answered in the order asked."""
        ...

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context, /) -> pb.ModelConfigResponse:
        """How a model is served, and where it came from."""
        ...

    async def ModelStatistics(
        self,
        request: pb.ModelStatisticsRequest,
        context: Context,
        /,
    ) -> pb.ModelStatisticsResponse:
        """What was counted and timed."""
        ...

    async def RepositoryIndex(
        self,
        request: pb.RepositoryIndexRequest,
        context: Context,
        /,
    ) -> pb.RepositoryIndexResponse:
        """Every version with its state."""
        ...

    async def RepositoryModelLoad(
        self,
        request: pb.RepositoryModelLoadRequest,
        context: Context,
        /,
    ) -> pb.RepositoryModelLoadResponse:
        """Undoes an unload."""
        ...

    async def RepositoryModelUnload(
        self,
        request: pb.RepositoryModelUnloadRequest,
        context: Context,
        /,
    ) -> pb.RepositoryModelUnloadResponse:
        """Takes a model out of service on this pod."""
        ...

    async def SystemSharedMemoryStatus(
        self,
        request: pb.SystemSharedMemoryStatusRequest,
        context: Context,
        /,
    ) -> pb.SystemSharedMemoryStatusResponse:
        """The caller's registered regions of system shared memory."""
        ...

    async def SystemSharedMemoryRegister(
        self,
        request: pb.SystemSharedMemoryRegisterRequest,
        context: Context,
        /,
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Registers a region of system shared memory."""
        ...

    async def SystemSharedMemoryUnregister(
        self,
        request: pb.SystemSharedMemoryUnregisterRequest,
        context: Context,
        /,
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forgets one region, or all of the caller's."""
        ...

    async def CudaSharedMemoryStatus(
        self,
        request: pb.CudaSharedMemoryStatusRequest,
        context: Context,
        /,
    ) -> pb.CudaSharedMemoryStatusResponse:
        """The registered regions of CUDA memory."""
        ...

    async def CudaSharedMemoryRegister(
        self,
        request: pb.CudaSharedMemoryRegisterRequest,
        context: Context,
        /,
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Registers a region of CUDA memory."""
        ...

    async def CudaSharedMemoryUnregister(
        self,
        request: pb.CudaSharedMemoryUnregisterRequest,
        context: Context,
        /,
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Forgets one region of CUDA memory, or all."""
        ...

    async def TraceSetting(
        self,
        request: pb.TraceSettingRequest,
        context: Context,
        /,
    ) -> pb.TraceSettingResponse:
        """Changes and tells what is traced."""
        ...

    async def LogSettings(
        self,
        request: pb.LogSettingsRequest,
        context: Context,
        /,
    ) -> pb.LogSettingsResponse:
        """Changes and tells what is logged."""
        ...


def add_inference_servicer(servicer: InferenceServicer, server: grpc.aio.Server | grpc.Server) -> None:
    """Makes `server` answer the protocol's calls with `servicer`."""
    handlers = {
        method.name: (
            grpc.stream_stream_rpc_method_handler if _streams(method) else grpc.unary_unary_rpc_method_handler
        )(
            getattr(servicer, method.name),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for method, request, response in _methods()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


class AioInferenceStub:
    """The protocol's calls over an asyncio channel."""

    ServerLive: AioCall[pb.ServerLiveRequest, pb.ServerLiveResponse]
    ServerReady: AioCall[pb.ServerReadyRequest, pb.ServerReadyResponse]
    ModelReady: AioCall[pb.ModelReadyRequest, pb.ModelReadyResponse]
    ServerMetadata: AioCall[pb.ServerMetadataRequest, pb.ServerMetadataResponse]
    ModelMetadata: AioCall[pb.ModelMetadataRequest, pb.ModelMetadataResponse]
    ModelInfer: AioCall[pb.ModelInferRequest, pb.ModelInferResponse]
    ModelStreamInfer: AioStream[pb.ModelInferRequest, pb.ModelStreamInferResponse]
    ModelConfig: AioCall[pb.ModelConfigRequest, pb.ModelConfigResponse]
    ModelStatistics: AioCall[pb.ModelStatisticsRequest, pb.ModelStatisticsResponse]
    RepositoryIndex: AioCall[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse]
    RepositoryModelLoad: AioCall[pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse]
    RepositoryModelUnload: AioCall[pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse]
    SystemSharedMemoryStatus: AioCall[pb.SystemSharedMemoryStatusRequest, pb.SystemSharedMemoryStatusResponse]
    SystemSharedMemoryRegister: AioCall[pb.SystemSharedMemoryRegisterRequest, pb.SystemSharedMemoryRegisterResponse]
    SystemSharedMemoryUnregister: AioCall[
        pb.SystemSharedMemoryUnregisterRequest, pb.SystemSharedMemoryUnregisterResponse
    ]
    CudaSharedMemoryStatus: AioCall[pb.CudaSharedMemoryStatusRequest, pb.CudaSharedMemoryStatusResponse]
    CudaSharedMemoryRegister: AioCall[pb.CudaSharedMemoryRegisterRequest, pb.CudaSharedMemoryRegisterResponse]
    CudaSharedMemoryUnregister: AioCall[pb.CudaSharedMemoryUnregisterRequest, pb.CudaSharedMemoryUnregisterResponse]
    TraceSetting: AioCall[pb.TraceSettingRequest, pb.TraceSettingResponse]
    LogSettings: AioCall[pb.LogSettingsRequest, pb.LogSettingsResponse]

    def __init__(self, channel: grpc.aio.Channel) -> None:
        _bind(self, channel)


class InferenceStub:
    """The protocol's calls over a blocking channel."""

    ServerLive: Call[pb.ServerLiveRequest, pb.ServerLiveResponse]
    ServerReady: Call[pb.ServerReadyRequest, pb.ServerReadyResponse]
    ModelReady: Call[pb.ModelReadyRequest, pb.ModelReadyResponse]
    ServerMetadata: Call[pb.ServerMetadataRequest, pb.ServerMetadataResponse]
    ModelMetadata: Call[pb.ModelMetadataRequest, pb.ModelMetadataResponse]
    ModelInfer: Call[pb.ModelInferRequest, pb.ModelInferResponse]
    ModelStreamInfer: Stream[pb.ModelInferRequest, pb.ModelStreamInferResponse]
    ModelConfig: Call[pb.ModelConfigRequest, pb.ModelConfigResponse]
    ModelStatistics: Call[pb.ModelStatisticsRequest, pb.ModelStatisticsResponse]
    RepositoryIndex: Call[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse]
    RepositoryModelLoad: Call[pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse]
    RepositoryModelUnload: Call[pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse]
    SystemSharedMemoryStatus: Call[pb.SystemSharedMemoryStatusRequest, pb.SystemSharedMemoryStatusResponse]
    SystemSharedMemoryRegister: Call[pb.SystemSharedMemoryRegisterRequest, pb.SystemSharedMemoryRegisterResponse]
    SystemSharedMemoryUnregister: Call[pb.SystemSharedMemoryUnregisterRequest, pb.SystemSharedMemoryUnregisterResponse]
    CudaSharedMemoryStatus: Call[pb.CudaSharedMemoryStatusRequest, pb.CudaSharedMemoryStatusResponse]
    CudaSharedMemoryRegister: Call[pb.CudaSharedMemoryRegisterRequest, pb.CudaSharedMemoryRegisterResponse]
    CudaSharedMemoryUnregister: Call[pb.CudaSharedMemoryUnregisterRequest, pb.CudaSharedMemoryUnregisterResponse]
    TraceSetting: Call[pb.TraceSettingRequest, pb.TraceSettingResponse]
    LogSettings: Call[pb.LogSettingsRequest, pb.LogSettingsResponse]

    def __init__(self, channel: grpc.Channel) -> None:
        _bind(self, channel)


def _methods() -> Iterator[tuple[MethodDescriptor, type[Message], type[Message]]]:
    """Each call with its request and response class."""
    for method in _SERVICE.methods:
        yield method, GetMessageClass(method.input_type), GetMessageClass(method.output_type)


def _streams(method: MethodDescriptor) -> bool:
    """Whether a call is a stream in both directions; none is one in one direction only."""
    return bool(method.client_streaming)


def _bind(stub: object, channel: Any) -> None:
    """Sets every call of the service on `stub`."""
    for method, request, response in _methods():
        kind = channel.stream_stream if _streams(method) else channel.unary_unary
        call = kind(
            method_path(method.name),
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        setattr(stub, method.name, call)
