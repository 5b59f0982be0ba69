"""Removes what nobody comes back for: expired uploads, parts without an upload, old requests, pods that are gone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import delete

from modelyard.core.database import Database, now_us
from modelyard.core.logs import get_logger

from .blob_store import BlobStore
from .tables import pods, promotions, requests, shadow_counts
from .upload_ledger import UploadLedger

log = get_logger()


class Sweeper:
    """Sweeps again and again. Any number of replicas may do it at once."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        ledger: UploadLedger,
        *,
        interval_s: float,
        orphan_age_s: float,
        request_retention_s: float,
        pod_retention_s: float,
        shadow_retention_s: float,
    ) -> None:
        """`orphan_age_s`: a part without a row is left alone for so long, since a writer may be about to record it."""
        self._database = database
        self._store = store
        self._ledger = ledger
        self._interval_s = interval_s
        self._orphan_age = timedelta(seconds=orphan_age_s)
        self._request_retention_us = round(request_retention_s * 1e6)
        self._pod_retention_us = round(pod_retention_s * 1e6)
        self._shadow_retention_us = round(shadow_retention_s * 1e6)

    async def run(self) -> None:
        """Sweeps until it is cancelled; what goes wrong is logged and tried again."""
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("sweeping failed")
            await asyncio.sleep(self._interval_s)

    async def sweep(self) -> None:
        """Once."""
        uploads = await self._ledger.discard_expired()
        parts = await self._delete_orphans()
        objects = await self._delete_loose_objects()
        forgotten = await self._forget_requests()
        gone = await self._forget_pods()
        if uploads or parts or objects or forgotten or gone:
            log.info("swept", uploads=uploads, parts=parts, objects=objects, requests=forgotten, pods=gone)

    async def _delete_orphans(self) -> int:
        count = 0
        async for keys in self._store.parts_older_than(self._orphan_age):
            orphans = await self._ledger.unknown_keys(keys)
            await self._store.delete(orphans)
            count += len(orphans)
        return count

    async def _delete_loose_objects(self) -> int:
        keys = await self._ledger.loose_objects()
        for key in keys:
            await self._store.delete([key])
            await self._ledger.forget_object(key)
        return len(keys)

    async def _forget_requests(self) -> int:
        over = requests.c.create_time < now_us() - self._request_retention_us
        async with self._database.write() as connection:
            return (await connection.execute(delete(requests).where(over))).rowcount

    async def _forget_pods(self) -> int:
        """Also what they told of shadows, and promotions: these outlive the requests that may ask for them again."""
        async with self._database.write() as connection:
            old = now_us() - 2 * self._request_retention_us
            await connection.execute(delete(promotions).where(promotions.c.deadline < old))
            old = now_us() - self._shadow_retention_us
            await connection.execute(delete(shadow_counts).where(shadow_counts.c.update_time < old))
            over = pods.c.lease_until < now_us() - self._pod_retention_us
            return (await connection.execute(delete(pods).where(over))).rowcount
