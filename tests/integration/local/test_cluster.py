"""A local cluster's life in this process: start, restarts, stop."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from modelyard.local import state
from modelyard.local.cluster import ClusterBusy, ClusterOptions, local_cluster
from modelyard.local.supervision import Happening, ProgramEvent, StartFailed
from support.fake_cluster import fake, journal, processes, three
from support.processes import is_alive
from support.waiting import eventually


class Events(list[ProgramEvent]):
    """What a supervisor told."""

    def of(self, happening: Happening, program: str | None = None) -> list[ProgramEvent]:
        return [event for event in self if event.happening is happening and program in (None, event.program)]


def mode(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def exists(path: str) -> bool:
    return Path(path).exists()


def contents(path: str) -> str:
    return Path(path).read_text()


def options(folders: Any, port: int = 0) -> ClusterOptions:
    return ClusterOptions(folders.data, port=port)


async def test_every_program_is_told_of_when_it_is_well_and_the_broker_comes_first(folders: Any) -> None:
    events = Events()
    async with local_cluster(options(folders), events.append, three(folders.programs)):
        assert {event.program for event in events.of(Happening.HEALTHY)} == {"first", "second", "third"}
        assert events[0].program == "first"
        assert journal(folders.programs, "started")[0] == "first"
        assert all(is_alive(event.pid) for event in events)


async def test_programs_stop_in_reverse_order(folders: Any) -> None:
    events = Events()
    async with local_cluster(options(folders), events.append, three(folders.programs)):
        pass
    assert journal(folders.programs, "stopped") == ["third", "second", "first"]
    assert [event.program for event in events.of(Happening.STOPPED)] == ["third", "second", "first"]
    assert not any(map(is_alive, processes(folders.programs).values()))


async def test_a_program_that_ignores_its_signal_is_killed_and_said_to_be(folders: Any) -> None:
    events = Events()
    programs = [fake(folders.programs, "stubborn", "stubborn", stop_grace_s=0.2)]
    async with local_cluster(options(folders), events.append, lambda _: programs):
        pass
    (stopped,) = events.of(Happening.STOPPED)
    assert "killed" in stopped.detail
    assert not is_alive(stopped.pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_program_that_ends_comes_back(folders: Any, how: signal.Signals) -> None:
    events = Events()
    async with local_cluster(options(folders), events.append, three(folders.programs)):
        before = processes(folders.programs)["second"]
        os.kill(before, how)

        async def well_again() -> bool:
            return len(events.of(Happening.HEALTHY, "second")) == 2

        await eventually(well_again)
        (ended,) = events.of(Happening.ENDED)
        assert (ended.program, ended.pid) == ("second", before)
        assert processes(folders.programs)["second"] != before
        assert len(journal(folders.programs, "started")) == 4


async def test_a_program_that_keeps_ending_is_tried_again_with_pauses_and_hurts_no_other(folders: Any) -> None:
    events = Events()
    programs = [fake(folders.programs, "first"), fake(folders.programs, "second", "late-broken")]
    async with local_cluster(options(folders), events.append, lambda _: programs):
        os.kill(processes(folders.programs)["second"], signal.SIGKILL)

        async def ended_thrice() -> bool:
            return len(events.of(Happening.ENDED, "second")) == 3

        await eventually(ended_thrice)
        assert len(events.of(Happening.HEALTHY, "second")) == 1
        assert is_alive(processes(folders.programs)["first"])


async def test_a_start_that_fails_says_why_and_leaves_nothing_running(folders: Any) -> None:
    programs = [fake(folders.programs, "first"), fake(folders.programs, "bad", "broken"), fake(folders.programs, "x")]
    with pytest.raises(StartFailed, match=r"(?s)bad ended with exit code 1.*bad\.log.*it is broken on purpose"):
        async with local_cluster(options(folders), lambda _: None, lambda _: programs):
            raise AssertionError("the cluster has no business to be running")
    assert not any(map(is_alive, processes(folders.programs).values()))
    assert state.discover() is None


async def test_each_program_has_its_own_time_to_become_well(folders: Any) -> None:
    slow = dataclasses.replace(fake(folders.programs, "slow"), probe=lambda: "it loads", start_limit_s=0.2)
    with pytest.raises(StartFailed, match=r"slow is not well after 0 s: it loads"):
        async with local_cluster(options(folders), lambda _: None, lambda _: [fake(folders.programs, "first"), slow]):
            raise AssertionError("the cluster has no business to be running")


async def test_a_start_that_is_interrupted_leaves_nothing_running(folders: Any) -> None:
    slow = dataclasses.replace(fake(folders.programs, "slow"), probe=lambda: "it takes its time")
    never_well = [fake(folders.programs, "first"), slow]

    async def start() -> None:
        async with local_cluster(options(folders), lambda _: None, lambda _: never_well):
            raise AssertionError("it never becomes well")

    starting = asyncio.create_task(start())

    async def both_run() -> bool:
        return set(processes(folders.programs)) == {"first", "slow"}

    await eventually(both_run)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not any(map(is_alive, processes(folders.programs).values()))


async def test_clients_find_the_running_cluster_and_no_other_user_can_read_where_it_is(folders: Any) -> None:
    async with local_cluster(options(folders), lambda _: None, three(folders.programs)) as running:
        found = state.discover()
        assert found == running == state.read(folders.data)
        token = folders.data / "identity/admin/token"
        assert running.token_file == str(token)
        for path in (folders.state / "cluster.json", folders.data / "cluster.json", token):
            assert mode(path) == 0o600
        for folder in (folders.data, running.run_dir, token.parent):
            assert mode(folder) == 0o700
    assert state.discover() is None
    assert state.read(folders.data) is None
    assert not exists(running.run_dir)


async def test_a_second_start_on_the_same_data_goes_on_with_the_same_identity(folders: Any) -> None:
    secrets = []
    for _ in range(2):
        async with local_cluster(options(folders), lambda _: None, three(folders.programs)) as running:
            secrets.append(contents(running.token_file))
    assert secrets[0] == secrets[1]


async def test_a_taken_port_is_said_before_anything_starts(folders: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterBusy, match=f"port {port} is taken"):
            async with local_cluster(options(folders, port), lambda _: None, three(folders.programs)):
                raise AssertionError("two programs cannot listen on one port")
    assert journal(folders.programs, "started") == []


async def test_sockets_fit_also_where_the_temporary_folder_has_a_long_path(
    folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folders.programs / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with local_cluster(options(folders), lambda _: None, three(folders.programs)) as running:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{running.run_dir}/door-admin.sock")


async def test_a_log_that_has_grown_large_is_put_aside(folders: Any) -> None:
    logs = folders.data / "logs"
    logs.mkdir(parents=True)
    (logs / "first.log").write_bytes(b"old\n" * 3_000_000)
    async with local_cluster(options(folders), lambda _: None, three(folders.programs)):
        assert (logs / "first.log").stat().st_size < 1_000
    assert (logs / "first.log.1").stat().st_size == 12_000_000


async def test_the_state_of_an_older_or_broken_file_is_no_cluster(folders: Any) -> None:
    folders.state.mkdir(parents=True)
    for text in ("", "{}", "[]", "not json", json.dumps({"pid": os.getpid()})):
        (folders.state / "cluster.json").write_text(text)
        assert state.discover() is None
