"""Brings one blob from the artifact store to a file: in constant memory, resumed after every break, verified."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import grpc
import grpc.aio

from modelyard.core.errors import DigestMismatch, RemoteError
from modelyard.core.retries import Backoff, Patience, is_transient
from modelyard.v1 import artifact_service_pb2 as pb

if TYPE_CHECKING:  # the class exists for type checkers only
    from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub

PATIENCE_S = 15.0
"""How long a download goes on trying without getting one byte further; then the load fails, and is itself repeated."""

_SILENCE_S = 30.0  # a stream that sends nothing for so long is given up and resumed
_READ_BYTES = 1024 * 1024


async def download(
    stub: ArtifactServiceAsyncStub, digest: str, size_bytes: int, path: Path, *, patience_s: float = PATIENCE_S
) -> None:
    """Writes the blob to `path`; bytes that an earlier try left there are kept.

    Raises DigestMismatch if the content is not that of `digest`, RemoteError if the store refuses or stays away,
    OSError if the file cannot be written.
    """
    with path.open("ab+") as file:
        await _Download(stub, file, digest, size_bytes, Patience(patience_s, Backoff(limit_s=2.0))).run()


class _Download:
    """One blob on its way, over any number of streams. What touches the disk or hashes runs in threads."""

    def __init__(
        self, stub: ArtifactServiceAsyncStub, file: BinaryIO, digest: str, size_bytes: int, patience: Patience
    ) -> None:
        self._stub = stub
        self._file = file
        self._digest = digest
        self._size_bytes = size_bytes
        self._patience = patience
        self._hasher = hashlib.sha256()
        self._done = 0

    async def run(self) -> None:
        await asyncio.to_thread(self._take_up)
        while self._done < self._size_bytes:
            try:
                await self._stream()
            except RemoteError as error:
                if not is_transient(error):
                    raise
                await asyncio.sleep(self._patience.wait_s(error))
        await asyncio.to_thread(self._finish)

    def _take_up(self) -> None:
        """Reads what is there already."""
        self._file.seek(0)
        while piece := self._file.read(_READ_BYTES):
            self._hasher.update(piece)
            self._done += len(piece)
        if self._done > self._size_bytes:
            raise DigestMismatch(f"the blob {self._digest} has {self._size_bytes} bytes; the file already {self._done}")

    async def _stream(self) -> None:
        """One stream from where the file ends. Raises RemoteError if it breaks or ends early."""
        call = self._stub.ReadBlob(pb.ReadBlobRequest(digest=self._digest, offset=self._done))
        chunks = aiter(call)
        try:
            while self._done < self._size_bytes:
                async with asyncio.timeout(_SILENCE_S):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    raise _broken(f"the stream ended at {self._done} of {self._size_bytes} bytes")
                await asyncio.to_thread(self._take, chunk)
        except grpc.RpcError as error:
            raise RemoteError.from_rpc(error) from error
        except TimeoutError:
            raise _broken(f"the store sent nothing for {_SILENCE_S:g} s") from None
        finally:
            call.cancel()  # without effect on a stream that has ended

    def _take(self, chunk: pb.ReadBlobResponse) -> None:
        if chunk.offset != self._done or self._done + len(chunk.data) > self._size_bytes:
            raise DigestMismatch(
                f"the store sent {len(chunk.data)} bytes at {chunk.offset} of the blob {self._digest}; "
                f"expected at most {self._size_bytes - self._done} at {self._done}"
            )
        self._file.write(chunk.data)
        self._hasher.update(chunk.data)
        self._done += len(chunk.data)
        if chunk.data:
            self._patience.progressed()

    def _finish(self) -> None:
        """Checks the content and makes it durable."""
        found = self._hasher.hexdigest()
        if found != self._digest:
            raise DigestMismatch(f"the content has the SHA-256 {found}, not {self._digest}")
        self._file.flush()
        os.fsync(self._file.fileno())


def _broken(message: str) -> RemoteError:
    return RemoteError(grpc.StatusCode.UNAVAILABLE, message)
