"""Tokens."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from modelyard.v1 import access_service_pb2 as pb
from modelyard.v1.access_service_pb2_grpc import AccessServiceStub

from .connection import DEFAULT_TIMEOUT_S, Connection, translated


class AccessClient:
    """`client.access`."""

    def __init__(self, connection: Connection) -> None:
        self._stub = AccessServiceStub(connection.channel)

    def create_token(
        self, subject: str, roles: Iterable[str], *, tenant: str = "", lifetime_s: int = 24 * 3600
    ) -> pb.Token:
        """Issues a token; `roles` are names such as `developer`. Its `secret` is in this answer and nowhere else.

        Raises ValueError for a role that does not exist.
        """
        token = pb.Token(subject=subject, tenant=tenant, roles=[_role(role) for role in roles])
        request = pb.CreateTokenRequest(token=token, lifetime=Duration(seconds=lifetime_s))
        with translated():
            return self._stub.CreateToken(request, timeout=DEFAULT_TIMEOUT_S)

    def caller(self) -> pb.Caller:
        """Who our own token says we are."""
        with translated():
            return self._stub.GetCaller(pb.GetCallerRequest(), timeout=DEFAULT_TIMEOUT_S)


def _role(name: str) -> pb.Role.ValueType:
    known = {key.removeprefix("ROLE_").lower(): number for key, number in pb.Role.items() if number}
    if name not in known:
        raise ValueError(f"{name!r} is no role; expected one of {', '.join(known)}")
    return known[name]
