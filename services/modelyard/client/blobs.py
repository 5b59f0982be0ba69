"""Moves files to and from the artifact store in constant memory, over as many broken connections as it takes.

Content is addressed by its SHA-256: the digest is computed here before an upload and checked here after a download, so
neither the network nor the store has to be trusted. Blocking; used by the Python client and by the training workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import grpc

from modelyard.core.errors import DigestMismatch, RemoteError
from modelyard.core.names import check_digest
from modelyard.core.retries import Backoff, Patience, is_transient
from modelyard.v1 import artifact_service_pb2 as pb
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub

CHUNK_BYTES = 1024 * 1024
"""Bytes read and sent at a time."""

DEFAULT_PATIENCE_S = 60.0
"""How long a transfer goes on trying without getting one byte further."""

_CALL_S = 15.0
_DOWNLOAD_STREAM_S = 30.0  # a stalled stream is given up and resumed; that costs the store one seek
_UPLOAD_STREAM_S = 120.0
_SLOWEST_BYTES_PER_S = 256 * 1024
_POLL_S = 0.25
_RESUMABLE_REASONS = frozenset({"OFFSET_MISMATCH"})  # somebody else is sending the same content: ask how far it is


class Progress(Protocol):
    """Hears how far a transfer is, in the caller's thread, at least a few times a second while data flows.

    What it raises ends the transfer and reaches the caller; that is how one cancels.
    """

    def __call__(self, done_bytes: int, total_bytes: int, /) -> None:
        """`done_bytes` of `total_bytes` are there. After a break it may step back."""


def _silent(_done_bytes: int, _total_bytes: int, /) -> None:
    """For callers who do not ask."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file's content is."""

    digest: str
    """SHA-256, hexadecimal."""
    size_bytes: int


def fingerprint(path: Path, on_progress: Progress | None = None) -> Fingerprint:
    """Reads a file through; raises OSError if it cannot be read."""
    notify = on_progress or _silent
    hasher, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            done += len(chunk)
            notify(done, max(done, total))
    return Fingerprint(hasher.hexdigest(), done)


def upload_file(
    stub: ArtifactServiceStub,
    path: Path,
    on_progress: Progress | None = None,
    *,
    content: Fingerprint | None = None,
    patience_s: float = DEFAULT_PATIENCE_S,
) -> str:
    """Makes the file a blob and answers its digest. What the store has already is not sent again.

    `content`: the file's fingerprint, for callers who know it; else it is computed.

    Raises RemoteError when the store refuses (DIGEST_MISMATCH if the file changed meanwhile) or when `patience_s`
    seconds passed without progress, and OSError if the file cannot be read.
    """
    content = content or fingerprint(path)
    with path.open("rb") as file:
        _Upload(stub, file, content, on_progress or _silent, _patience(patience_s)).run()
    return content.digest


def download_blob(
    stub: ArtifactServiceStub,
    digest: str,
    path: Path,
    on_progress: Progress | None = None,
    *,
    patience_s: float = DEFAULT_PATIENCE_S,
) -> int:
    """Writes the blob to `path`, which appears complete and verified or not at all; answers its size in bytes.

    Raises DigestMismatch if the bytes are not those of `digest`, InvalidFields if `digest` is none, RemoteError
    (NOT_FOUND, or whatever the store answered when `patience_s` seconds passed without progress), and OSError if the
    file cannot be written.
    """
    check_digest(digest, "digest")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = _Download(stub, file, digest, on_progress or _silent, _patience(patience_s)).run()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return size


def _patience(limit_s: float) -> Patience:
    # Short waits: the caller hears nothing, and so cannot cancel, while one lasts.
    return Patience(limit_s, Backoff(limit_s=2.0))


