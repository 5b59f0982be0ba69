"""Pauses, preemptions, releases, checkpoints, attempts and progress over gRPC, beside a real registry."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from modelyard.core.errors import RemoteError
from modelyard.v1 import artifact_service_pb2, training_service_pb2, worker_service_pb2
from modelyard.v1.training_job_pb2 import Checkpoint, TrainingAttempt, TrainingProgress
from modelyard.v1.worker_service_pb2 import ReportTrainingJobResponse, TrainingReleased
from support.gateway import GatewayClient, State, update_of
from support.registry import RegistryClient
from support.waiting import eventually

Cause = TrainingAttempt.EndCause


def released(cause: str, message: str = "") -> TrainingReleased:
    return TrainingReleased(cause=Cause.Value(f"END_CAUSE_{cause}"), message=message)


async def pause(admin: GatewayClient, name: str) -> Any:
    return await admin.training.PauseTrainingJob(training_service_pb2.PauseTrainingJobRequest(name=name))


async def resume(admin: GatewayClient, name: str) -> Any:
    return await admin.training.ResumeTrainingJob(training_service_pb2.ResumeTrainingJobRequest(name=name))


async def is_stored(registry: RegistryClient, digest: str) -> bool:
    with suppress(grpc.aio.AioRpcError):
        await registry.artifacts.GetBlob(artifact_service_pb2.GetBlobRequest(digest=digest))
        return True
    return False


async def save(admin: GatewayClient, registry: RegistryClient, name: str, step: int) -> Checkpoint:
    """What the first attempt does with a checkpoint before it reports it."""
    state = f"state {step}".encode()
    saved = Checkpoint(epoch=1, step=step, digest=hashlib.sha256(state).hexdigest(), size_bytes=len(state))
    await admin.announce(name, 1, saved)
    await registry.upload(state)
    return saved


async def test_a_job_is_paused_resumed_and_goes_on_from_its_checkpoint(
    admin: GatewayClient, registry: RegistryClient
) -> None:
    name = (await admin.submit()).name
    await admin.claim(name, "node-1/7")
    saved = [await save(admin, registry, name, step) for step in (100, 200, 300)]
    digests = [each.digest for each in saved]
    await admin.report(name, 1, 1, update_of(state="RUNNING"), *(update_of(checkpoint=each) for each in saved))
    assert (await pause(admin, name)).state == State.STATE_PAUSING
    heard = await admin.report(name, 1, 5)
    assert heard.directive == ReportTrainingJobResponse.DIRECTIVE_PAUSE
    job = await admin.finish(name, 1, released=released("PAUSED", "saved step 300"))
    assert (job.state, job.preemptions, job.checkpoint.step) == (State.STATE_PAUSED, 1, 300)
    assert (await admin.claim(name)).claimed is False
    assert (await resume(admin, name)).state == State.STATE_QUEUED
    claim = await admin.claim(name, "node-2/9")
    assert (claim.training_job.attempt, claim.training_job.checkpoint.digest) == (2, digests[2])
    # The newest two stay; when the job has succeeded or failed for good nobody needs the older one.
    await eventually(lambda: _gone(registry, digests[0]))
    assert await is_stored(registry, digests[1])
    await admin.cancel(name)
    await admin.finish(name, 2, cancelled=worker_service_pb2.TrainingCancelled())
    await eventually(lambda: _gone(registry, digests[1]))
    assert await is_stored(registry, digests[2])
    attempts = await admin.training.ListTrainingAttempts(
        training_service_pb2.ListTrainingAttemptsRequest(parent=name)
    )  # fmt: skip
    assert [
        (each.attempt, each.node, Cause.Name(each.end_cause), each.resumed_step) for each in attempts.training_attempts
    ] == [(2, "node-2", "END_CAUSE_CANCELLED", 300), (1, "node-1", "END_CAUSE_PAUSED", 0)]
    kinds = [event.WhichOneof("payload") async for event in admin.watch(name)]
    assert kinds.count("attempt_start") == kinds.count("attempt_end") == 2
    assert kinds.count("checkpoint") == 3


async def _gone(registry: RegistryClient, digest: str) -> bool:
    return not await is_stored(registry, digest)


async def test_a_preempted_job_hears_of_it_and_waits_again(admin: GatewayClient) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    await admin.training.PreemptTrainingJob(training_service_pb2.PreemptTrainingJobRequest(name=name))
    heard = await admin.report(name, 1, 1)
    assert heard.directive == ReportTrainingJobResponse.DIRECTIVE_PREEMPT
    for _ in range(2):  # the answer may be lost
        job = await admin.finish(name, 1, released=released("PREEMPTED"))
        assert (job.state, job.preemptions) == (State.STATE_QUEUED, 1)


@pytest.mark.parametrize("cause", ["UNSPECIFIED", "SUCCEEDED", "WORKER_LOST"])
async def test_a_release_for_another_reason_is_refused(admin: GatewayClient, cause: str) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.finish(name, 1, released=released(cause))
    error = RemoteError.from_rpc(caught.value)
    assert (error.reason, error.violations[0].field) == ("INVALID_FIELD", "released.cause")


async def test_what_cannot_be_resumed_says_where_it_is(admin: GatewayClient) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    await pause(admin, name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await resume(admin, name)
    error = RemoteError.from_rpc(caught.value)
    assert (error.reason, error.metadata["state"], bool(error.retry_after)) == ("WRONG_STATE", "PAUSING", True)


async def test_progress_is_answered_thinned(admin: GatewayClient) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    updates = [update_of(progress=TrainingProgress(step=step)) for step in range(1, 41)]
    await admin.report(name, 1, 1, update_of(state="RUNNING"), *updates)
    request = training_service_pb2.ListTrainingProgressRequest(parent=name, max_points=11)
    points = (await admin.training.ListTrainingProgress(request)).points
    assert [point.progress.step for point in points] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        request = training_service_pb2.ListTrainingProgressRequest(parent=name, max_points=10_001)
        await admin.training.ListTrainingProgress(request)
    assert RemoteError.from_rpc(caught.value).violations[0].field == "max_points"


@pytest.mark.parametrize("field", ["digest", "step"])
async def test_a_checkpoint_of_a_wrong_form_is_refused(admin: GatewayClient, field: str) -> None:
    name = (await admin.submit()).name
    await admin.claim(name)
    wrong = {"digest": "a" * 64, "step": 1, field: {"digest": "no digest", "step": -1}[field]}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.report(name, 1, 1, update_of(checkpoint=Checkpoint(**wrong)))  # type: ignore[arg-type]  # by name
    assert RemoteError.from_rpc(caught.value).violations[0].field == f"updates[0].checkpoint.{field}"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.announce(name, 1, Checkpoint(**wrong))  # type: ignore[arg-type]  # by name
    assert RemoteError.from_rpc(caught.value).violations[0].field == f"checkpoint.{field}"
