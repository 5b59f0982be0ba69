"""The lease and the conclusion, against a gateway over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from modelyard.core import channels
from modelyard.core.errors import RemoteError
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.training_job_pb2 import TrainingJob, TrainingProgress
from modelyard_workers.bell import Bell
from modelyard_workers.conclusion import conclude
from modelyard_workers.gateway import Gateway, is_stale, may_pass
from modelyard_workers.interruptions import Interruption, Interruptions
from modelyard_workers.lease import Lease
from modelyard_workers.outcomes import internal_failure
from support.identity import Identity
from support.waiting import eventually_sync
from support.worker_surroundings import Surroundings, worker_surroundings

NAME = "trainingJobs/job1"


@pytest.fixture
def surroundings(identity: Identity) -> Iterator[Surroundings]:
    with worker_surroundings(identity) as served:
        yield served


@pytest.fixture
def interruptions() -> Iterator[Interruptions]:
    bell = Bell()
    yield Interruptions(bell)
    bell.close()


@pytest.fixture
def gateway(surroundings: Surroundings) -> Iterator[Gateway]:
    token = channels.TokenFile(surroundings.token_file).metadata
    with channels.sync_channel(surroundings.gateway_server.address, token) as channel:
        yield Gateway(channel)


@contextmanager
def leased(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions, limit_s: float = 60.0
) -> Iterator[Lease]:
    surroundings.submit()
    with Lease(gateway, gateway.claim(NAME, "worker"), interruptions, limit_s) as lease:
        yield lease


def progress(step: int) -> pb.TrainingUpdate:
    return pb.TrainingUpdate(progress=TrainingProgress(step=step))


def succeeded() -> pb.FinishTrainingJobRequest:
    return pb.FinishTrainingJobRequest(name=NAME, attempt=1, succeeded=pb.TrainedArtifact(digest="0" * 64))


def test_a_lease_is_renewed_without_anything_to_say(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.report_interval_s = 0.05
    with leased(surroundings, gateway, interruptions):
        eventually_sync(lambda: len(surroundings.gateway.reports) >= 3)
    assert not surroundings.gateway.updates


def test_flushing_delivers_everything_before_it_returns(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    with leased(surroundings, gateway, interruptions) as lease:
        for step in range(2_500):
            lease.add(progress(step))
        assert lease.flush(30)
        assert surroundings.gateway.steps == list(range(2_500))


def test_updates_close_to_one_another_share_a_report(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    with leased(surroundings, gateway, interruptions) as lease:
        for step in range(100):
            lease.add(progress(step))
        eventually_sync(lambda: len(surroundings.gateway.steps) == 100)
    assert len(surroundings.gateway.reports) <= 2


def test_an_update_that_the_gateway_refuses_does_not_hold_up_the_next(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.refused_log_line = "poison"
    with leased(surroundings, gateway, interruptions) as lease:
        lease.add(pb.TrainingUpdate(log_line="poison"))
        assert lease.flush(30)
        lease.add(progress(1))
        assert lease.flush(30)
    assert surroundings.gateway.steps == [1]
    assert surroundings.gateway.log_lines == []
    assert interruptions.current() is None


def test_the_fence_ends_the_lease_and_flushing(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    with leased(surroundings, gateway, interruptions) as lease:
        surroundings.gateway.stale = True
        lease.add(progress(1))
        assert not lease.flush(30)
    assert interruptions.current() is Interruption.STALE


def test_a_gateway_that_stays_away_is_out_of_contact_with_its_error(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    with leased(surroundings, gateway, interruptions, limit_s=0.2) as lease:
        surroundings.gateway_server.stop()
        lease.add(progress(1))
        eventually_sync(lambda: interruptions.current() is Interruption.OUT_OF_CONTACT)
    assert "UNAVAILABLE" in interruptions.message


def test_a_conclusion_that_is_refused_becomes_a_visible_failure(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.refused_outcomes = {"succeeded"}
    assert conclude(gateway, succeeded(), interruptions, 60) is not None
    assert surroundings.gateway.finished[NAME].failed.reason == TrainingJob.FAILURE_REASON_INTERNAL


def test_a_failure_that_is_refused_too_is_left_to_the_lease(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.refused_outcomes = {"succeeded", "failed"}
    assert conclude(gateway, succeeded(), interruptions, 60) is None


def test_a_cancel_that_comes_while_finishing_is_in_vain_wins(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.lost_finishes = 1
    interruptions.add(Interruption.CANCELLED)
    conclude(gateway, succeeded(), interruptions, 60)
    assert surroundings.gateway.finished[NAME].HasField("cancelled")


def test_concluding_ends_with_the_limit_the_fence_or_the_shutdown(
    surroundings: Surroundings, gateway: Gateway, interruptions: Interruptions
) -> None:
    surroundings.gateway.lost_finishes = 1_000
    assert conclude(gateway, succeeded(), interruptions, limit_s=0.1) is None
    interruptions.add(Interruption.OUT_OF_CONTACT)
    assert conclude(gateway, succeeded(), interruptions, limit_s=3_600) is None
    surroundings.gateway.lost_finishes, surroundings.gateway.stale = 0, True
    failed = internal_failure("x")
    failed.name, failed.attempt = NAME, 1
    assert conclude(gateway, failed, interruptions, limit_s=3_600) is None


def test_errors_are_told_apart_by_what_they_ask_of_a_worker() -> None:
    fence = RemoteError(grpc.StatusCode.ABORTED, "", reason="STALE_ATTEMPT")
    conflict = RemoteError(grpc.StatusCode.ABORTED, "", reason="CONFLICT")
    gone = RemoteError(grpc.StatusCode.NOT_FOUND, "")
    token = RemoteError(grpc.StatusCode.UNAUTHENTICATED, "")
    assert [is_stale(error) for error in (fence, conflict, gone, token)] == [True, False, True, False]
    assert [may_pass(error) for error in (fence, conflict, gone, token)] == [False, False, False, True]


def test_a_token_that_cannot_be_read_is_trouble_with_the_token(surroundings: Surroundings, gateway: Gateway) -> None:
    surroundings.token_file.unlink()
    with pytest.raises(RemoteError, match="token cannot be read") as raised:
        gateway.claim(NAME, "worker")
    assert may_pass(raised.value)
