"""modelyard.v1.AccessService: converts, delegates, converts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from modelyard.core.errors import InvalidFields, NotFound
from modelyard.core.interceptors import current_caller
from modelyard.core.names import TENANT
from modelyard.core.paging import page_size
from modelyard.core.permissions import ROLE_PERMISSIONS
from modelyard.v1 import access_service_pb2, access_service_pb2_grpc

from .queueing_converters import from_tenant, to_tenant
from .tenants import Tenants
from .times import to_timestamp
from .tokens import DAY_S, TokenRecord, Tokens
from .training_servicer import visible_tenant

_Context = grpc.aio.ServicerContext[Any, Any]
_Role = access_service_pb2.Role
_NUMBERS = {role: _Role.Value(f"ROLE_{role.upper()}") for role in ROLE_PERMISSIONS}
_ROLES = {number: role for role, number in _NUMBERS.items()}


@dataclass(frozen=True)
class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Issues tokens; shows and changes tenants."""

    tokens: Tokens
    tenants: Tenants

    async def CreateToken(
        self, request: access_service_pb2.CreateTokenRequest, _context: _Context
    ) -> access_service_pb2.Token:
        """See the proto."""
        record = await self.tokens.issue(
            current_caller(),
            subject=request.token.subject,
            tenant=request.token.tenant,
            roles=_from_roles(request.token.roles),
            lifetime_s=request.lifetime.ToNanoseconds() / 1e9 if request.HasField("lifetime") else DAY_S,
        )
        return _to_token(record)

    async def GetCaller(
        self, _request: access_service_pb2.GetCallerRequest, _context: _Context
    ) -> access_service_pb2.Caller:
        """See the proto."""
        caller = current_caller()
        return access_service_pb2.Caller(
            subject=caller.subject,
            tenant=caller.tenant,
            roles=_to_roles(caller.roles),
            permissions=sorted(caller.permissions),
            expire_time=to_timestamp(round(caller.expire_time * 1e6)),
        )

    async def ListTokens(
        self, request: access_service_pb2.ListTokensRequest, _context: _Context
    ) -> access_service_pb2.ListTokensResponse:
        """See the proto."""
        records, next_page_token = await self.tokens.list(
            tenant=visible_tenant(current_caller()),
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return access_service_pb2.ListTokensResponse(
            tokens=map(_to_token, records), next_page_token=next_page_token
        )  # fmt: skip

    async def GetTenant(
        self, request: access_service_pb2.GetTenantRequest, _context: _Context
    ) -> access_service_pb2.Tenant:
        """See the proto."""
        tenant = _tenant(request.name, "name")
        if visible_tenant(current_caller()) not in {None, tenant}:
            raise NotFound.resource(request.name)
        return to_tenant(await self.tenants.get(tenant))

    async def ListTenants(
        self, request: access_service_pb2.ListTenantsRequest, _context: _Context
    ) -> access_service_pb2.ListTenantsResponse:
        """See the proto."""
        tenants, next_page_token = await self.tenants.page(
            page_size=page_size(request.page_size), page_token=request.page_token
        )
        return access_service_pb2.ListTenantsResponse(
            tenants=map(to_tenant, tenants), next_page_token=next_page_token
        )  # fmt: skip

    async def UpdateTenant(
        self, request: access_service_pb2.UpdateTenantRequest, _context: _Context
    ) -> access_service_pb2.Tenant:
        """See the proto."""
        changes = from_tenant(request.tenant, request.update_mask)
        tenant = _tenant(request.tenant.name, "tenant.name")
        return to_tenant(await self.tenants.update(tenant, changes, etag=request.tenant.etag))


def _tenant(name: str, field: str) -> str:
    return TENANT.parse(name, field)["tenant"]


def _to_token(record: TokenRecord) -> access_service_pb2.Token:
    return access_service_pb2.Token(
        name=f"tokens/{record.id}",
        subject=record.subject,
        tenant=record.tenant,
        roles=_to_roles(record.roles),
        create_time=to_timestamp(record.create_time),
        expire_time=to_timestamp(record.expire_time),
        secret=record.secret,
    )


def _to_roles(roles: Iterable[str]) -> list[_Role.ValueType]:
    return sorted(_NUMBERS[role] for role in roles if role in _NUMBERS)


def _from_roles(roles: Iterable[_Role.ValueType]) -> frozenset[str]:
    for index, number in enumerate(roles):
        if number not in _ROLES:
            expected = ", ".join(_Role.Name(known) for known in _ROLES)
            raise InvalidFields.one(f"token.roles[{index}]", f"expected one of {expected}, got the number {number}")
    return frozenset(_ROLES[number] for number in roles)
