"""The registry, over gRPC. Every call is made in the name of somebody: with a short-lived token that says so.

The gateway holds the signing key, so it can; and so the registry's own rules about tenants decide, and its history
names the person and not the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

import grpc
import grpc.aio

from modelyard.core.channels import bearer
from modelyard.core.errors import Conflict, ModelyardError, NotFound, RemoteError, Unavailable, reason_name
from modelyard.core.interceptors import REQUEST_ID_HEADER, current_request_id
from modelyard.core.logs import get_logger
from modelyard.core.paging import MAX_PAGE_SIZE
from modelyard.core.tokens import IssuedToken, TokenSigner
from modelyard.v1 import (
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    errors_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)

from .converters import version_request
from .finishing import PublicationRefused
from .jobs import Job
from .remembered import Remembered

_TOKEN_LIFETIME_S = 600.0
_MAX_TOKENS = 1000
_RETRY_AFTER_S = 1.0
_REQUEST_ID_REUSED = reason_name(errors_pb2.ERROR_REASON_REQUEST_ID_REUSED)
_CONFLICT = reason_name(errors_pb2.ERROR_REASON_CONFLICT)
_ITSELF = ("gateway", "", frozenset({"service"}))
"""In whose name the gateway acts for nobody else."""
_TOO_LARGE = reason_name(errors_pb2.ERROR_REASON_TOO_LARGE)
_PASSING = frozenset({
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED,
})  # fmt: skip
"""Faults of the registry or of how it is set up, not of what it was asked: another try may succeed."""

T = TypeVar("T")

log = get_logger()


class TokenPurse:
    """Tokens for acting in somebody's name, each used until half of its time is over."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer
        self._tokens: dict[tuple[str, str, frozenset[str]], IssuedToken] = {}

    def metadata(self, subject: str, tenant: str, roles: frozenset[str]) -> list[tuple[str, str]]:
        """The metadata that carries such a token."""
        key = (subject, tenant, roles)
        token = self._tokens.get(key)
        if token is None or token.expire_time - time.time() < _TOKEN_LIFETIME_S / 2:
            if len(self._tokens) >= _MAX_TOKENS:
                self._tokens.clear()
            token = self._tokens[key] = self._signer.issue(subject, tenant, roles, _TOKEN_LIFETIME_S)
        return list(bearer(token.secret))


