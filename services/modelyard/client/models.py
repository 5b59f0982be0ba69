"""Models, versions and aliases."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.v1 import model_pb2 as model_pb
from modelyard.v1 import model_service_pb2 as pb
from modelyard.v1 import pod_pb2, pod_service_pb2
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.v1.model_service_pb2_grpc import ModelServiceStub
from modelyard.v1.pod_service_pb2_grpc import PodServiceStub

from .connection import DEFAULT_TIMEOUT_S, Connection, RemoteError, is_break, pages, translated
from .durations import to_duration
from .publication import check_publication, publication, upload_version

_RECONNECT_PAUSE_S = 0.3
_INSPECTION_TIMEOUT_S = 600.0


class ModelsClient:
    """`client.models`. Models are named by id (`diabetes`), not by resource name."""

    def __init__(self, connection: Connection) -> None:
        self._stub = ModelServiceStub(connection.channel)
        self._pods = PodServiceStub(connection.channel)
        self._artifacts = ArtifactServiceStub(connection.channel)

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

    def publish(
        self,
        model: str,
        path: Path | str,
        *,
        external_data: Path | str | None = None,
        alias: str = "live",
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> model_pb.ModelVersion:
        """Uploads an ONNX file from anywhere and makes it the model's next version; the model is made if it is missing.

        `external_data`: the file with its weights, under the name by which the graph points to it. `alias` moves to
        the version; empty: none does. `on_progress` hears (bytes sent, bytes in all). A broken upload goes on where it
        broke when it is called again.

        The same content to the same model, alias and labels again answers the version that is there, and moves no
        alias; with a `request_id` only a call with the same one does, and an empty one makes a new version every time.

        Raises InvalidFields or RemoteError (INVALID_ARGUMENT with the reason, if the graph must not be served), and
        OSError if a file cannot be read.
        """
        external = None if external_data is None else Path(external_data)
        check_publication(model, external, alias, request_id)
        version = upload_version(self._artifacts, Path(path), external, on_progress)
        request = publication(model, version, alias, labels or {}, request_id)
        with translated():
            return self._stub.CreateModelVersion(request, timeout=_INSPECTION_TIMEOUT_S)

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

    def promotion(
        self,
        model: str,
        version: int,
        *,
        alias: str = "live",
        etag: str = "",
        reason: str = "",
        wait_s: float = 60.0,
        keep_when_broken: bool = False,
    ) -> Iterator[pb.PromoteModelVersionResponse]:
        """Points an alias to a version and tells how each pod comes to serve it, until all do: the last one's `served`.

        A broken connection is taken up again. Raises RemoteError with the reason VERSION_BROKEN if the version cannot
        be served (the alias is back where it was, unless `keep_when_broken`), NOT_SERVED_YET after `wait_s` seconds,
        CONFLICT for the etag or if somebody moves the alias meanwhile.
        """
        request = pb.PromoteModelVersionRequest(
            name=f"models/{model}/versions/{version}", alias=alias, etag=etag, request_id=uuid.uuid4().hex,
            reason=reason, wait_timeout=to_duration(wait_s), keep_when_broken=keep_when_broken,
        )  # fmt: skip
        give_up = time.monotonic() + wait_s
        while True:
            try:
                yield from self._stub.PromoteModelVersion(request)
                return
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                left_s = give_up - time.monotonic()
                if left_s <= 0 or not is_break(error):
                    raise error from failure
            request.wait_timeout.CopyFrom(to_duration(left_s))
            time.sleep(_RECONNECT_PAUSE_S)

    def promote(
        self, model: str, version: int, *, alias: str = "live", reason: str = "", wait_s: float = 60.0
    ) -> pb.PromoteModelVersionResponse:
        """Points an alias to a version and answers the receipt once every live pod serves it; see `promotion`."""
        *_before, receipt = self.promotion(model, version, alias=alias, reason=reason, wait_s=wait_s)
        return receipt

    def alias(self, model: str, alias: str = "live") -> model_pb.ModelAlias:
        """One alias."""
        request = pb.GetModelAliasRequest(name=f"models/{model}/aliases/{alias}")
        with translated():
            return self._stub.GetModelAlias(request, timeout=DEFAULT_TIMEOUT_S)

    def set_alias(
        self,
        model: str,
        version: int,
        *,
        alias: str = "live",
        traffic: model_pb.Traffic | None = None,
        etag: str = "",
        reason: str = "",
    ) -> model_pb.ModelAlias:
        """Points an alias to a version, and with `traffic` a share of its callers to others. Does not wait for pods.

        With `etag` only if nobody has moved it since it was read.
        """
        target = model_pb.ModelAlias(
            name=f"models/{model}/aliases/{alias}", version=version, traffic=traffic, etag=etag
        )
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

    def shadow_report(self, model: str, *, alias: str = "live") -> model_pb.ShadowReport:
        """How the answers of the alias's shadow version compare with those that callers get."""
        request = pb.GetShadowReportRequest(name=f"models/{model}/aliases/{alias}")
        with translated():
            return self._stub.GetShadowReport(request, timeout=DEFAULT_TIMEOUT_S)

    def pods(self, model: str = "", *, limit: int | None = None) -> Iterator[pod_pb2.Pod]:
        """The inference pods and what each serves: of one model, or of all."""

        def fetch(token: str) -> tuple[list[pod_pb2.Pod], str]:
            request = pod_service_pb2.ListPodsRequest(page_token=token, model=f"models/{model}" if model else "")
            with translated():
                page = self._pods.ListPods(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.pods), page.next_page_token

        return pages(fetch, limit)

    def history(self, model: str, *, alias: str = "", limit: int | None = None) -> Iterator[model_pb.ModelAliasChange]:
        """Every move of a model's aliases, newest first."""

        def fetch(token: str) -> tuple[list[model_pb.ModelAliasChange], str]:
            request = pb.ListModelAliasChangesRequest(parent=f"models/{model}", page_token=token, alias=alias)
            with translated():
                page = self._stub.ListModelAliasChanges(request, timeout=DEFAULT_TIMEOUT_S)
            return list(page.changes), page.next_page_token

        return pages(fetch, limit)
