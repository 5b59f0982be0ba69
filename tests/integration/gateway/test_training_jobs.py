"""TrainingService over gRPC, with a real registry."""

from __future__ import annotations

import grpc

from modelyard.gateway.application import Gateway
from modelyard.v1 import training_service_pb2 as pb
from modelyard.v1.training_spec_pb2 import Publication
from support.gateway import TABLE, GatewayClient, State, create_request, gateway_client, update_of
from support.identity import Identity
from support.registry import RegistryClient, client, refusal
from support.training_specs import linear, network, regression, relu

Code = grpc.StatusCode

WRONG_SUBMISSIONS = [
    ("training_job.spec.dataset", create_request(regression(dataset="../../etc/passwd"))),
    ("training_job.spec.model", create_request(regression(model="Houses"))),
    ("training_job.spec.max_epochs", create_request(regression(max_epochs=0))),
    ("training_job.spec.target_column", create_request(regression(target_column="price"))),
    ("training_job.spec.feature_columns[0]", create_request(regression(feature_columns=["rooms"]))),
    (
        "training_job.spec.network.layer_list.layers[0].linear.inputs",
        create_request(regression(network=network(linear(4, inputs=9), relu(), linear(1)))),
    ),
    (
        "training_job.spec.network.layer_list.layers[2].linear.inputs",
        create_request(regression(network=network(linear(4), relu(), linear(1, inputs=5)))),
    ),
    ("training_job.display_name", create_request(display_name="x" * 201)),
    ("training_job.display_name", create_request(display_name="a\0b")),
    ("training_job.labels", create_request(labels={str(i): "" for i in range(65)})),
    ("training_job.labels", create_request(labels={"": "empty key"})),
    ("training_job.labels[k]", create_request(labels={"k": "v" * 201})),
    ("request_id", create_request(request_id="spaces are not allowed")),
]
"""The field at fault, and the request."""

WRONG_LISTS = [
    ("page_size", pb.ListTrainingJobsRequest(page_size=-1)),
    ("page_token", pb.ListTrainingJobsRequest(page_token="!")),
    ("model", pb.ListTrainingJobsRequest(model="diabetes")),
    ("states[1]", pb.ListTrainingJobsRequest(states=[State.STATE_QUEUED, 77])),  # type: ignore[list-item]
]


async def test_a_submitted_job_is_answered_whole(admin: GatewayClient) -> None:
    job = await admin.submit(display_name="Houses ⌂", labels={"team": "blue"})
    assert job.name.startswith("trainingJobs/")
    assert job.state == State.STATE_QUEUED
    assert (job.display_name, dict(job.labels)) == ("Houses ⌂", {"team": "blue"})
    assert (job.tenant, job.creator, job.attempt) == ("default", "tester", 0)
    assert job.parameter_count == 3 * 4 + 4 + 4 + 1
    assert list(job.spec.feature_columns) == ["a", "b", "c"]  # defaults are filled in
    assert job.spec.publication.alias == "live"
    assert len(job.spec_digest) == len(job.dataset_digest) == 64
    assert job.create_time == job.update_time
    assert not job.HasField("start_time")
    assert await admin.get(job.name) == job


async def test_submitting_again_with_the_same_request_id_answers_the_same_job(admin: GatewayClient) -> None:
    job = await admin.submit(request_id="r-1", display_name="one")
    assert await admin.submit(request_id="r-1", display_name="one") == job
    error = await refusal(admin.submit(request_id="r-1", display_name="two"))
    assert (error.code, error.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert (
        error.metadata["request_id"] != "r-1" or True
    )  # the call's own id travels under this key, see the errors page
    error = await refusal(admin.submit(regression(seed=1), request_id="r-1", display_name="one"))
    assert error.reason == "REQUEST_ID_REUSED"


async def test_validate_only_answers_the_job_and_keeps_nothing(admin: GatewayClient) -> None:
    job = await admin.training.CreateTrainingJob(create_request(validate_only=True))
    assert (job.name, job.state, job.parameter_count) == ("", State.STATE_QUEUED, 21)
    assert not job.HasField("create_time")
    listed = await admin.training.ListTrainingJobs(pb.ListTrainingJobsRequest())
    assert not listed.training_jobs


async def test_a_wrong_field_is_named(admin: GatewayClient) -> None:
    for field, request in WRONG_SUBMISSIONS:
        error = await refusal(admin.training.CreateTrainingJob(request))
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD"), field
        assert [violation.field for violation in error.violations] == [field]


async def test_everything_that_is_wrong_is_said_at_once(admin: GatewayClient) -> None:
    spec = regression(max_epochs=0, batch_size=-1, target_column="price")
    error = await refusal(admin.submit(spec))
    assert {violation.field.rpartition(".")[2] for violation in error.violations} >= {
        "max_epochs", "batch_size", "target_column",
    }  # fmt: skip


async def test_an_empty_request_is_refused_field_by_field(admin: GatewayClient) -> None:
    error = await refusal(admin.training.CreateTrainingJob(pb.CreateTrainingJobRequest()))
    assert error.code is Code.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} >= {
        "training_job.spec.dataset", "training_job.spec.model", "training_job.spec.network",
    }  # fmt: skip


async def test_an_unknown_dataset_is_not_found_and_its_field_is_named(admin: GatewayClient) -> None:
    error = await refusal(admin.submit(regression(dataset="datasets/nowhere")))
    assert (error.code, error.reason) == (Code.NOT_FOUND, "NOT_FOUND")
    assert error.metadata["resource"] == "datasets/nowhere"
    assert error.metadata["field"] == "training_job.spec.dataset"


async def test_a_wrong_spec_is_said_before_an_unknown_dataset(admin: GatewayClient) -> None:
    error = await refusal(admin.submit(regression(dataset="datasets/nowhere", max_epochs=0)))
    assert [violation.field for violation in error.violations] == ["training_job.spec.max_epochs"]


