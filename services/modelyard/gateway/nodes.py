"""Nodes that keep failing get no jobs for a while, and a job is kept away from a node on which it was lost again and
again: both only as long as there is another node to go to.

Nothing is stored for this but the ends of attempts and what workers say of themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, String, and_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import now_us

from .attempts import INFRASTRUCTURE, EndCause
from .tables import job_attempts, jobs

JOB_LOSSES = 2
"""A job that was lost so often on a node is given to another one."""

_CAUSES = sorted(INFRASTRUCTURE)
_FAULTS = (
    select(job_attempts.c.node, job_attempts.c.end_time, now_us().label("now"))
    .where(
        job_attempts.c.end_cause.in_(_CAUSES), job_attempts.c.end_time > now_us() - bindparam("horizon"),
        job_attempts.c.node != "",
    )
    .order_by(job_attempts.c.end_time.desc())
)  # fmt: skip
_SUCCESS_SINCE = (
    select(job_attempts.c.attempt)
    .where(
        job_attempts.c.node == bindparam("of_node"),
        job_attempts.c.end_time >= bindparam("since"),
        job_attempts.c.end_cause == EndCause.SUCCEEDED,
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class NodePatience:
    """What a node may do before it gets no jobs for a while. Times are seconds."""

    faults: int = 3
    """So many attempts that end by the platform's fault, without one that succeeds since the first of them …"""
    within_s: float = 600.0
    """… within this time …"""
    excluded_s: float = 600.0
    """… and for this time after the last of them the node gets no jobs."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A worker of the same queue on another node, whose node is not excluded."""

    node: str
    is_idle: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The node that asks for a job, and where else a job of the queue could go."""

    node: str = ""
    """Empty: nobody in particular, and every job will do."""
    is_excluded: bool = False
    neighbours: Sequence[Neighbour] = field(default_factory=tuple)

    @property
    def is_kept_away(self) -> bool:
        """Whether the node gets no job now."""
        return self.is_excluded and bool(self.neighbours)

    @property
    def is_idle_elsewhere(self) -> bool:
        """Whether another node has a worker without a job."""
        return any(neighbour.is_idle for neighbour in self.neighbours)

    @property
    def parameters(self) -> dict[str, object]:
        """What `is_better_elsewhere` asks for."""
        others = sorted({neighbour.node for neighbour in self.neighbours})
        return {"of_node": self.node if others else "", "other_nodes": others or [""], "others": len(others)}


ANYWHERE = Choice()
"""Of nobody in particular."""


def _losses_on(node: ColumnElement[str]) -> ColumnElement[int]:
    """How often the job of the enclosing query on `jobs` was lost on a node."""
    lost = job_attempts.alias()
    return (
        select(func.count())
        .select_from(lost)
        .where(lost.c.job_id == jobs.c.id, lost.c.node == node, lost.c.end_cause.in_(_CAUSES))
        .correlate(jobs, _elsewhere)
        .scalar_subquery()
    )


_elsewhere = job_attempts.alias("elsewhere")
_node: ColumnElement[str] = bindparam("of_node", type_=String)


def is_better_elsewhere() -> ColumnElement[bool]:
    """Whether the job of the enclosing query on `jobs` was lost again and again on the node of a `Choice`, and there is
    one of the others on which it was not."""
    bad_others = (
        select(func.count(_elsewhere.c.node.distinct()))
        .where(
            _elsewhere.c.job_id == jobs.c.id,
            _elsewhere.c.node.in_(bindparam("other_nodes", expanding=True)),
            _losses_on(_elsewhere.c.node) >= JOB_LOSSES,
        )
        .correlate(jobs)
        .scalar_subquery()
    )
    return and_(_node != "", _losses_on(_node) >= JOB_LOSSES, bad_others < bindparam("others"))


async def excluded_until(connection: AsyncConnection, patience: NodePatience) -> dict[str, int]:
    """The nodes that get no jobs now, and until when: microseconds since 1970, by the database's clock."""
    horizon = round((patience.within_s + patience.excluded_s) * 1e6)
    faults = (await connection.execute(_FAULTS, {"horizon": horizon})).all()
    newest: dict[str, list[int]] = defaultdict(list)
    for fault in faults:
        newest[fault.node].append(fault.end_time)
    now = faults[0].now if faults else 0
    found = {}
    for node, ends in newest.items():
        until = ends[0] + round(patience.excluded_s * 1e6)
        if until > now and await _is_failing(connection, node, ends[: patience.faults], patience):
            found[node] = until
    return found


async def _is_failing(connection: AsyncConnection, node: str, ends: Sequence[int], patience: NodePatience) -> bool:
    """`ends`: when attempts ended by the platform's fault, the newest first."""
    if len(ends) < patience.faults or ends[0] - ends[-1] > patience.within_s * 1e6:
        return False
    success = await connection.execute(_SUCCESS_SINCE, {"of_node": node, "since": ends[-1]})
    return success.one_or_none() is None
