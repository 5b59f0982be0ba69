"""Whatever is in the content, the service gets an answer and lives on. Every case here runs a real process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import MalformedContent, TooLarge
from modelyard.registry.content.limits import MEBIBYTE
from modelyard.registry.content.sandbox import ContentReader, SandboxLimits
from support.onnx_graphs import onnx_bytes
from support.waiting import eventually


@pytest.fixture
async def reader() -> AsyncIterator[ContentReader]:
    async with ContentReader() as reader:
        yield reader


async def test_tables_and_graphs_are_read(reader: ContentReader, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "m.onnx").write_bytes(onnx_bytes())
    table = await reader.read_table(tmp_path / "t.csv", "csv")
    graph = await reader.read_graph(tmp_path / "m.onnx")
    assert (table.row_count, table.columns[0].shape) == (1, ())
    assert graph.inputs[0].shape == (-1, 2)


async def test_what_is_wrong_reaches_the_caller(reader: ContentReader, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1\n")
    with pytest.raises(MalformedContent, match="row 1 has 1 columns"):
        await reader.read_table(tmp_path / "t.csv", "csv")


async def test_more_readings_than_processes_wait_for_one_another(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    async with ContentReader(SandboxLimits(processes=2)) as reader:
        tables = await asyncio.gather(*(reader.read_table(tmp_path / "t.csv", "csv") for _ in range(5)))
    assert [table.row_count for table in tables] == [1] * 5


async def test_content_that_unpacks_to_too_much_memory_is_refused(tmp_path: Path) -> None:
    bomb = pa.table({"text": ["x" * 96 * MEBIBYTE]})
    pq.write_table(bomb, tmp_path / "t.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    assert (tmp_path / "t.parquet").stat().st_size < MEBIBYTE
    async with ContentReader(SandboxLimits(memory_bytes=64 * MEBIBYTE)) as reader:
        with pytest.raises(TooLarge, match="memory"):
            await reader.read_table(tmp_path / "t.parquet", "parquet")


async def test_content_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    async with ContentReader(SandboxLimits(time_s=1)) as reader:
        with endless(tmp_path) as pipe, pytest.raises(TooLarge, match="longer than 1 s"):
            await reader.read_graph(pipe)


async def test_a_reader_that_crashes_is_an_answer_and_the_next_one_reads(reader: ContentReader, tmp_path: Path) -> None:
    with endless(tmp_path) as pipe:
        reading = asyncio.create_task(reader.read_graph(pipe))
        os.kill(await eventually(lambda: pid_reading(pipe)), signal.SIGSEGV)
        with pytest.raises(MalformedContent, match="crashes its reader"):
            await reading
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert (await reader.read_table(tmp_path / "t.csv", "csv")).row_count == 1


async def test_a_caller_that_hangs_up_ends_the_reading(reader: ContentReader, tmp_path: Path) -> None:
    with endless(tmp_path) as pipe:
        reading = asyncio.create_task(reader.read_graph(pipe))
        pid = await eventually(lambda: pid_reading(pipe))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert not psutil.pid_exists(pid)


async def test_the_reader_does_not_know_the_services_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELYARD_REGISTRY_BLOB_SECRET_ACCESS_KEY", "swordfish")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")
    async with ContentReader() as reader:
        with endless(tmp_path) as pipe:
            reading = asyncio.create_task(reader.read_graph(pipe))
            environment = psutil.Process(await eventually(lambda: pid_reading(pipe))).environ()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    assert "PATH" in environment
    assert "swordfish" not in environment.values()


async def test_a_reader_that_ended_while_it_waited_costs_nobody_an_answer(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    async with ContentReader() as reader:
        for process in await eventually(waiting_readers):
            process.kill()
        assert (await reader.read_table(tmp_path / "t.csv", "csv")).row_count == 1


@contextmanager
def endless(folder: Path) -> Iterator[Path]:
    """A pipe: what reads it waits for bytes that never come."""
    pipe = folder / "endless"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        yield pipe
    finally:
        os.close(descriptor)


async def pid_reading(pipe: Path) -> int:
    """The reading process that has opened the pipe; 0 while there is none."""
    return await asyncio.to_thread(_find_reader, pipe)


def _find_reader(pipe: Path) -> int:
    for child in psutil.Process().children():
        try:
            opened = [entry.readlink() for entry in Path(f"/proc/{child.pid}/fd").iterdir()]
        except OSError:
            continue
        if pipe in opened:
            return int(child.pid)
    return 0


async def waiting_readers() -> list[psutil.Process]:
    """The reading processes that are kept ready."""
    return [child for child in psutil.Process().children() if "modelyard.registry.content" in child.cmdline()]
