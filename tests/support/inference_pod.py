"""A pod in the test's own event loop, behind real gRPC, with everything real but its registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from modelyard.core import serving
from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.inference.application import build
from modelyard.inference.settings import InferenceSettings
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import AioInferenceStub
from modelyard.oip.tensors import Array, add_input, output_arrays

from .identity import Identity
from .waiting import eventually


@dataclass
class PodClient:
    """A client of a pod, wherever that runs."""

    address: str
    stub: AioInferenceStub
    channel: grpc.aio.Channel

    async def predict(self, model: str, inputs: Mapping[str, Array], version: str = "") -> pb.ModelInferResponse:
        """One prediction; raises RemoteError."""
        return await self.infer(infer_request(model, inputs, version))

    async def infer(self, request: pb.ModelInferRequest, **call: Any) -> pb.ModelInferResponse:
        """One prediction; raises RemoteError."""
        try:
            return await self.stub.ModelInfer(request, **call)
        except grpc.aio.AioRpcError as error:
            raise RemoteError.from_rpc(error) from error

    async def index(self) -> dict[tuple[str, str], tuple[str, str]]:
        """State and reason by model and version."""
        answer = await self.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        return {(row.name, row.version): (row.state, row.reason) for row in answer.models}

    async def until_ready(self, model: str, version: str = "") -> None:
        """Returns when the model answers."""

        async def ready() -> bool:
            return (await self.stub.ModelReady(pb.ModelReadyRequest(name=model, version=version))).ready

        await eventually(ready)

    async def until_state(self, model: str, version: int, state: str) -> str:
        """Returns the reason when the version is in this state."""

        async def reason() -> list[str]:
            found, why = (await self.index()).get((model, str(version)), ("", ""))
            return [why] if found == state else []

        return (await eventually(reason))[0]


@dataclass
class Pod(PodClient):
    """A running pod and a client of it."""

    running: serving.RunningServer


def pod_settings(registry_address: str, identity: Identity, folder: Path, **settings: Any) -> InferenceSettings:
    """Settings of a pod with its cache in `folder`, quick to try again and to stop, and without a trial process."""
    folder.mkdir(exist_ok=True)
    token_file = folder / "token"
    token_file.write_text(identity.token("service"))
    options = {
        "listen": "127.0.0.1:0", "drain_delay_s": 0, "shutdown_grace_s": 10, "runners": 2,
        "load_retry_first_s": 0.05, "load_retry_limit_s": 0.2, "trial_loads": False, **settings,
    }  # fmt: skip
    return InferenceSettings(
        token_keys_file=identity.keys_file, token_file=token_file, registry_address=registry_address,
        cache_dir=folder / "cache", **options,
    )  # fmt: skip


@asynccontextmanager
async def running_pod(
    registry_address: str, identity: Identity, folder: Path, *, role: str = "admin", **settings: Any
) -> AsyncIterator[Pod]:
    """A pod with its cache in `folder`; the client has a token of this role."""
    inference = pod_settings(registry_address, identity, folder, **settings)
    async with build(inference) as service:
        running = await serving.start(service, inference)
        async with aio_channel(running.address, fixed_token(identity.token(role))) as channel:
            try:
                yield Pod(running.address, AioInferenceStub(channel), channel, running)
            finally:
                await running.stop()


def infer_request(model: str, inputs: Mapping[str, Array], version: str = "") -> pb.ModelInferRequest:
    """A request with raw contents."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id="id-1")
    for name, array in inputs.items():
        add_input(request, name, array)
    return request


def row(*values: float) -> dict[str, Array]:
    """One row for the input `x`."""
    return {"x": np.array([values], dtype=np.float32)}


def output(response: pb.ModelInferResponse, name: str = "y") -> Any:
    """One output as nested lists."""
    return output_arrays(response)[name].tolist()
