"""`client.training.watch` over every kind of break, against a real gRPC server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.client import Client, RemoteError
from modelyard.v1.training_job_pb2 import TrainingJobEvent
from support.identity import Identity
from support.scripted_training import NAME, Script, scripted_training
from support.waiting import eventually_sync


@pytest.fixture
def script(identity: Identity, tmp_path: Path) -> Iterator[Script]:
    with scripted_training(identity, tmp_path) as one:
        yield one


@pytest.fixture
def client(script: Script, identity: Identity) -> Iterator[Client]:
    with Client(script.server.address, identity.token("developer")) as one:
        yield one


class Watcher(threading.Thread):
    """Reads a watch to its end in a thread of its own."""

    def __init__(self, events: Iterator[TrainingJobEvent]) -> None:
        super().__init__(daemon=True)
        self._events = events
        self.seen: list[int] = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for event in self._events:
                self.seen.append(event.sequence)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.error = error

    def finished(self) -> list[int]:
        """The sequence numbers that were seen, once the watch has ended."""
        self.join(30)
        assert not self.is_alive()
        return self.seen


def finish(script: Script, lines: int = 5) -> list[int]:
    """Lets the job print some lines and succeed; answers the sequence numbers of its whole history."""
    for number in range(lines):
        script.log(f"line {number}")
    script.enter("SUCCEEDED", model_version="models/houses/versions/1")
    return list(range(1, script.training.job.last_sequence + 1))


def test_a_server_that_restarts_costs_no_event_and_repeats_none(script: Script, client: Client) -> None:
    heard: list[RemoteError | None] = []
    watcher = Watcher(client.training.watch(NAME, on_contact=heard.append))
    for _ in range(2):
        script.log("before")
        eventually_sync(lambda: watcher.seen[-1:] == [script.training.job.last_sequence])
        already = len(heard)
        script.server.stop()
        eventually_sync(lambda: len(heard) > already)  # noqa: B023 - probed within this turn
        script.log("while nobody could hear")
        script.server.start()
    whole = finish(script)
    assert watcher.finished() == whole
    assert watcher.error is None
    assert heard[0] is not None
    assert heard[-1] is None


def test_streams_that_break_after_every_second_event(script: Script, client: Client) -> None:
    script.training.breaks_after = 2
    whole = finish(script)
    assert [event.sequence for event in client.training.watch(NAME)] == whole
    assert script.watches() == [0, 2, 4, 6]


def test_streams_that_end_early_as_if_all_were_well(script: Script, client: Client) -> None:
    script.training.ends_after = 3
    whole = finish(script)
    assert [event.sequence for event in client.training.watch(NAME)] == whole


def test_a_cluster_that_stays_away_is_given_up_with_its_error(script: Script, client: Client) -> None:
    watcher = Watcher(client.training.watch(NAME, patience_s=0.5))
    eventually_sync(lambda: watcher.seen == [1])
    script.server.stop()
    assert watcher.finished() == [1]
    assert isinstance(watcher.error, RemoteError)
    assert watcher.error.code.name == "UNAVAILABLE"


def test_what_a_service_refuses_is_no_break(script: Script, client: Client) -> None:
    with pytest.raises(RemoteError, match="does not exist"):
        client.training.wait("trainingJobs/other")


def test_a_pause_ends_a_watch_that_asks_for_it(script: Script, client: Client) -> None:
    script.enter("PAUSING")
    script.enter("PAUSED")
    assert [event.sequence for event in client.training.watch(NAME, until_paused=True)] == [1, 2, 3]
    # Also one that begins behind the pause, where the stream has nothing to say.
    assert list(client.training.watch(NAME, after_sequence=3, until_paused=True)) == []


def test_a_pause_of_long_ago_ends_nothing(script: Script, client: Client) -> None:
    script.enter("PAUSED")
    script.enter("QUEUED")
    whole = finish(script)
    assert [event.sequence for event in client.training.watch(NAME, until_paused=True)] == whole


def test_waiting_goes_on_through_a_pause_and_does_not_read_the_history_again(script: Script, client: Client) -> None:
    for number in range(50):
        script.log(str(number))
    script.enter("PAUSED")
    threading.Timer(0.2, lambda: finish(script)).start()
    assert client.training.wait(NAME).model_version == "models/houses/versions/1"
    assert script.watches() == [52]


def test_the_history_alone_ends_with_what_is_recorded(script: Script, client: Client) -> None:
    script.log("one")
    assert [event.sequence for event in client.training.watch(NAME, history_only=True)] == [1, 2]


def test_a_job_is_asked_for_until_the_cluster_answers(script: Script, client: Client) -> None:
    script.server.stop()
    threading.Timer(0.5, script.server.start).start()
    assert client.training.get(NAME, patience_s=60).name == NAME
    script.server.stop()
    with pytest.raises(RemoteError):
        client.training.get(NAME)
