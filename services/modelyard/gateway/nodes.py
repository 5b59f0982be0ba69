"""Nodes that keep failing get no jobs for a while; a job is kept away from a node on which it was lost again and again.

Nothing is stored for this but the ends of attempts. Whether there is another node to go to is for who asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import BindParameter, ColumnElement, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from .attempts import INFRASTRUCTURE, EndCause
from .tables import job_attempts, jobs

JOB_LOSSES = 2
"""A job that was lost so often on a node is given to another one."""

_ended = job_attempts.alias("ended")
_IS_FAULT = job_attempts.c.end_cause.in_(sorted(INFRASTRUCTURE))
_FAULTS = (
    select(job_attempts.c.end_time)
    .where(job_attempts.c.node == bindparam("of_node"), _IS_FAULT)
    .order_by(job_attempts.c.end_time.desc())
    .limit(bindparam("faults"))
)
_SUCCESS_SINCE = (
    select(job_attempts.c.attempt)
    .where(
        job_attempts.c.node == bindparam("of_node"),
        job_attempts.c.end_time >= bindparam("since"),
        job_attempts.c.end_cause == EndCause.SUCCEEDED,
    )
    .limit(1)
)
_NOW = select(now_us())


@dataclass(frozen=True, slots=True)
class Patience:
    """What a node may do before it gets no jobs for a while. Times are seconds."""

    faults: int = 3
    """So many attempts that end by the platform's fault, without one that succeeds since the first of them …"""
    within_s: float = 600.0
    """… within this time …"""
    excluded_s: float = 600.0
    """… and for this time after the last of them the node gets no jobs."""


def was_lost_on(node: BindParameter[str]) -> ColumnElement[bool]:
    """Whether the job of an enclosing query on `jobs` was lost JOB_LOSSES times on this node."""
    losses = (
        select(func.count())
        .select_from(_ended)
        .where(_ended.c.job_id == jobs.c.id, _ended.c.node == node, _ended.c.end_cause.in_(sorted(INFRASTRUCTURE)))
        .correlate(jobs)
        .scalar_subquery()
    )
    return losses >= JOB_LOSSES


async def excluded_until(connection: AsyncConnection, nodes: Iterable[str], patience: Patience) -> dict[str, int]:
    """Those of the nodes that get no jobs now, and until when: microseconds since 1970, by the database's clock."""
    now = (await connection.execute(_NOW)).scalar_one()
    found = {node: await _until(connection, node, patience) for node in set(nodes) if node}
    return {node: until for node, until in found.items() if until > now}


async def _until(connection: AsyncConnection, node: str, patience: Patience) -> int:
    """The end of the node's newest exclusion, however long ago; 0 if there was none."""
    asked = {"of_node": node, "faults": patience.faults}
    faults: list[int] = list((await connection.execute(_FAULTS, asked)).scalars())
    if len(faults) < patience.faults or faults[0] - faults[-1] > patience.within_s * 1e6:
        return 0
    success = await connection.execute(_SUCCESS_SINCE, {"of_node": node, "since": faults[-1]})
    if success.one_or_none() is not None:
        return 0
    return faults[0] + round(patience.excluded_s * 1e6)
