"""A worker's presence, against a gateway over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelyard.core import channels
from modelyard.v1.training_service_pb2 import Worker
from modelyard_workers.bell import Bell
from modelyard_workers.gateway import Gateway
from modelyard_workers.presence import RARELY_S, Presence
from support.identity import Identity
from support.waiting import eventually_sync
from support.worker_surroundings import Surroundings, worker_surroundings


@pytest.fixture
def surroundings(identity: Identity) -> Iterator[Surroundings]:
    with worker_surroundings(identity) as served:
        yield served


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


@pytest.fixture
def presence(surroundings: Surroundings, bell: Bell) -> Iterator[Presence]:
    token = channels.TokenFile(surroundings.token_file).metadata
    with channels.sync_channel(surroundings.gateway_server.address, token) as channel:
        presence = Presence(Gateway(channel), "host/1", "host", ["gpu", "cpu"], bell, lambda: "abacus")
        yield presence
        presence.close()


def states(surroundings: Surroundings) -> list[tuple[str, str]]:
    return [(Worker.State.Name(one.state), one.training_job) for one in surroundings.gateway.presences]


def test_changes_are_told_at_once_and_the_same_again_and_again(surroundings: Surroundings, presence: Presence) -> None:
    surroundings.gateway.report_interval_s = 3_600
    presence.start()
    eventually_sync(lambda: len(surroundings.gateway.presences) == 1)
    first = surroundings.gateway.presences[0]
    assert (first.worker, first.node, list(first.queues), first.hardware) == (
        "host/1",
        "host",
        ["gpu", "cpu"],
        "abacus",
    )
    presence.busy("trainingJobs/a")
    eventually_sync(lambda: len(surroundings.gateway.presences) == 2)
    surroundings.gateway.report_interval_s = 0.05
    presence.idle()
    eventually_sync(lambda: len(surroundings.gateway.presences) >= 6)
    told = states(surroundings)
    assert told[:2] == [("STATE_IDLE", ""), ("STATE_BUSY", "trainingJobs/a")]
    assert set(told[2:]) == {("STATE_IDLE", "")}


def test_a_shutdown_is_told_while_the_job_still_runs(
    surroundings: Surroundings, presence: Presence, bell: Bell
) -> None:
    surroundings.gateway.report_interval_s = 3_600
    presence.start()
    presence.busy("trainingJobs/a")
    eventually_sync(lambda: ("STATE_BUSY", "trainingJobs/a") in states(surroundings))
    bell.ring()
    eventually_sync(lambda: states(surroundings)[-1] == ("STATE_STOPPING", "trainingJobs/a"))
    presence.idle()
    eventually_sync(lambda: states(surroundings)[-1] == ("STATE_STOPPING", ""))


def test_a_gateway_that_does_not_know_the_call_is_asked_rarely(surroundings: Surroundings, presence: Presence) -> None:
    surroundings.gateway.knows_presence = False
    presence.start()
    eventually_sync(lambda: presence._interval_s == RARELY_S)
    presence.close()
    assert surroundings.gateway.presences == []


def test_a_gateway_that_was_away_hears_again_of_the_worker(surroundings: Surroundings, presence: Presence) -> None:
    surroundings.gateway_server.stop()
    presence.start()
    eventually_sync(lambda: presence._reached is False)
    surroundings.gateway_server.start()
    presence.busy("trainingJobs/a")
    eventually_sync(lambda: states(surroundings)[-1:] == [("STATE_BUSY", "trainingJobs/a")])
