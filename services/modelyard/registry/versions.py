"""Versions: immutable ONNX files with where they came from, numbered from 1 within their model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import InvalidFields, NotFound
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .aliases import move_alias
from .content.limits import ExternalFile
from .content.messages import GraphFacts, TensorFacts
from .inspections import Inspections, content_of
from .models import NewModel, ensure_model, require_model
from .repetition import Repetition, Request
from .tables import model_aliases, model_versions, models
from .tenancy import visible_to
from .upload_ledger import Blob, UploadLedger, hold_blob


@dataclass(frozen=True, slots=True)
class Origin:
    """What a caller says of a version; its form is checked."""

    digest: str
    training_job: str = ""
    dataset: str = ""
    dataset_digest: str = ""
    spec_digest: str = ""
    evaluation: bytes | None = field(default=None, repr=False)
    """A serialized modelyard.v1.Evaluation, kept as it is."""
    parity: bytes | None = field(default=None, repr=False)
    """A serialized modelyard.v1.ParityReport, kept as it is."""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    external_data: Mapping[str, Any] = field(default_factory=dict)
    """`digest` and `location` of the file that holds the weights, and its `size_bytes` once that is known; empty if
    there is none."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version."""

    model_id: str
    number: int
    origin: Origin
    size_bytes: int
    graph: GraphFacts
    create_time: int


class Versions:
    """Creates and finds versions."""

    def __init__(
        self,
        database: Database,
        repetition: Repetition,
        ledger: UploadLedger,
        inspections: Inspections,
        on_served: Callable[[], None],
    ) -> None:
        """`on_served` is called after a commit that changed what is served."""
        self._database = database
        self._repetition = repetition
        self._ledger = ledger
        self._inspections = inspections
        self._on_served = on_served

    async def create(
        self, caller: Caller, model_id: str, origin: Origin, *, alias: str = "", request_id: str = ""
    ) -> Version:
        """The next version of the model, which is made if it is missing; `alias` moves to it in the same transaction.

        Raises InvalidFields if there is no such blob, MalformedContent or TooLarge for the graph, AlreadyExists for
        another tenant's model, RequestIdReused.
        """
        request = Request.of(caller.tenant, request_id, "CreateModelVersion", model_id, asdict(origin), alias)
        number = await self._repetition.result_of(request)
        if number is None:
            blob = await self._blob(origin.digest)
            external = None
            if origin.external_data:
                data = await self._blob(origin.external_data["digest"], "external_data.digest")
                external = ExternalFile(origin.external_data["location"], data.size_bytes)
                origin = replace(origin, external_data={**origin.external_data, "size_bytes": data.size_bytes})
            with content_of("model_version.digest"):
                graph = await self._inspections.graph(blob, external)
            work = partial(self._create, caller, model_id, origin, blob, graph, alias)
            number, _now = await self._repetition.once(request, work)
            if alias:
                self._on_served()
        return await self.get(caller, model_id, number)

    async def _blob(self, digest: str, path: str = "digest") -> Blob:
        blob = await self._ledger.blob(digest)
        if blob is None:
            raise _no_blob(digest, path)
        return blob

    async def _create(
        self,
        caller: Caller,
        model_id: str,
        origin: Origin,
        blob: Blob,
        graph: GraphFacts,
        alias: str,
        connection: AsyncConnection,
    ) -> str:
        for digest, path in _blobs_of(origin):  # one may have been deleted while it was read
            if not await hold_blob(connection, digest):
                raise _no_blob(digest, path)
        model = await ensure_model(self._database, connection, caller, NewModel(model_id))
        number: int = model.latest_version + 1
        signature = asdict(graph)
        row = {
            **asdict(origin), **signature, "model_id": model_id, "version": number, "size_bytes": blob.size_bytes,
            "external_digest": origin.external_data.get("digest"), "create_time": now_us(),
        }  # fmt: skip
        await connection.execute(insert(model_versions).values(row))
        changed = {"latest_version": number, "changes": models.c.changes + 1, "update_time": now_us()}
        await connection.execute(update(models).where(models.c.id == model_id).values(changed))
        if alias:
            reason = origin.training_job or f"models/{model_id}/versions/{number} was uploaded"
            await move_alias(connection, model_id, alias, number, caller.subject, reason)
        return str(number)

    async def get(self, caller: Caller, model_id: str, version: str) -> Version:
        """One version by its number or by an alias; raises NotFound."""
        if version.isdecimal():
            chosen: ColumnElement[bool] = model_versions.c.version == int(version)
        else:
            aliased = select(model_aliases.c.version).where(
                model_aliases.c.model_id == model_id, model_aliases.c.alias == version
            )
            chosen = model_versions.c.version == aliased.scalar_subquery()
        query = visible_versions(caller).where(model_versions.c.model_id == model_id, chosen)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound.resource(f"models/{model_id}/versions/{version}")
        return to_version(row)

    async def list(self, caller: Caller, model_id: str, page_size: int, page_token: str) -> tuple[list[Version], str]:
        """A page of the model's versions, newest first, and the token of the next; raises NotFound."""
        newest = model_versions.c.version.desc()
        query = visible_versions(caller).where(model_versions.c.model_id == model_id).order_by(newest)
        position = decode_token(page_token, int)
        if position is not None:
            query = query.where(model_versions.c.version < position[0])
        async with self._database.read() as connection:
            await require_model(connection, caller, model_id)
            rows = (await connection.execute(query.limit(page_size + 1))).all()
        page = [to_version(row) for row in rows[:page_size]]
        return page, encode_token(page[-1].number) if len(rows) > page_size else ""


def _blobs_of(origin: Origin) -> list[tuple[str, str]]:
    """Digest and field of each blob that the version refers to."""
    external = origin.external_data.get("digest")
    return [(origin.digest, "digest")] + ([(external, "external_data.digest")] if external else [])


def _no_blob(digest: str, path: str) -> InvalidFields:
    return InvalidFields.one(f"model_version.{path}", f"there is no blob {digest}; upload it first")


def visible_versions(caller: Caller) -> Any:
    """A query for the versions that the caller may see."""
    joined = select(model_versions).join(models, models.c.id == model_versions.c.model_id)
    return joined.where(visible_to(caller, models.c.tenant))


def to_version(row: Row[Any]) -> Version:
    """A row of `model_versions`."""
    origin = Origin(
        digest=row.digest, training_job=row.training_job, dataset=row.dataset, dataset_digest=row.dataset_digest,
        spec_digest=row.spec_digest, evaluation=row.evaluation, parity=row.parity,
        library_versions=row.library_versions, labels=row.labels, external_data=row.external_data,
    )  # fmt: skip
    graph = GraphFacts(_tensors(row.inputs), _tensors(row.outputs), row.opset_version, row.ir_version)
    return Version(row.model_id, row.version, origin, row.size_bytes, graph, row.create_time)


def _tensors(rows: list[dict[str, Any]]) -> tuple[TensorFacts, ...]:
    return tuple(TensorFacts(row["name"], row["data_type"], tuple(row["shape"])) for row in rows)
