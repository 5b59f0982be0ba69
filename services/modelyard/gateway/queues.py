"""The queues as they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .presence import Worker, WorkerState
from .scheduling import Queues
from .standings import read_held
from .tables import jobs

_WAITING = select(jobs.c.queue, func.count()).where(jobs.c.queued_time.is_not(None)).group_by(jobs.c.queue)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue at one moment."""

    name: str
    waiting: int
    running: int
    workers: int
    idle_workers: int
    max_running: int
    """0: no limit."""


async def read_queues(connection: AsyncConnection, queues: Queues, workers: Sequence[Worker]) -> list[QueueStatus]:
    """The queues of the settings in their order, then those that still have jobs though no setting names them."""
    waiting: Counter[str] = Counter(dict((await connection.execute(_WAITING)).all()))
    running = (await read_held(connection)).by_queue
    others = sorted((waiting.keys() | running.keys()) - set(queues.names))
    return [
        QueueStatus(
            name=name,
            waiting=waiting[name],
            running=running[name],
            workers=sum(worker.serves(name) for worker in workers),
            idle_workers=sum(worker.serves(name) and worker.presence.state is WorkerState.IDLE for worker in workers),
            max_running=queues.max_running.get(name, 0),
        )
        for name in (*queues.names, *others)
    ]
