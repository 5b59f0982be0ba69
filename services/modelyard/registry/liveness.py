"""Which pods count as live."""

from __future__ import annotations

from sqlalchemy import ColumnElement

from modelyard.core.database import now_us

from .tables import pods


def is_live() -> ColumnElement[bool]:
    """The condition under which a pod is sent requests."""
    return (pods.c.lease_until > now_us()) & pods.c.draining.is_(False)
