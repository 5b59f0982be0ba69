"""A registry behind real gRPC in the test's own event loop, and a client for it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from modelyard.core.channels import aio_channel, fixed_token
from modelyard.core.errors import RemoteError
from modelyard.registry.application import Registry, open_registry
from modelyard.registry.settings import RegistrySettings
from modelyard.v1 import artifact_service_pb2 as artifact_pb
from modelyard.v1 import (
    artifact_service_pb2_grpc,
    dataset_pb2,
    dataset_service_pb2_grpc,
    model_pb2,
    model_service_pb2_grpc,
    pod_service_pb2_grpc,
)
from modelyard.v1 import dataset_service_pb2 as dataset_pb
from modelyard.v1 import model_service_pb2 as model_pb

from .grpc_server import serve
from .identity import Identity
from .onnx_graphs import onnx_bytes


def registry_settings(identity: Identity, folder: Path, **options: Any) -> RegistrySettings:
    """For a registry on SQLite and a blob folder, unless `options` say otherwise."""
    defaults: dict[str, Any] = {
        "token_keys_file": identity.keys_file,
        "database_url": f"sqlite+aiosqlite:///{folder}/registry.db",
        "blob_url": f"file://{folder}/blobs",
    }
    return RegistrySettings(**defaults | options)


class RegistryClient:
    """Stubs with a token, and the calls that tests make often."""

    def __init__(self, channel: grpc.aio.Channel, registry: Registry | None = None) -> None:
        """`registry`: None if it is a program of its own."""
        self._registry = registry
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.pods = pod_service_pb2_grpc.PodServiceStub(channel)
        self.datasets = dataset_service_pb2_grpc.DatasetServiceStub(channel)
        self.artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(channel)

    @property
    def registry(self) -> Registry:
        """The registry itself."""
        assert self._registry is not None, "the registry is a program of its own"
        return self._registry

    async def upload(self, content: bytes, *, chunk_bytes: int = 1024 * 1024) -> str:
        """Makes the content a blob and answers its digest."""
        digest = hashlib.sha256(content).hexdigest()
        upload = await self.start(content)
        if not upload.complete:
            upload = await self.write(upload, content, chunk_bytes=chunk_bytes)
        assert upload.complete
        return digest

    async def start(self, content: bytes, *, digest: str = "") -> artifact_pb.Upload:
        """Announces the content (or says that it has another digest)."""
        digest = digest or hashlib.sha256(content).hexdigest()
        return await self.artifacts.StartUpload(artifact_pb.StartUploadRequest(digest=digest, size_bytes=len(content)))

    async def write(
        self, upload: artifact_pb.Upload, content: bytes, *, end: int | None = None, chunk_bytes: int = 1024 * 1024
    ) -> artifact_pb.Upload:
        """Sends the content from where the upload is, up to `end`."""
        return await self.artifacts.WriteUpload(chunks(upload.name, content[:end], upload.committed_bytes, chunk_bytes))

    async def download(self, digest: str, offset: int = 0, limit: int = 0) -> bytes:
        """The blob's bytes."""
        request = artifact_pb.ReadBlobRequest(digest=digest, offset=offset, limit=limit)
        return b"".join([response.data async for response in self.artifacts.ReadBlob(request)])

    async def create_dataset(
        self, content: bytes, dataset_id: str = "table", *, file_format: str = "CSV", **fields: Any
    ) -> dataset_pb2.Dataset:
        """Uploads the content and makes it a dataset."""
        digest = await self.upload(content)
        number = dataset_pb2.Dataset.Format.Value(f"FORMAT_{file_format}")
        dataset = dataset_pb2.Dataset(format=number, digest=digest, **fields)
        return await self.datasets.CreateDataset(
            dataset_pb.CreateDatasetRequest(dataset_id=dataset_id, dataset=dataset)
        )

    async def create_version(
        self, model: str = "models/m", *, weight: float = 2.0, alias: str = "", request_id: str = "", **fields: Any
    ) -> model_pb2.ModelVersion:
        """Uploads a small graph and makes it the model's next version."""
        digest = fields.pop("digest", None) or await self.upload(onnx_bytes(weight))
        version = model_pb2.ModelVersion(digest=digest, **fields)
        return await self.models.CreateModelVersion(
            model_pb.CreateModelVersionRequest(parent=model, model_version=version, alias=alias, request_id=request_id)
        )

    async def set_alias(
        self, version: int, *, name: str = "models/m/aliases/live", etag: str = "", **fields: Any
    ) -> model_pb2.ModelAlias:
        """Moves an alias."""
        alias = model_pb2.ModelAlias(name=name, version=version, etag=etag)
        return await self.models.SetModelAlias(model_pb.SetModelAliasRequest(model_alias=alias, **fields))

    async def roll_back(self, name: str = "models/m/aliases/live", **fields: Any) -> model_pb2.ModelAlias:
        """Rolls an alias back."""
        return await self.models.RollbackModelAlias(model_pb.RollbackModelAliasRequest(name=name, **fields))


async def chunks(
    name: str, content: bytes, offset: int = 0, chunk_bytes: int = 1024 * 1024
) -> AsyncIterator[artifact_pb.WriteUploadRequest]:
    """The messages of an upload stream; one without data if there is none."""
    for start in range(offset, len(content), chunk_bytes) or (offset,):
        yield artifact_pb.WriteUploadRequest(name=name, offset=start, data=content[start : start + chunk_bytes])


async def refusal(call: Any) -> RemoteError:
    """What a call is refused with."""
    try:
        answer = [message async for message in call] if hasattr(call, "__aiter__") else await call
    except grpc.aio.AioRpcError as error:
        return RemoteError.from_rpc(error)
    raise AssertionError(f"the call was answered: {answer}")


@asynccontextmanager
async def running_registry(
    settings: RegistrySettings, identity: Identity, *roles: str, tenant: str = "default", subject: str = "tester"
) -> AsyncIterator[RegistryClient]:
    """A registry, and a client whose token has these roles (default: admin)."""
    async with (
        open_registry(settings) as registry,
        serve(registry.service(), identity) as address,
        client(address, registry, identity, *roles, tenant=tenant, subject=subject) as one,
    ):
        yield one


@asynccontextmanager
async def client(
    address: str, registry: Registry, identity: Identity, *roles: str, tenant: str = "default", subject: str = "tester"
) -> AsyncIterator[RegistryClient]:
    """A client of a registry that runs."""
    token = identity.token(*roles, tenant=tenant, subject=subject)
    async with aio_channel(address, fixed_token(token)) as channel:
        yield RegistryClient(channel, registry)


def digest_of(parts: Iterable[bytes]) -> str:
    """SHA-256 of the parts in a row."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()
