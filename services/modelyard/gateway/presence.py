"""Which workers there are: each says so again and again, and one that is silent is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us

from .nodes import Choice, Neighbour, NodePatience, excluded_until
from .tables import jobs, workers

MAX_QUEUES = 50
MAX_HARDWARE = 200
_PATIENCE = 3
"""A worker is forgotten after so many intervals in which it has not reported."""


@unique
class WorkerState(StrEnum):
    """What a worker does; the names are those of `Worker.State`."""

    IDLE = "IDLE"
    BUSY = "BUSY"
    STOPPING = "STOPPING"


@dataclass(frozen=True, slots=True)
class Presence:
    """What a worker says of itself."""

    worker: str
    node: str
    queues: tuple[str, ...]
    state: WorkerState
    job_id: str
    """Empty if it has none."""
    hardware: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that reported lately. Times are microseconds since 1970."""

    presence: Presence
    start_time: int
    report_time: int
    tenant: str = ""
    """The tenant of the job that it has; empty if it has none that is known."""
    excluded_until: int | None = None
    """Until when its node gets no jobs since it kept failing; None if it gets them."""

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs of this queue."""
        return queue in self.presence.queues and self.presence.state is not WorkerState.STOPPING


_SAID: dict[str, Any] = {
    name: bindparam(f"new_{name}") for name in ("node", "queues", "state", "job_id", "hardware")
} | {"report_time": now_us()}  # fmt: skip
_REPORT = update(workers).where(workers.c.name == bindparam("of_worker")).values(_SAID)
_FIRST_REPORT = insert(workers).values(name=bindparam("of_worker"), start_time=now_us(), **_SAID)
_LATELY = workers.c.report_time >= now_us() - bindparam("patience_us")
_LIST = (
    select(workers, jobs.c.tenant)
    .outerjoin(jobs, jobs.c.id == workers.c.job_id)
    .where(_LATELY)
    .order_by(workers.c.name)
)
_FORGOTTEN = select(workers.c.name).where(~_LATELY).limit(1)
_FORGET = delete(workers).where(~_LATELY)


class Workers:
    """Hears workers and shows them."""

    def __init__(
        self, database: Database, *, report_interval_s: float, node_patience: NodePatience | None = None
    ) -> None:
        """`node_patience`: what a node may do before it gets no jobs for a while."""
        self._database = database
        self._node_patience = node_patience or NodePatience()
        self.report_interval_s = report_interval_s
        self._patience = {"patience_us": round(_PATIENCE * report_interval_s * 1e6)}

    async def report(self, presence: Presence) -> None:
        """Records what a worker says."""
        values = {
            "of_worker": presence.worker, "new_node": presence.node, "new_queues": list(presence.queues),
            "new_state": presence.state, "new_job_id": presence.job_id, "new_hardware": presence.hardware,
        }  # fmt: skip
        async with self._database.write() as connection:
            if (await connection.execute(_REPORT, values)).rowcount:
                return
            await connection.execute(_FIRST_REPORT, values)

    async def visible(self, *, tenant: str | None) -> list[Worker]:
        """The workers that reported lately, by name. Of other tenants than `tenant` (None: of none) no job is told."""
        async with self._database.read() as connection:
            found = await self.read(connection)
        return [worker if tenant in {None, worker.tenant} else _without_job(worker) for worker in found]

    async def read(self, connection: AsyncConnection) -> list[Worker]:
        """The same, with all jobs, in a transaction of the caller's."""
        excluded = await excluded_until(connection, self._node_patience)
        rows = await connection.execute(_LIST, self._patience)
        return [_to_worker(row, excluded.get(row.node)) for row in rows]

    async def choice(self, connection: AsyncConnection, queue: str, node: str) -> Choice:
        """The node that asks for a job of the queue, and who else could take one."""
        excluded = await excluded_until(connection, self._node_patience)
        workers = [_to_worker(row, excluded.get(row.node)) for row in await connection.execute(_LIST, self._patience)]
        return Choice(
            node,
            is_excluded=node in excluded,
            neighbours=[
                Neighbour(worker.presence.node, worker.presence.state is WorkerState.IDLE)
                for worker in workers
                if worker.serves(queue) and worker.presence.node != node and worker.excluded_until is None
            ],
        )

    async def forget(self) -> None:
        """Deletes those that are silent."""
        async with self._database.read() as connection:
            if (await connection.execute(_FORGOTTEN, self._patience)).one_or_none() is None:
                return  # most of the time: no write lock for nothing
        async with self._database.write() as connection:
            await connection.execute(_FORGET, self._patience)


def _to_worker(row: Row[Any], excluded_until: int | None) -> Worker:
    presence = Presence(row.name, row.node, tuple(row.queues), WorkerState(row.state), row.job_id, row.hardware)
    return Worker(presence, row.start_time, row.report_time, row.tenant or "", excluded_until)


def _without_job(worker: Worker) -> Worker:
    return replace(worker, presence=replace(worker.presence, job_id=""))
