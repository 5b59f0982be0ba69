"""The Redis-protocol server of a local cluster, the real one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from modelyard.local import redis_program
from modelyard.local.redis_program import RedisMissing
from support.waiting import eventually_sync


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        yield Path(name)


@contextmanager
def running(folder: Path) -> Iterator[tuple[redis.Redis, psutil.Process]]:
    unix_socket = folder / "redis.sock"
    command = redis_program.command(redis_program.find_server(), folder, unix_socket)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        eventually_sync(lambda: redis_program.probe(unix_socket) == "")
        with redis.Redis(unix_socket_path=str(unix_socket)) as client:
            yield client, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def test_it_listens_on_its_socket_alone(folder: Path) -> None:
    with running(folder) as (client, process):
        assert client.ping()
        assert process.net_connections(kind="inet") == []
        assert (folder / "redis.sock").stat().st_mode & 0o077 == 0


def test_it_never_drops_a_doorbell_to_make_room(folder: Path) -> None:
    with running(folder) as (client, _):
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_what_was_rung_survives_the_death_of_the_server(folder: Path) -> None:
    with running(folder) as (client, _):
        client.rpush("bell", "trainingJobs/1")
    with running(folder) as (client, _):
        assert client.lrange("bell", 0, -1) == [b"trainingJobs/1"]


def test_a_server_that_is_not_there_is_not_well(folder: Path) -> None:
    assert redis_program.probe(folder / "none.sock")


def test_a_machine_without_a_server_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(redis_program, "find_spec", lambda _name: None)
    with pytest.raises(RedisMissing, match=r"install modelyard\[local\]"):
        redis_program.find_server()


def test_a_server_on_the_path_is_preferred(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = folder / "valkey-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert redis_program.find_server() == own
