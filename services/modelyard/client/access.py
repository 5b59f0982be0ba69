"""Tokens, and the tenants' shares of the workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict

from modelyard.v1 import access_service_pb2 as pb
from modelyard.v1.access_service_pb2_grpc import AccessServiceStub

from .connection import DEFAULT_TIMEOUT_S, Connection, pages, translated


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

    def tenant(self, tenant: str) -> pb.Tenant:
        """A tenant's share and bounds by its id, with what it runs and has waiting now."""
        with translated():
            return self._stub.GetTenant(pb.GetTenantRequest(name=f"tenants/{tenant}"), timeout=DEFAULT_TIMEOUT_S)

    def tenants(self, *, limit: int | None = None) -> Iterator[pb.Tenant]:
        """The tenants that have jobs or settings of their own, by name, fetched page by page."""

        def fetch(token: str) -> tuple[list[pb.Tenant], str]:
            with translated():
                page = self._stub.ListTenants(pb.ListTenantsRequest(page_token=token), timeout=DEFAULT_TIMEOUT_S)
            return list(page.tenants), page.next_page_token

        return pages(fetch, limit)

    def set_tenant(
        self,
        tenant: str,
        *,
        weight: float | None = None,
        max_running_jobs: int | None = None,
        max_waiting_jobs: int | None = None,
        etag: str = "",
    ) -> pb.Tenant:
        """Changes what is given of a tenant's share and bounds; for administrators.

        `weight`: 0.01 to 100; twice the weight is twice the workers. `max_…`: numbers of jobs, 0 for no limit. With
        `etag` only if nobody has changed it since it was read (else ABORTED, CONFLICT). Raises ValueError if nothing
        is given.
        """
        wanted = {"weight": weight, "max_running_jobs": max_running_jobs, "max_waiting_jobs": max_waiting_jobs}
        given = {field: value for field, value in wanted.items() if value is not None}
        if not given:
            raise ValueError(f"nothing to change; expected one of {', '.join(wanted)}")
        changed = ParseDict(given, pb.Tenant(name=f"tenants/{tenant}", etag=etag))
        request = pb.UpdateTenantRequest(tenant=changed, update_mask=FieldMask(paths=list(given)))
        with translated():
            return self._stub.UpdateTenant(request, timeout=DEFAULT_TIMEOUT_S)


def _role(name: str) -> pb.Role.ValueType:
    known = {key.removeprefix("ROLE_").lower(): number for key, number in pb.Role.items() if number}
    if name not in known:
        raise ValueError(f"{name!r} is no role; expected one of {', '.join(known)}")
    return known[name]