class _Upload:
    """One file on its way up, over any number of streams."""

    def __init__(
        self, stub: ArtifactServiceStub, file: BinaryIO, content: Fingerprint, notify: Progress, patience: Patience
    ) -> None:
        self._stub = stub
        self._file = file
        self._content = content
        self._notify = notify
        self._patience = patience
        self._committed = -1

    def run(self) -> None:
        while True:
            try:
                if self._try():
                    return
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                if not (is_transient(error) or error.reason in _RESUMABLE_REASONS):
                    raise error from failure
                self._notify(max(self._committed, 0), self._content.size_bytes)
                time.sleep(self._patience.wait_s(error))

    def _try(self) -> bool:
        """One stream from where the store is; answers whether the blob is complete."""
        # Announcing again is how one asks: it answers the unfinished upload, a new one if that has expired, or
        # that the blob is complete.
        request = pb.StartUploadRequest(digest=self._content.digest, size_bytes=self._content.size_bytes)
        upload = self._stub.StartUpload(request, timeout=_CALL_S)
        self._note(upload)
        if not upload.complete:
            upload = self._send(upload)
            self._note(upload)
        return upload.complete

    def _note(self, upload: pb.Upload) -> None:
        if upload.complete or upload.committed_bytes > self._committed:
            self._patience.progressed()
        self._committed = upload.committed_bytes
        self._notify(self._content.size_bytes if upload.complete else self._committed, self._content.size_bytes)

    def _send(self, upload: pb.Upload) -> pb.Upload:
        """Sends the rest in one stream, telling the caller how far it is while gRPC's thread takes the chunks."""
        remaining = self._content.size_bytes - upload.committed_bytes
        chunks = _Chunks(self._file, upload)
        call = self._stub.WriteUpload.future(chunks, timeout=_UPLOAD_STREAM_S + remaining / _SLOWEST_BYTES_PER_S)
        try:
            while True:
                with contextlib.suppress(grpc.FutureTimeoutError):
                    return call.result(timeout=_POLL_S)
                self._notify(chunks.offset, self._content.size_bytes)
        except grpc.RpcError:
            if chunks.failure is not None:
                raise chunks.failure from None  # gRPC only says that iterating failed
            raise
        finally:
            call.cancel()  # without effect on a call that has ended


class _Chunks(Iterator[pb.WriteUploadRequest]):
    """A file's rest as the messages of an upload stream.

    gRPC pulls them in a thread of its own, which may still be at it when a broken stream has been given up and the
    next one reads. So each stream has its own descriptor, and reads by offset.
    """

    def __init__(self, file: BinaryIO, upload: pb.Upload) -> None:
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._name = upload.name
        self._first = True
        self.offset = upload.committed_bytes
        """Where the next chunk begins."""
        self.failure: OSError | None = None
        """What reading the file raised."""

    def __next__(self) -> pb.WriteUploadRequest:
        try:
            data = os.pread(self._descriptor, CHUNK_BYTES, self.offset)
        except OSError as error:
            self.failure = error
            raise
        # An empty blob needs one message too: it names the upload.
        if not data and not self._first:
            raise StopIteration
        self._first = False
        message = pb.WriteUploadRequest(name=self._name, offset=self.offset, data=data)
        self.offset += len(data)
        return message


class _Download:
    """One blob on its way down, over any number of streams."""

    def __init__(
        self, stub: ArtifactServiceStub, file: BinaryIO, digest: str, notify: Progress, patience: Patience
    ) -> None:
        self._stub = stub
        self._file = file
        self._digest = digest
        self._notify = notify
        self._patience = patience
        self._hasher = hashlib.sha256()
        self._done = 0
        self._total: int | None = None

    def run(self) -> int:
        while True:
            try:
                if self._try():
                    return self._done
            except grpc.RpcError as failure:
                error = RemoteError.from_rpc(failure)
                if not is_transient(error):
                    raise error from failure
                self._notify(self._done, self._total or self._done)
                time.sleep(self._patience.wait_s(error))

    def _try(self) -> bool:
        """One stream from where the file ends; answers whether the content is complete, and checked."""
        if self._total is None:
            self._total = self._stub.GetBlob(pb.GetBlobRequest(digest=self._digest), timeout=_CALL_S).size_bytes
            self._notify(0, self._total)
        request = pb.ReadBlobRequest(digest=self._digest, offset=self._done)
        stream = self._stub.ReadBlob(request, timeout=_DOWNLOAD_STREAM_S)
        try:
            for chunk in stream:
                self._take(chunk, self._total)
        finally:
            stream.cancel()  # without effect on a stream that has ended
        if self._done < self._total:
            # The store ended the stream early and called it a success; the same as a break.
            self._pause(f"the stream ended at {self._done} of {self._total} bytes")
            return False
        self._verify()
        return True

    def _pause(self, message: str) -> None:
        time.sleep(self._patience.wait_s(RemoteError(grpc.StatusCode.DATA_LOSS, message)))

    def _take(self, chunk: pb.ReadBlobResponse, total: int) -> None:
        if chunk.offset != self._done or self._done + len(chunk.data) > total:
            raise RemoteError(
                grpc.StatusCode.DATA_LOSS,
                f"the store sent {len(chunk.data)} bytes at {chunk.offset}; expected at most {total - self._done}"
                f" at {self._done}",
            )
        self._file.write(chunk.data)
        self._hasher.update(chunk.data)
        self._done += len(chunk.data)
        if chunk.data:
            self._patience.progressed()
        self._notify(self._done, total)

    def _verify(self) -> None:
        found = self._hasher.hexdigest()
        if found != self._digest:
            raise DigestMismatch(f"the store sent content with SHA-256 {found} for the blob {self._digest}")
