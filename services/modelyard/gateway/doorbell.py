"""Rings workers by Celery. The broker client blocks, so it has a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from modelyard.core.doorbell import TASK_NAME, celery_queue
from modelyard.core.logs import get_logger

from .doorbells import Doorbell
from .jobs import job_name
from .outbox import BrokerAway

_TIMEOUT_S = 5.0

log = get_logger()


class CeleryBell:
    """Sends doorbells to the broker, which has a queue for each of ours."""

    def __init__(self, broker_url: str) -> None:
        """`broker_url`: `redis://host:port/0` or `redis+socket:///path`."""
        self._celery = Celery("modelyard.gateway", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            accept_content=["json"],
            broker_pool_limit=1,
            # No retries in the client: they would hold its thread, and the outbox tries again anyway.
            broker_transport_options={
                "socket_timeout": _TIMEOUT_S,
                "socket_connect_timeout": _TIMEOUT_S,
                "max_retries": 0,
            },
        )
        connection = self._celery.connection_for_write()
        # Whatever the broker's client raises: it may be away, loading, full or read-only. The doorbell stays.
        self._faults = (OperationalError, *connection.connection_errors, *connection.channel_errors)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker")

    async def ring(self, doorbells: Sequence[Doorbell]) -> int:
        """See `outbox.Bell`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, doorbells)

    async def waiting(self, queue: str) -> int:
        """See `outbox.Bell`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._count, celery_queue(queue))

    async def close(self) -> None:
        """Closes the connections to the broker."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._celery.close)
        self._thread.shutdown()

    def _send(self, doorbells: Sequence[Doorbell]) -> int:
        for sent, doorbell in enumerate(doorbells):
            name, queue = job_name(doorbell.job_id), celery_queue(doorbell.queue)
            try:
                self._celery.send_task(TASK_NAME, args=[name], queue=queue, ignore_result=True, retry=False)
            except self._faults as error:
                log.warning("cannot ring", job=name, reason=str(error))
                return sent
        return len(doorbells)

    def _count(self, queue: str) -> int:
        with self._celery.connection_for_write() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except ChannelError:
                return 0  # Redis has no key for an empty queue
            except self._faults as error:
                raise BrokerAway(str(error)) from error
