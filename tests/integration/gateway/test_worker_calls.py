"""WorkerService over gRPC: from the claim to the version in a real registry."""

from __future__ import annotations

from typing import Any

import grpc

from modelyard.gateway.application import Gateway
from modelyard.v1 import model_service_pb2, training_job_pb2
from modelyard.v1 import worker_service_pb2 as pb
from modelyard.v1.training_job_pb2 import Checkpoint
from modelyard.v1.training_spec_pb2 import Publication
from support.gateway import GatewayClient, State, expire_leases, gateway_client, trained, update_of, upload_result
from support.identity import Identity
from support.registry import RegistryClient, refusal
from support.training_specs import regression

Code = grpc.StatusCode
Reason = training_job_pb2.TrainingJob.FailureReason


async def _version(registry: RegistryClient, name: str) -> Any:
    return await registry.models.GetModelVersion(model_service_pb2.GetModelVersionRequest(name=name))


async def test_a_claim_brings_everything_a_worker_needs(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    claim = await admin.claim(job.name, "host/7")
    assert claim.claimed
    assert (claim.training_job.attempt, claim.training_job.worker) == (1, "host/7")
    assert claim.training_job.spec == job.spec
    assert claim.dataset.name == "datasets/table"
    assert claim.dataset.digest == job.dataset_digest
    assert [column.name for column in claim.dataset.columns] == ["a", "b", "c", "y"]
    assert claim.lease_duration.seconds == 45
    assert claim.report_interval.seconds == 10
    assert await admin.claim(job.name, "host/8") == pb.ClaimTrainingJobResponse(claimed=False)
    assert await admin.claim("trainingJobs/0") == pb.ClaimTrainingJobResponse(claimed=False)


async def test_from_the_claim_to_the_version(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    progress = training_job_pb2.TrainingProgress(epoch=1, max_epochs=10, training_loss=0.5)
    receipt = await admin.report(
        job.name, 1, 1, update_of(state="PREPARING"), update_of(state="RUNNING"), update_of(progress=progress)
    )
    assert receipt.directive == pb.ReportTrainingJobResponse.DIRECTIVE_CONTINUE
    assert receipt.updates_received == 3
    running = await admin.get(job.name)
    assert (running.state, running.progress) == (State.STATE_RUNNING, progress)
    assert running.HasField("start_time")
    artifact = await upload_result(registry)
    done = await admin.finish(job.name, 1, succeeded=artifact)
    assert (done.state, done.model_version) == (State.STATE_SUCCEEDED, "models/table/versions/1")
    assert done.evaluation == artifact.evaluation
    assert done.finish_time == done.update_time
    version = await _version(registry, "models/table/versions/live")
    assert version.name == done.model_version
    assert (version.training_job, version.dataset) == (job.name, "datasets/table")
    assert (version.digest, version.dataset_digest) == (artifact.digest, job.dataset_digest)
    assert version.spec_digest == job.spec_digest
    assert (version.evaluation, version.parity) == (artifact.evaluation, artifact.parity)
    assert dict(version.library_versions) == {"torch": "2.13.0"}


async def test_the_versions_history_names_the_one_who_submitted(
    admin: GatewayClient, served: tuple[Gateway, str], registry: RegistryClient, identity: Identity
) -> None:
    token = identity.token("developer", subject="ada")
    async with gateway_client(served[1], token) as ada:
        job = await ada.submit()
    await admin.claim(job.name)
    await admin.finish(job.name, 1, succeeded=await upload_result(registry))
    changes = await registry.models.ListModelAliasChanges(
        model_service_pb2.ListModelAliasChangesRequest(parent="models/table")
    )
    (change,) = changes.changes
    assert (change.alias, change.version, change.actor, change.reason) == ("live", 1, "ada", job.name)


async def test_keep_alias_publishes_without_moving_one(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit(regression(publication=Publication(keep_alias=True)))
    await admin.claim(job.name)
    await admin.finish(job.name, 1, succeeded=await upload_result(registry))
    model = await registry.models.GetModel(model_service_pb2.GetModelRequest(name="models/table"))
    assert (model.latest_version, dict(model.aliases)) == (1, {})


async def test_a_finish_that_is_repeated_gives_the_same_version(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    artifact = await upload_result(registry)
    first = await admin.finish(job.name, 1, succeeded=artifact)
    assert await admin.finish(job.name, 1, succeeded=artifact) == first
    model = await registry.models.GetModel(model_service_pb2.GetModelRequest(name="models/table"))
    assert model.latest_version == 1


async def test_a_version_that_another_release_has_made_is_found(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    artifact = await upload_result(registry)
    made = await registry.create_version(
        "models/table",
        digest=artifact.digest,
        training_job=job.name,
        labels={"only": "in that release"},
        request_id=job.name.removeprefix("trainingJobs/"),
    )
    done = await admin.finish(job.name, 1, succeeded=artifact)
    assert (done.state, done.model_version) == (State.STATE_SUCCEEDED, made.name)


async def test_a_result_that_was_not_uploaded_fails_the_job(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    failed = await admin.finish(job.name, 1, succeeded=trained(b"nobody has uploaded this"))
    assert (failed.state, failed.failure_reason) == (State.STATE_FAILED, Reason.FAILURE_REASON_INTERNAL)
    assert "no blob" in failed.failure_message


async def test_a_broken_graph_fails_the_job(admin: GatewayClient, registry: RegistryClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    failed = await admin.finish(job.name, 1, succeeded=await upload_result(registry, b"\x08\x0a no graph"))
    assert (failed.state, failed.failure_reason) == (State.STATE_FAILED, Reason.FAILURE_REASON_INTERNAL)
    assert not failed.model_version


async def test_a_stale_attempt_is_told_so_in_every_call(
    admin: GatewayClient, served: tuple[Gateway, str], registry: RegistryClient
) -> None:
    job = await admin.submit()
    await admin.claim(job.name, "host/1")
    await expire_leases(served[0])
    assert (await admin.claim(job.name, "host/2")).training_job.attempt == 2
    before = await admin.get(job.name)
    for call in (
        admin.report(job.name, 1, 1, update_of(state="RUNNING")),
        admin.announce(job.name, 1, Checkpoint(digest="a" * 64)),
        admin.finish(job.name, 1, succeeded=await upload_result(registry)),
        admin.finish(job.name, 1, failed=pb.TrainingFailure(reason=Reason.FAILURE_REASON_DATA)),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.ABORTED, "STALE_ATTEMPT")
        assert error.metadata["attempt"] == "2"
    assert await admin.get(job.name) == before


async def test_a_cancel_reaches_the_worker(admin: GatewayClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    await admin.cancel(job.name)
    receipt = await admin.report(job.name, 1, 1)
    assert receipt.directive == pb.ReportTrainingJobResponse.DIRECTIVE_CANCEL
    done = await admin.finish(job.name, 1, cancelled=pb.TrainingCancelled())
    assert done.state == State.STATE_CANCELLED


async def test_a_failure_keeps_its_words(admin: GatewayClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    failure = pb.TrainingFailure(reason=Reason.FAILURE_REASON_OUT_OF_MEMORY, message="x" * 5000 + "\0")
    done = await admin.finish(job.name, 1, failed=failure)
    assert (done.state, done.failure_reason) == (State.STATE_FAILED, Reason.FAILURE_REASON_OUT_OF_MEMORY)
    assert done.failure_message == "x" * 4095 + "…"


async def test_log_lines_are_cut_and_hold_no_nul(admin: GatewayClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    await admin.report(job.name, 1, 1, update_of(log_line="y" * 10_000), update_of(log_line="a\0b"))
    await admin.finish(job.name, 1, failed=pb.TrainingFailure(reason=Reason.FAILURE_REASON_DATA))
    lines = [event.log_line.text async for event in admin.watch(job.name) if event.HasField("log_line")]
    assert lines == ["y" * 4095 + "…", "a\N{REPLACEMENT CHARACTER}b"]


async def test_wrong_fields_of_workers_are_named(admin: GatewayClient) -> None:
    job = await admin.submit()
    await admin.claim(job.name)
    good = trained()
    no_digest, no_size = pb.TrainedArtifact(size_bytes=1), pb.TrainedArtifact(digest=good.digest)
    calls = {
        "worker": admin.claim(job.name, ""),
        "updates": admin.report(job.name, 1, 1, *[update_of(log_line="")] * 1001),
        "updates[1]": admin.report(job.name, 1, 1, update_of(log_line=""), pb.TrainingUpdate()),
        "updates[0].state": admin.report(job.name, 1, 1, update_of(state="SUCCEEDED")),
        "first_update": admin.report(job.name, 1, 5, update_of(log_line="")),
        "outcome": admin.finish(job.name, 1),
        "succeeded.digest": admin.finish(job.name, 1, succeeded=no_digest),
        "succeeded.size_bytes": admin.finish(job.name, 1, succeeded=no_size),
        "failed.reason": admin.finish(job.name, 1, failed=pb.TrainingFailure(message="why?")),
    }
    for field, call in calls.items():
        error = await refusal(call)
        assert (error.code, [violation.field for violation in error.violations]) == (Code.INVALID_ARGUMENT, [field])


async def test_only_workers_may_do_a_workers_work(
    served: tuple[Gateway, str], admin: GatewayClient, identity: Identity
) -> None:
    job = await admin.submit()
    for role in ("developer", "viewer", "predictor", "service"):
        async with gateway_client(served[1], identity.token(role)) as caller:
            assert (await refusal(caller.claim(job.name))).code is Code.PERMISSION_DENIED
    async with gateway_client(served[1], identity.token("worker", tenant="elsewhere")) as worker:
        assert (await worker.claim(job.name)).claimed