async def test_a_dataset_of_another_tenant_is_not_found(
    served: tuple[Gateway, str], registry: RegistryClient, identity: Identity
) -> None:
    async with gateway_client(served[1], identity.token("developer", tenant="other")) as other:
        error = await refusal(other.submit())
    assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, "datasets/table")


async def test_a_model_of_another_tenant_is_refused_before_it_is_trained(
    served: tuple[Gateway, str],
    registry_address: str,
    registry: RegistryClient,
    identity: Identity,
) -> None:
    await registry.create_version("models/table")
    async with (
        client(registry_address, registry.registry, identity, "developer", tenant="other") as theirs,
        gateway_client(served[1], identity.token("developer", tenant="other")) as other,
    ):
        await theirs.create_dataset(TABLE, "theirs")
        error = await refusal(other.submit(regression(dataset="datasets/theirs")))
        assert (error.code, error.metadata["field"]) == (Code.ALREADY_EXISTS, "training_job.spec.model")
        job = await other.submit(regression(dataset="datasets/theirs", model="models/their-own"))
        assert job.tenant == "other"


async def test_the_alias_is_live_unless_the_spec_says_otherwise(admin: GatewayClient) -> None:
    assert (await admin.submit()).spec.publication.alias == "live"
    canary = await admin.submit(regression(publication=Publication(alias="canary")))
    assert canary.spec.publication.alias == "canary"
    error = await refusal(admin.submit(regression(publication=Publication(alias="../live"))))
    assert [violation.field for violation in error.violations] == ["training_job.spec.publication.alias"]


async def test_jobs_of_another_tenant_are_not_found_but_an_administrator_sees_all(
    served: tuple[Gateway, str], admin: GatewayClient, identity: Identity
) -> None:
    job = await admin.submit()
    async with gateway_client(served[1], identity.token("developer", tenant="other")) as other:
        for call in (other.get(job.name), other.cancel(job.name), other.watch(job.name)):
            error = await refusal(call)
            assert (error.code, error.metadata["resource"]) == (Code.NOT_FOUND, job.name)
        assert not (await other.training.ListTrainingJobs(pb.ListTrainingJobsRequest())).training_jobs
    async with gateway_client(served[1], identity.token("admin", tenant="elsewhere")) as elsewhere:
        assert await elsewhere.get(job.name) == job


async def test_a_viewer_reads_and_does_not_submit(
    served: tuple[Gateway, str], admin: GatewayClient, identity: Identity
) -> None:
    job = await admin.submit()
    async with gateway_client(served[1], identity.token("viewer")) as viewer:
        assert await viewer.get(job.name) == job
        for call in (viewer.submit(), viewer.cancel(job.name), viewer.claim(job.name)):
            assert (await refusal(call)).code is Code.PERMISSION_DENIED


async def test_cancelling_over_the_wire(admin: GatewayClient) -> None:
    held = await admin.submit()
    await admin.claim(held.name)
    queued = await admin.submit()
    assert (await admin.cancel(queued.name)).state == State.STATE_CANCELLED
    assert (await admin.cancel(held.name)).state == State.STATE_CANCELLING
    error = await refusal(admin.cancel(queued.name))
    assert (error.code, error.reason, error.metadata["state"]) == (
        Code.FAILED_PRECONDITION, "WRONG_STATE", "CANCELLED",
    )  # fmt: skip


async def test_who_watches_from_the_newest_event_hears_only_what_happens_next(admin: GatewayClient) -> None:
    submitted = await admin.submit()
    await admin.claim(submitted.name)
    await admin.report(submitted.name, 1, 1, update_of(log_line="one"), update_of(log_line="two"))
    now = await admin.get(submitted.name)
    assert now.last_sequence > submitted.last_sequence
    await admin.report(submitted.name, 1, 3, update_of(log_line="three"))
    async for event in admin.watch(submitted.name, now.last_sequence):
        assert (event.sequence, event.log_line.text) == (now.last_sequence + 1, "three")
        break


async def test_listing_over_the_wire(admin: GatewayClient) -> None:
    names = [(await admin.submit(display_name=str(i))).name for i in range(3)]
    await admin.cancel(names[0])
    page = await admin.training.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=2))
    rest = await admin.training.ListTrainingJobs(
        pb.ListTrainingJobsRequest(page_size=2, page_token=page.next_page_token)
    )
    assert {job.name for job in (*page.training_jobs, *rest.training_jobs)} == set(names)
    assert not rest.next_page_token
    cancelled = await admin.training.ListTrainingJobs(
        pb.ListTrainingJobsRequest(states=[State.STATE_CANCELLED], model="models/table")
    )
    assert [job.name for job in cancelled.training_jobs] == [names[0]]


async def test_wrong_list_requests_are_named(admin: GatewayClient) -> None:
    for field, request in WRONG_LISTS:
        error = await refusal(admin.training.ListTrainingJobs(request))
        assert [violation.field for violation in error.violations] == [field]


async def test_a_name_that_is_none_is_refused(admin: GatewayClient) -> None:
    for name in ("", "trainingJobs/", "trainingJobs/../x", "jobs/1", "trainingJobs/UPPER"):
        for call in (admin.get(name), admin.cancel(name), admin.watch(name), admin.claim(name)):
            error = await refusal(call)
            assert [violation.field for violation in error.violations] == ["name"]


async def test_an_unknown_job_is_not_found(admin: GatewayClient) -> None:
    for call in (admin.get("trainingJobs/0"), admin.cancel("trainingJobs/0"), admin.watch("trainingJobs/0")):
        assert (await refusal(call)).code is Code.NOT_FOUND
