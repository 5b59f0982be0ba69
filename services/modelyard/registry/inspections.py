"""What is in a blob, read once: blobs never change, so an answer stays right.

A reading goes on when its caller hangs up. A caller with a short deadline that repeats its call then finds the answer,
instead of starting from nothing for ever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from modelyard.core.errors import MalformedContent, NotFound, TooLarge

from .blob_store import BlobStore
from .content.limits import ExternalFile
from .content.messages import GraphFacts, TableFacts
from .content.sandbox import ContentReader
from .upload_ledger import Blob

_REMEMBERED = 256

T = TypeVar("T")


@contextmanager
def content_of(field: str) -> Iterator[None]:
    """Says of content that is refused inside which field of the request led to it."""
    try:
        yield
    except (MalformedContent, TooLarge) as error:
        error.metadata["field"] = field
        raise


class Inspections:
    """Reads blobs in the sandbox and remembers what was found in the last ones.

    Raises NotFound for a blob that is deleted while it is read.
    """

    def __init__(self, store: BlobStore, reader: ContentReader) -> None:
        self._store = store
        self._reader = reader
        self._readings: OrderedDict[tuple[str, str], asyncio.Task[Any]] = OrderedDict()

    async def table(self, blob: Blob, table_format: str) -> TableFacts:
        """Rows and columns of a `csv`, `parquet` or `npz` blob; raises MalformedContent or TooLarge."""

        async def read(path: Path) -> TableFacts:
            return await self._reader.read_table(path, table_format)

        return await self._shared(blob, table_format, read)

    async def graph(self, blob: Blob, external: ExternalFile | None = None) -> GraphFacts:
        """The signature of an ONNX blob, whose weights may be in `external`; raises MalformedContent or TooLarge."""

        async def read(path: Path) -> GraphFacts:
            return await self._reader.read_graph(path, external)

        kind = "onnx" if external is None else f"onnx with {external.size_bytes} bytes in {external.location}"
        return await self._shared(blob, kind, read)

    async def close(self) -> None:
        """Ends the readings that still run."""
        for reading in self._readings.values():
            reading.cancel()
        await asyncio.gather(*self._readings.values(), return_exceptions=True)

    async def _shared(self, blob: Blob, kind: str, read: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
        key = (blob.key, kind)
        reading: asyncio.Task[T] | None = self._readings.get(key)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._readings[key] = asyncio.create_task(self._read(blob, read))
        self._readings.move_to_end(key)
        self._drop_oldest()
        return await asyncio.shield(reading)

    async def _read(self, blob: Blob, read: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
        try:
            async with self._store.as_file(blob.key, blob.size_bytes) as path:
                return await read(path)
        except Exception:
            if await self._store.has(blob.key):
                raise
            raise NotFound.resource(f"blobs/{blob.digest}") from None  # deleted meanwhile

    def _drop_oldest(self) -> None:
        ended = [key for key, reading in self._readings.items() if reading.done()]
        for key in ended[: len(ended) - _REMEMBERED] if len(ended) > _REMEMBERED else ():
            del self._readings[key]
