"""What becomes of a promotion whose version turns out to be broken.

It is decided in the transaction of the pod's own report, so that it needs no caller who is still watching, no replica
that lives through it and no background work.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us
from modelyard.core.logs import get_logger
from modelyard.v1 import pod_pb2

from .aliases import current_alias, remove_alias, undo_move
from .field_checks import MAX_REASON
from .liveness import is_live
from .tables import models, pod_versions, pods, promotions

_LATE_US = 3600 * 1_000_000
"""A large version may be found broken long after whoever promoted it has stopped waiting. Later than so long after that
it says more about the pods than about the promotion."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class BrokenVersion:
    """A version that a pod has found to be at fault."""

    model_id: str
    version: int
    reason: str
    """With the pod's name."""


async def settle_broken(connection: AsyncConnection, revision: int, broken: Collection[BrokenVersion]) -> bool:
    """Ends the open promotions of these versions, as a pod at this revision sees them; whether an alias was put back.

    A promotion is open while somebody may be watching it, and for an hour more if no pod has come to serve the version.
    An alias goes back to where it was if the promotion may do so and nobody has moved it since.
    """
    reasons = {(version.model_id, version.version): version.reason for version in broken}
    if not reasons:
        return False
    query = (
        select(promotions)
        .where(
            tuple_(promotions.c.model_id, promotions.c.version).in_(list(reasons)),
            promotions.c.broken.is_(False), promotions.c.revision <= revision,
            (promotions.c.deadline > now_us()) | ((promotions.c.deadline > now_us() - _LATE_US) & ~_is_served()),
        )
        .order_by(promotions.c.model_id, promotions.c.sequence)  # everybody takes the models' locks in one order
    )  # fmt: skip
    put_back = [
        await _settle(connection, promotion, reasons[promotion.model_id, promotion.version])
        for promotion in (await connection.execute(query)).all()
    ]
    return any(put_back)


def _is_served() -> ColumnElement[bool]:
    """The condition under which a live pod serves a promotion's version."""
    query = select(pod_versions.c.pod_id).join(pods, pods.c.id == pod_versions.c.pod_id)
    return (
        query.where(
            pod_versions.c.model_id == promotions.c.model_id, pod_versions.c.version == promotions.c.version,
            pod_versions.c.state == pod_pb2.PodVersion.STATE_SERVING, is_live(),
        )
        .correlate(promotions)
        .exists()
    )  # fmt: skip


async def _settle(connection: AsyncConnection, promotion: Row[Any], reason: str) -> bool:
    await connection.execute(select(models.c.id).where(models.c.id == promotion.model_id).with_for_update())
    mine = (promotions.c.model_id == promotion.model_id) & (promotions.c.sequence == promotion.sequence)
    # Whoever waited for the lock may find it settled.
    still_open = select(promotions.c.sequence).where(mine, promotions.c.broken.is_(False))
    if (await connection.execute(still_open)).one_or_none() is None:
        return False
    put_back = promotion.may_put_back and await _put_back(connection, promotion, reason)
    values = {"broken": True, "was_put_back": put_back, "reason": reason}
    await connection.execute(update(promotions).where(mine).values(values))
    log.warning(
        "a promoted version is broken", model=promotion.model_id, alias=promotion.alias, version=promotion.version,
        put_back=put_back, reason=reason,
    )  # fmt: skip
    return bool(put_back)


async def _put_back(connection: AsyncConnection, promotion: Row[Any], reason: str) -> bool:
    current = await current_alias(connection, promotion.model_id, promotion.alias)
    if current is None or current.sequence != promotion.sequence:
        return False
    why = f"put back: version {promotion.version} cannot be served: {reason}"[:MAX_REASON]
    if current.undo_sequence:
        await undo_move(connection, current, promotion.actor, why)
    else:  # the promotion made the alias
        await remove_alias(connection, current, promotion.actor, why)
    return True
