"""A gigabyte up and down, and a stream that breaks in the middle, in memory that hardly grows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from modelyard.client.blobs import Fingerprint, download_blob, fingerprint, upload_file
from modelyard.core.channels import fixed_token, sync_channel
from modelyard.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from support.identity import Identity
from support.registry_program import RegistryProgram

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
ALLOWED_GROWTH = 100 * MEBIBYTE


class HangUp(Exception):
    """Ends a transfer from the client's side."""


class MemoryPeak:
    """The most memory that a process held while the block ran, above what it held before."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.growth = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        before, ended = self._process.memory_info().rss, threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                self.growth = max(self.growth, self._process.memory_info().rss - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gigabyte that does not compress to nothing and does not repeat a part."""
    path = tmp_path_factory.mktemp("large") / "content"
    with path.open("wb") as file:
        for number in range(GIBIBYTE // MEBIBYTE):
            file.write(number.to_bytes(8, "little") * (MEBIBYTE // 8))
    return path


@pytest.fixture(scope="module")
def content(large_file: Path) -> Fingerprint:
    return fingerprint(large_file)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gigabyte_goes_up_resumed_after_a_break_and_comes_down_in_little_memory(
    tmp_path: Path, identity: Identity, large_file: Path, content: Fingerprint
) -> None:
    def break_in_the_middle(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes // 2:
            raise HangUp

    resumed_at: list[int] = []
    with RegistryProgram(tmp_path, identity) as program:
        registry, client = MemoryPeak(program.process.pid), MemoryPeak(psutil.Process().pid)
        with sync_channel(program.address, fixed_token(identity.token("worker"))) as channel:
            stub = ArtifactServiceStub(channel)
            with registry.watched(), client.watched():
                with pytest.raises(HangUp):
                    upload_file(stub, large_file, break_in_the_middle, content=content)
                upload_file(stub, large_file, lambda done, _total: resumed_at.append(done), content=content)
                download_blob(stub, content.digest, tmp_path / "copy")
        assert resumed_at[0] > GIBIBYTE // 4
        assert fingerprint(tmp_path / "copy") == content
        stored = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert [path.name.partition("-")[0] for path in stored] == [content.digest]
    assert registry.growth < ALLOWED_GROWTH
    assert client.growth < ALLOWED_GROWTH
