"""Issues tokens and remembers that it did, never their secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sqlalchemy import insert, select, tuple_

from modelyard.core.database import Database
from modelyard.core.errors import PermissionDenied, Violations
from modelyard.core.names import TENANT_ID, shorten
from modelyard.core.paging import decode_token, encode_token
from modelyard.core.permissions import ROLE_PERMISSIONS, Permission, permissions_of
from modelyard.core.tokens import Caller, TokenSigner

from . import tables

DAY_S = 24 * 3600.0
MIN_LIFETIME_S = 1.0
MAX_LIFETIME_S = 366 * DAY_S
MAX_SUBJECT = 100

_TENANT = re.compile(TENANT_ID)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token that was issued."""

    id: str
    tenant: str
    subject: str
    roles: frozenset[str]
    create_time: int
    """Microseconds since 1970."""
    expire_time: int
    secret: str = field(default="", repr=False)
    """Only in the answer to whoever asked for the token."""


class Tokens:
    """Issues tokens and lists them."""

    def __init__(self, database: Database, signer: TokenSigner) -> None:
        self._database = database
        self._signer = signer

    async def issue(
        self, caller: Caller, *, subject: str, tenant: str, roles: frozenset[str], lifetime_s: float
    ) -> TokenRecord:
        """A new token. `tenant` empty: the caller's.

        Raises InvalidFields, or PermissionDenied for a right that the caller has not or for another tenant.
        """
        tenant = tenant or caller.tenant
        _check(subject, tenant, roles, lifetime_s)
        _check_rights(caller, tenant, roles)
        issued = self._signer.issue(subject, tenant, roles, lifetime_s)
        record = TokenRecord(
            issued.token_id, tenant, subject, roles, _microseconds(issued.create_time),
            _microseconds(issued.expire_time), issued.secret,
        )  # fmt: skip
        async with self._database.write() as connection:
            await connection.execute(
                insert(tables.tokens).values(
                    id=record.id,
                    tenant=tenant,
                    subject=subject,
                    roles=sorted(roles),
                    creator=caller.subject,
                    create_time=record.create_time,
                    expire_time=record.expire_time,
                )
            )
        return record

    async def list(self, *, tenant: str | None, page_size: int, page_token: str) -> tuple[list[TokenRecord], str]:
        """At most `page_size` tokens of a tenant (None: of all), newest first, and the token of the next page."""
        table = tables.tokens
        query = select(table).order_by(table.c.create_time.desc(), table.c.id.desc()).limit(page_size + 1)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        position = decode_token(page_token, int, str)
        if position is not None:
            query = query.where(tuple_(table.c.create_time, table.c.id) < tuple_(*position))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        page = [
            TokenRecord(row.id, row.tenant, row.subject, frozenset(row.roles), row.create_time, row.expire_time)
            for row in rows[:page_size]
        ]
        return page, encode_token(page[-1].create_time, page[-1].id) if len(rows) > page_size else ""


def _check(subject: str, tenant: str, roles: frozenset[str], lifetime_s: float) -> None:
    violations = Violations()
    violations.check(
        1 <= len(subject) <= MAX_SUBJECT and subject.isprintable(),
        "token.subject",
        f"expected 1 to {MAX_SUBJECT} printable characters, got {shorten(subject)!r}",
    )
    violations.check(
        _TENANT.fullmatch(tenant) is not None,
        "token.tenant",
        f"expected 1 to 63 of a-z 0-9 -, got {shorten(tenant)!r}",
    )
    known = ", ".join(ROLE_PERMISSIONS)
    violations.check(bool(roles), "token.roles", f"expected at least one of {known}")
    violations.check(
        MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S,
        "lifetime",
        f"expected 1 second to 366 days ({MAX_LIFETIME_S:.0f} s), got {lifetime_s:g} s",
    )
    violations.raise_if_any()


def _check_rights(caller: Caller, tenant: str, roles: frozenset[str]) -> None:
    if tenant != caller.tenant and not caller.may(Permission.TENANTS_ALL):
        raise PermissionDenied(
            "a token for another tenant takes an administrator", metadata={"permission": Permission.TENANTS_ALL}
        )
    missing = sorted(permissions_of(roles) - caller.permissions)
    if missing:
        raise PermissionDenied(
            f"nobody can give a right that they have not: {', '.join(missing)}", metadata={"permission": missing[0]}
        )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
