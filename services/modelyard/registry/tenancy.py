"""Which tenant may see what. Names are the same for everybody: a taken one is taken, but what it is is not shown."""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, true

from modelyard.core.permissions import Permission
from modelyard.core.tokens import Caller


def visible_to(caller: Caller, tenant: Column[str]) -> ColumnElement[bool]:
    """The condition under which a row of `tenant` may be seen and changed by this caller."""
    return true() if caller.may(Permission.TENANTS_ALL) else tenant == caller.tenant


def owns(caller: Caller, tenant: str) -> bool:
    """The same for a tenant in hand."""
    return caller.may(Permission.TENANTS_ALL) or tenant == caller.tenant
