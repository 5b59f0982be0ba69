"""Rings doorbells after the commit that wrote them.

The process that has written a doorbell rings it at once. What it could not ring, because the broker was away or the
process has died, is found by looking: replicas take such doorbells before they ring, so that they do not ring the same
ones. A doorbell is deleted only after the broker has it, and with others, since a transaction for each would cost about
as much as the submission itself. If the process dies before, somebody rings again, which is harmless.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import delete, func, select, update

from modelyard.core.database import Database, now_us
from modelyard.core.logs import get_logger

from .doorbells import TAKEN_US, Doorbell
from .selection import chosen_once
from .tables import doorbells

_BATCH = 100
_FIRST_RETRY_US = 250_000
_LAST_RETRY_US = 5_000_000

# One that was tried and waits for the broker is not for later, however long it is to wait.
_FOR_LATER = (doorbells.c.tries == 0) & (doorbells.c.due_time > now_us())

log = get_logger()


class BrokerAway(Exception):
    """The broker does not take messages."""


class Bell(Protocol):
    """Rings workers through the broker."""

    async def ring(self, doorbells: Sequence[Doorbell]) -> int:
        """Sends each in turn to its queue, until one cannot be sent; how many the broker has taken."""

    async def waiting(self, queue: str) -> int:
        """Doorbells for a queue in the broker that no worker has taken yet; raises BrokerAway."""


class Outbox:
    """Relays doorbells to the broker."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell
        self._written: deque[Doorbell] = deque()
        self._rung: list[int] = []

    def add(self, doorbell: Doorbell) -> None:
        """Takes what this process has just committed; `relay` rings it."""
        self._written.append(doorbell)

    async def relay(self) -> bool:
        """Rings one batch of what this process has written; whether there is more to ring right now."""
        batch = [self._written.popleft() for _ in range(min(len(self._written), _BATCH))]
        return bool(batch) and await self._ring(batch) and bool(self._written)

    async def relay_left(self) -> bool:
        """Rings one batch of what was left behind; whether there may be more to ring right now."""
        batch = await self._take()
        return bool(batch) and await self._ring(batch) and len(batch) == _BATCH

    async def settle(self) -> None:
        """Deletes what has been rung. To be called several times before a doorbell is due again (`TAKEN_US`)."""
        rung = tuple(self._rung)
        if rung:
            async with self._database.write() as connection:
                await connection.execute(delete(doorbells).where(doorbells.c.id.in_(rung)))
            del self._rung[: len(rung)]

    async def _ring(self, batch: Sequence[Doorbell]) -> bool:
        """Whether the broker has taken all of them. Those that it has not are due again later."""
        count = await self._bell.ring(batch)
        self._rung += [doorbell.id for doorbell in batch[:count]]
        if count < len(batch):
            log.warning("the broker is away; doorbells wait", waiting=len(batch) - count, tries=batch[count].tries)
            await self._put_off(batch[count:])
        return count == len(batch)

    async def _take(self) -> list[Doorbell]:
        due = doorbells.c.due_time <= now_us()
        oldest = select(doorbells.c.id).where(due).order_by(doorbells.c.id).limit(_BATCH)
        statement = (
            update(doorbells)
            .where(doorbells.c.id.in_(chosen_once(oldest)))
            .values(due_time=now_us() + TAKEN_US, tries=doorbells.c.tries + 1)
            .returning(doorbells.c.id, doorbells.c.job_id, doorbells.c.queue, doorbells.c.tries)
        )
        async with self._database.read() as connection:
            if (await connection.execute(select(doorbells.c.id).where(due).limit(1))).one_or_none() is None:
                return []  # an idle gateway takes no write lock
        async with self._database.write() as connection:
            rows = await connection.execute(statement)
            return sorted((Doorbell(*row) for row in rows), key=lambda doorbell: doorbell.id)

    async def _put_off(self, left: Sequence[Doorbell]) -> None:
        due_time = now_us() + _backoff_us(min(bell.tries for bell in left))
        async with self._database.write() as connection:
            await connection.execute(
                update(doorbells).where(doorbells.c.id.in_([bell.id for bell in left])).values(due_time=due_time)
            )


def _backoff_us(tries: int) -> int:
    return min(_FIRST_RETRY_US << min(tries - 1, 16), _LAST_RETRY_US)


async def pending(database: Database) -> Counter[str]:
    """Doorbells by queue that the broker has not taken yet (or only just now); without those to be rung later."""
    query = select(doorbells.c.queue, func.count()).where(~_FOR_LATER).group_by(doorbells.c.queue)
    async with database.read() as connection:
        return Counter(dict((await connection.execute(query)).all()))