class Registry:
    """What the gateway asks of the registry."""

    def __init__(
        self, channel: grpc.aio.Channel, signer: TokenSigner, *, timeout_s: float, publication_timeout_s: float
    ) -> None:
        self._datasets = dataset_service_pb2_grpc.DatasetServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        self._purse = TokenPurse(signer)
        self._timeout_s = timeout_s
        self._publication_timeout_s = publication_timeout_s
        # A dataset never changes and is never deleted; who may see it is part of the key.
        self._known_datasets: Remembered[tuple[str, str, frozenset[str]], dataset_pb2.Dataset] = Remembered(
            lifetime_s=60, limit=256
        )
        # A model may be created at any time; then an old answer only means that publishing says what is said here.
        self._known_tenants: Remembered[str, str | None] = Remembered(lifetime_s=5, limit=1024)

    async def dataset(self, name: str, *, subject: str, tenant: str, roles: frozenset[str]) -> dataset_pb2.Dataset:
        """The dataset, if this caller may see it; not to be changed. Raises NotFound or Unavailable."""
        return await self._known_datasets.get(
            (name, tenant, roles), lambda: self._ask_dataset(name, subject, tenant, roles)
        )

    async def _ask_dataset(self, name: str, subject: str, tenant: str, roles: frozenset[str]) -> dataset_pb2.Dataset:
        request = dataset_service_pb2.GetDatasetRequest(name=name)
        metadata = self._metadata(subject, tenant, roles)
        try:
            return await _answer(self._datasets.GetDataset(request, timeout=self._timeout_s, metadata=metadata))
        except RemoteError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                raise NotFound.resource(name) from error
            raise away(error) from error

    async def model_tenant(self, name: str) -> str | None:
        """The tenant that owns the model; None if there is no such model. Raises Unavailable."""
        return await self._known_tenants.get(name, lambda: self._ask_model_tenant(name))

    async def _ask_model_tenant(self, name: str) -> str | None:
        request = model_service_pb2.GetModelRequest(name=name)
        metadata = self._metadata("gateway", "", frozenset({"service"}))
        try:
            model: model_pb2.Model = await _answer(
                self._models.GetModel(request, timeout=self._timeout_s, metadata=metadata)
            )
        except RemoteError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise away(error) from error
        return model.tenant

    async def publish(self, job: Job) -> str:
        """See `finishing.Publisher`. Acts in the name of the one who submitted the job."""
        metadata = self._metadata(job.creator, job.tenant, frozenset({"developer"}))
        call = self._models.CreateModelVersion(
            version_request(job), timeout=self._publication_timeout_s, metadata=metadata
        )
        try:
            version: model_pb2.ModelVersion = await _answer(call)
        except RemoteError as error:
            if error.code in _PASSING and error.reason != _TOO_LARGE:
                raise away(error) from error
            # The request of another release of this program may differ, and the version be there all the same.
            published = await self._version_of(job, metadata) if error.reason == _REQUEST_ID_REUSED else ""
            if not published:
                raise PublicationRefused(error.message) from error
            return published
        return version.name

    async def find_blob(self, digest: str) -> str | None:
        """See `removal.BlobStore`."""
        request = artifact_service_pb2.GetBlobRequest(digest=digest)
        call = self._artifacts.GetBlob(request, timeout=self._timeout_s, metadata=self._metadata(*_ITSELF))
        try:
            blob: artifact_service_pb2.Blob = await _answer(call)
        except RemoteError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise away(error) from error
        return blob.etag

    async def delete_blob(self, digest: str, etag: str) -> bool:
        """See `removal.BlobStore`."""
        request = artifact_service_pb2.DeleteBlobRequest(digest=digest, etag=etag)
        metadata = self._metadata(*_ITSELF)
        try:
            answer: artifact_service_pb2.DeleteBlobResponse = await _answer(
                self._artifacts.DeleteBlob(request, timeout=self._timeout_s, metadata=metadata)
            )
        except RemoteError as error:
            if error.code is grpc.StatusCode.FAILED_PRECONDITION:
                return False  # a version or a dataset has the very same content
            if error.reason == _CONFLICT:
                raise Conflict(error.message) from error
            raise away(error) from error
        return answer.existed

    async def _version_of(self, job: Job, metadata: list[tuple[str, str]]) -> str:
        """The newest version that this job has made, empty if there is none; raises Unavailable."""
        request = model_service_pb2.ListModelVersionsRequest(parent=f"models/{job.model}", page_size=MAX_PAGE_SIZE)
        call = self._models.ListModelVersions(request, timeout=self._timeout_s, metadata=metadata)
        try:
            page: model_service_pb2.ListModelVersionsResponse = await _answer(call)
        except RemoteError as error:
            raise away(error) from error
        return next((version.name for version in page.model_versions if version.training_job == job.name), "")

    def _metadata(self, subject: str, tenant: str, roles: frozenset[str]) -> list[tuple[str, str]]:
        metadata = self._purse.metadata(subject, tenant, roles)
        request_id = current_request_id()
        return [*metadata, (REQUEST_ID_HEADER, request_id)] if request_id else metadata


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise RemoteError.from_rpc(error) from error


def away(error: RemoteError) -> ModelyardError:
    """What our caller is told when the registry did not do its part."""
    log.warning("the registry failed", code=error.code.name, reason=error.reason, text=error.message)
    return Unavailable("the registry is away; try again", retry_after=error.retry_after or _RETRY_AFTER_S)
