"""Datasets: immutable tables with the facts about their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Row, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import AlreadyExists, InvalidFields, NotFound
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.tokens import Caller

from .content.messages import ColumnFacts, TableFacts
from .inspections import Inspections, content_of
from .repetition import Repetition, Request
from .tables import datasets
from .tenancy import owns, visible_to
from .upload_ledger import UploadLedger, hold_blob
from .upserts import insert_if_absent


@dataclass(frozen=True, slots=True)
class NewDataset:
    """What a caller says of a dataset; its form is checked."""

    id: str
    format: str
    """`csv`, `parquet` or `npz`."""
    digest: str
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset."""

    id: str
    tenant: str
    display_name: str
    labels: Mapping[str, str]
    format: str
    digest: str
    size_bytes: int
    table: TableFacts
    create_time: int


class Datasets:
    """Creates and finds datasets."""

    def __init__(
        self, database: Database, repetition: Repetition, ledger: UploadLedger, inspections: Inspections
    ) -> None:
        self._database = database
        self._repetition = repetition
        self._ledger = ledger
        self._inspections = inspections

    async def create(self, caller: Caller, new: NewDataset, request_id: str = "") -> Dataset:
        """Reads the blob through and makes it a dataset, or answers the one that is there with the same content.

        Raises InvalidFields if there is no such blob, MalformedContent with the place of what is wrong in it, TooLarge,
        AlreadyExists if the id has other content, RequestIdReused.
        """
        request = Request.of(caller.tenant, request_id, "CreateDataset", asdict(new))
        if await self._repetition.result_of(request) is None and not await self._exists(caller, new):
            blob = await self._ledger.blob(new.digest)
            if blob is None:
                raise _no_blob(new.digest)
            with content_of("dataset.digest"):
                table = await self._inspections.table(blob, new.format)
            row = {
                **asdict(new), "tenant": caller.tenant, "size_bytes": blob.size_bytes, "row_count": table.row_count,
                "columns": [asdict(column) for column in table.columns], "create_time": now_us(),
            }  # fmt: skip
            await self._repetition.once(request, partial(self._insert, caller, new, row))
        return await self.get(caller, new.id)

    async def _exists(self, caller: Caller, new: NewDataset) -> bool:
        """Whether exactly this dataset is there; raises AlreadyExists for another one under its id."""
        async with self._database.read() as connection:
            return await _is_there(connection, caller, new)

    async def _insert(self, caller: Caller, new: NewDataset, row: dict[str, Any], connection: AsyncConnection) -> str:
        if not await hold_blob(connection, new.digest):
            raise _no_blob(new.digest)
        await connection.execute(insert_if_absent(self._database, datasets, row))
        await _is_there(connection, caller, new)  # somebody else may have come first, with other content
        return new.id

    async def get(self, caller: Caller, dataset_id: str) -> Dataset:
        """One dataset; raises NotFound."""
        query = select(datasets).where(datasets.c.id == dataset_id, visible_to(caller, datasets.c.tenant))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound.resource(f"datasets/{dataset_id}")
        return _to_dataset(row)

    async def list(self, caller: Caller, page_size: int, page_token: str) -> tuple[list[Dataset], str]:
        """A page of the datasets that the caller may see, newest first, and the token of the next."""
        query = select(datasets).where(visible_to(caller, datasets.c.tenant))
        position = decode_token(page_token, int, str)
        if position is not None:
            query = query.where(tuple_(datasets.c.create_time, datasets.c.id) < tuple_(*position))
        query = query.order_by(datasets.c.create_time.desc(), datasets.c.id.desc()).limit(page_size + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        page = [_to_dataset(row) for row in rows[:page_size]]
        return page, encode_token(page[-1].create_time, page[-1].id) if len(rows) > page_size else ""


def _no_blob(digest: str) -> InvalidFields:
    return InvalidFields.one("dataset.digest", f"there is no blob {digest}; upload it first")


async def _is_there(connection: AsyncConnection, caller: Caller, new: NewDataset) -> bool:
    row = (await connection.execute(select(datasets).where(datasets.c.id == new.id))).one_or_none()
    if row is None:
        return False
    resource = f"datasets/{new.id}"
    if not owns(caller, row.tenant):
        raise AlreadyExists(f"{resource} is taken", metadata={"resource": resource})
    if NewDataset(row.id, row.format, row.digest, row.display_name, row.labels) != new:
        raise AlreadyExists(
            f"{resource} exists with other content; datasets never change, so give this one another id",
            metadata={"resource": resource},
        )
    return True


def _to_dataset(row: Row[Any]) -> Dataset:
    columns = tuple(ColumnFacts(**column | {"shape": tuple(column["shape"])}) for column in row.columns)
    return Dataset(
        id=row.id,
        tenant=row.tenant,
        display_name=row.display_name,
        labels=row.labels,
        format=row.format,
        digest=row.digest,
        size_bytes=row.size_bytes,
        table=TableFacts(row.row_count, columns),
        create_time=row.create_time,
    )
