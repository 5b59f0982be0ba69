"""AccessService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from modelyard.core.permissions import ROLE_PERMISSIONS
from modelyard.v1 import access_service_pb2 as pb
from modelyard.v1 import training_service_pb2
from support.gateway import GatewayClient, gateway_client, gateway_settings, served_gateway
from support.identity import Identity
from support.registry import refusal

Code = grpc.StatusCode
DAY_S = 24 * 3600


@pytest.fixture
async def address(sqlite_url: str, identity: Identity, tmp_path: Path) -> AsyncIterator[str]:
    """A gateway without anything beside it: tokens need nobody."""
    async with served_gateway(gateway_settings(identity, tmp_path, database_url=sqlite_url), identity) as (_, address):
        yield address


@pytest.fixture
async def admin(address: str, identity: Identity) -> AsyncIterator[GatewayClient]:
    async with gateway_client(address, identity.token(subject="root")) as client:
        yield client


def _request(*roles: pb.Role.ValueType, subject: str = "ada", lifetime_s: int = 0, **fields: Any) -> Any:
    lifetime = Duration(seconds=lifetime_s) if lifetime_s else None
    return pb.CreateTokenRequest(token=pb.Token(subject=subject, roles=roles, **fields), lifetime=lifetime)


async def test_a_new_token_works_and_says_who_it_is(address: str, admin: GatewayClient) -> None:
    token = await admin.access.CreateToken(_request(pb.ROLE_DEVELOPER, pb.ROLE_VIEWER, tenant="blue"))
    assert token.name.startswith("tokens/")
    assert token.expire_time.seconds - token.create_time.seconds == pytest.approx(DAY_S, abs=1)
    async with gateway_client(address, token.secret) as ada:
        caller = await ada.access.GetCaller(pb.GetCallerRequest())
        assert (caller.subject, caller.tenant) == ("ada", "blue")
        assert list(caller.roles) == [pb.ROLE_DEVELOPER, pb.ROLE_VIEWER]
        assert list(caller.permissions) == sorted(ROLE_PERMISSIONS["developer"])
        assert caller.expire_time.ToNanoseconds() == pytest.approx(token.expire_time.ToNanoseconds(), abs=1e4)
        assert not (await ada.training.ListTrainingJobs(training_service_pb2.ListTrainingJobsRequest())).training_jobs


async def test_the_lifetime_is_what_was_asked_for(admin: GatewayClient) -> None:
    token = await admin.access.CreateToken(_request(pb.ROLE_VIEWER, lifetime_s=90))
    assert token.expire_time.ToNanoseconds() - token.create_time.ToNanoseconds() == pytest.approx(90e9, abs=1e4)


async def test_wrong_fields_are_named(admin: GatewayClient) -> None:
    requests = {
        "token.subject": _request(pb.ROLE_VIEWER, subject=""),
        "token.tenant": _request(pb.ROLE_VIEWER, tenant="Not A Tenant"),
        "token.roles": _request(),
        "token.roles[1]": _request(pb.ROLE_VIEWER, pb.ROLE_UNSPECIFIED),
        "lifetime": _request(pb.ROLE_VIEWER, lifetime_s=-5),
    }
    for field, request in requests.items():
        error = await refusal(admin.access.CreateToken(request))
        assert (error.code, [violation.field for violation in error.violations]) == (Code.INVALID_ARGUMENT, [field])
    long = await refusal(admin.access.CreateToken(_request(pb.ROLE_VIEWER, lifetime_s=367 * DAY_S)))
    assert [violation.field for violation in long.violations] == ["lifetime"]


async def test_nobody_gives_a_right_that_they_have_not(address: str, identity: Identity) -> None:
    async with gateway_client(address, identity.token("developer", tenant="blue")) as ada:
        assert (await ada.access.CreateToken(_request(pb.ROLE_PREDICTOR))).tenant == "blue"
        for request in (_request(pb.ROLE_ADMIN), _request(pb.ROLE_WORKER), _request(pb.ROLE_VIEWER, tenant="red")):
            error = await refusal(ada.access.CreateToken(request))
            assert (error.code, error.reason) == (Code.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert error.metadata["permission"]


async def test_tokens_are_listed_without_their_secrets(admin: GatewayClient) -> None:
    issued = [await admin.access.CreateToken(_request(pb.ROLE_VIEWER, subject=f"s{i}")) for i in range(3)]
    page = await admin.access.ListTokens(pb.ListTokensRequest(page_size=2))
    rest = await admin.access.ListTokens(pb.ListTokensRequest(page_size=2, page_token=page.next_page_token))
    listed = [*page.tokens, *rest.tokens]
    assert not rest.next_page_token
    assert [token.name for token in listed] == [token.name for token in reversed(issued)]
    assert not any(token.secret for token in listed)
    assert [(token.subject, list(token.roles)) for token in listed] == [
        (f"s{i}", [pb.ROLE_VIEWER]) for i in (2, 1, 0)
    ]  # fmt: skip


async def test_only_an_administrator_lists_tokens(address: str, identity: Identity) -> None:
    async with gateway_client(address, identity.token("developer")) as ada:
        assert (await refusal(ada.access.ListTokens(pb.ListTokensRequest()))).code is Code.PERMISSION_DENIED


async def test_every_valid_token_may_ask_who_it_is_and_no_other(address: str, identity: Identity) -> None:
    for role in ROLE_PERMISSIONS:
        async with gateway_client(address, identity.token(role)) as caller:
            assert (await caller.access.GetCaller(pb.GetCallerRequest())).subject == "tester"
    for secret, reason in (("", "TOKEN_MISSING"), ("nonsense", "TOKEN_INVALID")):
        async with gateway_client(address, secret) as nobody:
            error = await refusal(nobody.access.GetCaller(pb.GetCallerRequest()))
            assert (error.code, error.reason) == (Code.UNAUTHENTICATED, reason)
