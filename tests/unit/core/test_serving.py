"""The interceptor and the server's life, through real gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.core import channels, errors
from modelyard.core.interceptors import current_caller, current_request_id
from modelyard.core.serving import Service
from modelyard.v1 import access_service_pb2 as pb
from modelyard.v1 import access_service_pb2_grpc, training_job_pb2, training_service_pb2, training_service_pb2_grpc
from support.grpc_server import serve
from support.identity import Identity


class Access(access_service_pb2_grpc.AccessServiceServicer):
    """Answers who called, or raises what the test wants."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.Caller:
        if self.error:
            raise self.error
        caller = current_caller()
        return pb.Caller(subject=caller.subject, tenant=caller.tenant, permissions=[current_request_id()])

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.Token:
        return request.token

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        return pb.ListTokensResponse()


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    """Streams two events, then fails."""

    async def WatchTrainingJob(self, request: training_service_pb2.WatchTrainingJobRequest, context: Any) -> Any:
        for sequence in (1, 2):
            yield training_job_pb2.TrainingJobEvent(sequence=sequence)
        raise errors.NotFound.resource("trainingJobs/x")

    async def CreateTrainingJob(self, request: Any, context: Any) -> Any:
        return request.training_job

    GetTrainingJob = ListTrainingJobs = CancelTrainingJob = CreateTrainingJob


def service(error: Exception | None = None) -> Service:
    def register(server: grpc.aio.Server) -> None:
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(Access(error), server)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(Training(), server)

    return Service(register, ["modelyard.v1.AccessService", "modelyard.v1.TrainingService"])


async def call_get_caller(
    identity: Identity, metadata: channels.Metadata, error: Exception | None = None
) -> pb.Caller | errors.RemoteError:
    async with serve(service(error), identity) as address, channels.aio_channel(address) as channel:
        try:
            stub = access_service_pb2_grpc.AccessServiceStub(channel)
            return await stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as failure:
            return errors.RemoteError.from_rpc(failure)


async def test_a_good_token_says_who_is_calling_and_the_request_id_is_kept(identity: Identity) -> None:
    metadata = (*identity.metadata("viewer", tenant="blue"), ("x-request-id", "abc-1"))
    answer = await call_get_caller(identity, metadata)
    assert isinstance(answer, pb.Caller)
    assert (answer.subject, answer.tenant, list(answer.permissions)) == ("tester", "blue", ["abc-1"])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ("Basic abc", "TOKEN_INVALID"),
        ("Bearer ", "TOKEN_INVALID"),
        ("Bearer not.a.token", "TOKEN_INVALID"),
    ],
)
async def test_a_call_without_a_good_token_is_unauthenticated(
    identity: Identity, header: str | None, reason: str
) -> None:
    answer = await call_get_caller(identity, (("authorization", header),) if header else ())
    assert isinstance(answer, errors.RemoteError)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_expired_and_foreign_tokens_are_told_apart(
    identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expired = await call_get_caller(identity, channels.bearer(identity.token(lifetime_s=-60)))
    foreign_identity = Identity.create(tmp_path_factory.mktemp("foreign"))
    foreign = await call_get_caller(identity, foreign_identity.metadata())
    assert isinstance(expired, errors.RemoteError)
    assert isinstance(foreign, errors.RemoteError)
    assert (expired.reason, foreign.reason) == ("TOKEN_EXPIRED", "TOKEN_INVALID")


async def test_a_token_without_the_right_is_denied_with_the_permission_named(identity: Identity) -> None:
    async with serve(service(), identity) as address, channels.aio_channel(address) as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.CreateToken(pb.CreateTokenRequest(), metadata=identity.metadata("predictor"))
    error = errors.RemoteError.from_rpc(raised.value)
    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    assert error.metadata["permission"] == "tokens.create"


async def test_an_unknown_exception_is_internal_with_a_fixed_text(identity: Identity) -> None:
    answer = await call_get_caller(identity, identity.metadata(), RuntimeError("the password is swordfish"))
    assert isinstance(answer, errors.RemoteError)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert answer.message == errors.INTERNAL_TEXT
    assert answer.metadata["request_id"]


async def test_retry_advice_and_violations_reach_the_caller(identity: Identity) -> None:
    busy = await call_get_caller(identity, identity.metadata(), errors.Unavailable("loading", retry_after=1.5))
    wrong = await call_get_caller(identity, identity.metadata(), errors.InvalidFields.one("a.b", "expected 1, got 2"))
    assert isinstance(busy, errors.RemoteError)
    assert isinstance(wrong, errors.RemoteError)
    assert (busy.code, busy.retry_after) == (grpc.StatusCode.UNAVAILABLE, 1.5)
    assert wrong.violations == (errors.FieldViolation("a.b", "expected 1, got 2"),)


async def test_a_five_megabyte_message_is_refused_with_the_limit(identity: Identity) -> None:
    token = pb.Token(subject="x" * 5_000_000)
    async with serve(service(), identity) as address, channels.aio_channel(address) as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.CreateToken(pb.CreateTokenRequest(token=token), metadata=identity.metadata())
    error = errors.RemoteError.from_rpc(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
    assert error.metadata["limit_bytes"] == str(4 * 1024 * 1024)


async def test_an_error_in_a_stream_comes_after_what_was_sent(identity: Identity) -> None:
    received = []
    async with (
        serve(service(), identity) as address,
        channels.aio_channel(address, channels.fixed_token(identity.token())) as channel,
    ):
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for event in stub.WatchTrainingJob(training_service_pb2.WatchTrainingJobRequest()):
                received.append(event.sequence)  # noqa: PERF401 - what came before the error is the point
    assert received == [1, 2]
    assert errors.RemoteError.from_rpc(raised.value).metadata["resource"] == "trainingJobs/x"


async def test_health_needs_no_token_and_knows_every_service(identity: Identity) -> None:
    async with serve(service(), identity) as address, channels.aio_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "modelyard.v1.AccessService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_program_that_announces_itself_is_known_to_health_when_it_says_so(identity: Identity) -> None:
    quiet = service()
    quiet.announce = False
    request = health_pb2.HealthCheckRequest(service="modelyard.v1.AccessService")
    async with serve(quiet, identity) as address, channels.aio_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(request)
        await quiet.health.set("modelyard.v1.AccessService", serving=True)
        answer = await stub.Check(request)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_can_be_watched(identity: Identity) -> None:
    served = service()
    async with serve(served, identity) as address, channels.aio_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        first = await watch.read()
        await served.health.drain()
        second = await watch.read()
    statuses = health_pb2.HealthCheckResponse
    assert (first.status, second.status) == (statuses.SERVING, statuses.NOT_SERVING)


def test_the_status_table_is_total() -> None:
    def descendants(cls: type[errors.ModelyardError]) -> set[type[errors.ModelyardError]]:
        return {cls}.union(*(descendants(child) for child in cls.__subclasses__()))

    assert descendants(errors.ModelyardError) - {errors.ModelyardError} == set(errors.STATUS_TABLE)


def test_every_status_carries_error_info_first() -> None:
    for cls, (code, reason) in errors.STATUS_TABLE.items():
        error = errors.InvalidFields.one("f", "d") if cls is errors.InvalidFields else cls("text")
        status: status_pb2.Status = errors.to_status(error, request_id="r")
        info = error_details_pb2.ErrorInfo()
        assert status.code == code.value[0]
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (errors.reason_name(reason), "modelyard")
