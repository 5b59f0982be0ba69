"""A server of the protocol that says the same to everything: what a conformance check must not be content with."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from typing import Any

import grpc

from modelyard.conformance.reference import MODELS, ReferenceModel
from modelyard.oip import open_inference_pb2 as pb

EXTENSIONS = (
    "classification", "model_repository", "model_configuration", "system_shared_memory", "cuda_shared_memory",
    "parameters", "statistics", "trace", "logging",
)  # fmt: skip

_STREAMS = ("ModelStreamInfer", "ServerReflectionInfo")
_WATCHES = ("Watch",)


class Mood(Enum):
    """What it says to everything."""

    NOTHING = b""
    """OK and an empty message: yes to every wrong request, no content for a good one."""
    TRUE = b"\x08\x01"
    """OK and a message whose first field is 1: ready, live, serving, whatever was asked."""
    NO = None
    """INTERNAL, without a text."""


class MoodyServer(grpc.GenericRpcHandler):
    """Without a mood it describes the server and the reference models truthfully, and knows nothing else."""

    def __init__(self) -> None:
        self.mood: Mood | None = None
        self.address = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = details.method.rpartition("/")[2]

        def unary(request: bytes, context: grpc.ServicerContext[Any, Any]) -> bytes:
            return self._answer(method, request, context)

        def watch(request: bytes, context: grpc.ServicerContext[Any, Any]) -> Iterator[bytes]:
            yield self._answer(method, request, context)

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext[Any, Any]) -> Iterator[bytes]:
            for request in requests:
                yield self._answer(method, request, context)
            if self.mood is not Mood.NOTHING:
                self._answer(method, b"", context)

        if method in _STREAMS:
            return grpc.stream_stream_rpc_method_handler(stream)
        return (
            grpc.unary_stream_rpc_method_handler(watch)
            if method in _WATCHES
            else grpc.unary_unary_rpc_method_handler(unary)
        )

    def _answer(self, method: str, request: bytes, context: grpc.ServicerContext[Any, Any]) -> bytes:
        if self.mood is None:
            return _truth(method, request)
        if self.mood.value is None:
            context.abort(grpc.StatusCode.INTERNAL, "")
        return self.mood.value


@contextmanager
def moody_server() -> Iterator[MoodyServer]:
    """A running one on a free port."""
    handler = MoodyServer()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield handler
    finally:
        server.stop(None).wait()


def _truth(method: str, request: bytes) -> bytes:
    if method == "ServerMetadata":
        return pb.ServerMetadataResponse(name="moody", version="1", extensions=EXTENSIONS).SerializeToString()
    if method == "ModelMetadata":
        name = pb.ModelMetadataRequest.FromString(request).name
        return b"".join(_described(model).SerializeToString() for model in MODELS if model.full_name == name)
    return pb.ServerLiveResponse(live=method == "ServerLive").SerializeToString()


def _described(model: ReferenceModel) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=model.full_name,
        versions=["1"],
        inputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in model.inputs],
        outputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in model.outputs],
    )
