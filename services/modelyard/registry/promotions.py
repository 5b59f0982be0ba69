"""Promotions: an alias moves to a version, and whoever asked is told how each live pod comes to serve it.

A promotion is a row, so that it goes on without its caller and any replica can tell how it stands. What happens to it
is decided where it happens: by the pod that reports the version broken (`promotion_outcomes`), by whoever moves the
alias elsewhere. Watching only reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.core.database import Database, now_us
from modelyard.core.errors import Conflict, NotServedYet, Unavailable, VersionBroken
from modelyard.core.tokens import Caller
from modelyard.v1 import pod_pb2

from .aliases import Alias, Aliases, alias_after, check_etag, current_alias, move_alias, require_version
from .liveness import is_live
from .models import lock_model
from .pods import PodVersion, to_pod_version
from .promotion_outcomes import BrokenVersion, settle_broken
from .repetition import Repetition, Request
from .tables import models, pod_versions, pods, promotions
from .upserts import insert_if_absent

_State = pod_pb2.PodVersion.State
_REASON_BYTES = 500


@dataclass(frozen=True, slots=True)
class NewPromotion:
    """What a caller asks; its form is checked."""

    model_id: str
    version: int
    alias: str
    etag: str = ""
    reason: str = ""
    wait_s: float = 60.0
    keep_when_broken: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far one live pod is."""

    pod_id: str
    display_name: str
    version: PodVersion


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a promotion is."""

    alias: Alias
    """As the promotion moved it."""
    receipts: Sequence[Receipt]
    served: bool


@dataclass(frozen=True, slots=True)
class _View:
    """Everything that says how a promotion stands, read at one moment."""

    promotion: Row[Any]
    current: Row[Any] | None
    """The alias now."""
    receipts: Sequence[Receipt]
    over: bool

    @property
    def served(self) -> bool:
        states = {receipt.version.state for receipt in self.receipts}
        return states == {_State.STATE_SERVING}

    @property
    def superseded(self) -> bool:
        return self.current is None or self.current.sequence != self.promotion.sequence

    def broken(self) -> list[BrokenVersion]:
        """What pods say that find the version at fault."""
        return [
            BrokenVersion(self.promotion.model_id, self.promotion.version, f"{r.display_name}: {r.version.reason}")
            for r in self.receipts
            if r.version.broken
        ]


class Promotions:
    """Begins and watches promotions."""

    def __init__(
        self,
        database: Database,
        repetition: Repetition,
        aliases: Aliases,
        *,
        interval_s: float,
        stopping: asyncio.Event,
    ) -> None:
        """`interval_s`: how often a watched promotion is looked at. `stopping` ends all watching, once it is set."""
        self._database = database
        self._repetition = repetition
        self._aliases = aliases
        self._interval_s = interval_s
        self._stopping = stopping

    async def begin(self, caller: Caller, new: NewPromotion) -> Alias:
        """Moves the alias. The same again finds it moved, and gives the promotion new time.

        Raises NotFound for model or version, Conflict for the etag, RequestIdReused.
        """
        content = (new.model_id, new.alias, new.version, new.etag, new.reason, new.keep_when_broken)
        request = Request.of(caller.tenant, new.request_id, "PromoteModelVersion", *content)

        async def work(connection: AsyncConnection) -> str:
            return str(await self._move(connection, caller, new))

        sequence, _now = await self._repetition.once(request, work)
        self._aliases.tell_served()
        async with self._database.write() as connection:
            await _prolong(connection, new, int(sequence))
            return await alias_after(connection, new.model_id, int(sequence))

    async def _move(self, connection: AsyncConnection, caller: Caller, new: NewPromotion) -> int:
        await lock_model(connection, caller, new.model_id)
        before = await current_alias(connection, new.model_id, new.alias)
        check_etag(new.model_id, new.alias, before, new.etag)
        await require_version(connection, new.model_id, new.version)
        sequence = await move_alias(connection, new.model_id, new.alias, new.version, caller.subject, new.reason)
        moved = before is None or before.sequence != sequence
        revision = select(models.c.served_revision).where(models.c.id == new.model_id).scalar_subquery()
        row = {
            "model_id": new.model_id, "sequence": sequence, "alias": new.alias, "version": new.version,
            "revision": revision, "actor": caller.subject, "may_put_back": moved and not new.keep_when_broken,
            "deadline": now_us(), "broken": False, "was_put_back": False, "reason": "",
        }  # fmt: skip
        await connection.execute(insert_if_absent(self._database, promotions, row))
        return sequence

    async def watch(self, alias: Alias) -> AsyncIterator[Progress]:
        """How it stands, then each change; ends when every live pod serves the version.

        Raises VersionBroken, Conflict when somebody else moves the alias, NotServedYet when its time is over,
        Unavailable when the process stops.
        """
        told: Progress | None = None
        while True:
            view = await self._view(alias)
            if not view.promotion.broken and not view.superseded and not view.over and view.broken():
                await self._settle(view)
                continue
            ending = _ending(view)
            progress = Progress(alias, view.receipts, served=view.served and ending is None)
            if progress != told:
                told = progress
                yield progress
            if ending is not None:
                raise ending
            if progress.served:
                return
            await self._rest()

    async def _settle(self, view: _View) -> None:
        async with self._database.write() as connection:
            put_back = await settle_broken(connection, view.promotion.revision, view.broken())
        if put_back:
            self._aliases.tell_served()

    async def _view(self, alias: Alias) -> _View:
        mine = (promotions.c.model_id == alias.model_id) & (promotions.c.sequence == alias.sequence)
        over = (promotions.c.deadline <= now_us()).label("over")
        async with self._database.read() as connection:
            promotion = (await connection.execute(select(promotions, over).where(mine))).one()
            current = await current_alias(connection, alias.model_id, alias.alias)
            receipts = await _receipts(connection, promotion)
        if promotion.broken:
            receipts = [_judged(receipt, promotion) for receipt in receipts]
        return _View(promotion, current, receipts, bool(promotion.over))

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise Unavailable("the registry is stopping; the same call again goes on watching", retry_after=0.1)


async def _prolong(connection: AsyncConnection, new: NewPromotion, sequence: int) -> None:
    """Gives the promotion its time, counted from now; a caller who says so keeps a broken version from now on."""
    mine = (promotions.c.model_id == new.model_id) & (promotions.c.sequence == sequence)
    values: dict[str, Any] = {"deadline": now_us() + round(new.wait_s * 1e6)}
    if new.keep_when_broken:
        values["may_put_back"] = False
    await connection.execute(update(promotions).where(mine).values(values))


async def _receipts(connection: AsyncConnection, promotion: Row[Any]) -> list[Receipt]:
    of_version = (
        (pod_versions.c.pod_id == pods.c.id) & (pod_versions.c.model_id == promotion.model_id)
        & (pod_versions.c.version == promotion.version)
    )  # fmt: skip
    query = (
        select(pods.c.id, pods.c.display_name, pods.c.revision, pod_versions)
        .join_from(pods, pod_versions, of_version, isouter=True)
        .where(is_live())
        .order_by(pods.c.display_name, pods.c.id)
    )
    return [_receipt(row, promotion) for row in await connection.execute(query)]


def _receipt(row: Row[Any], promotion: Row[Any]) -> Receipt:
    """What the pod says of the version since it has taken over the promotion; before, it is as good as unknown."""
    version = PodVersion(promotion.model_id, promotion.version, _State.STATE_PENDING)
    if row.pod_id is not None and row.revision >= promotion.revision:
        told = to_pod_version(row)
        switched = told.state != _State.STATE_SERVING or promotion.alias in told.aliases
        version = told if switched else version
    return Receipt(row.id, row.display_name or row.id, version)


def _judged(receipt: Receipt, promotion: Row[Any]) -> Receipt:
    """The receipt of a promotion that is over: the pod that found the version at fault may have forgotten it by now."""
    accuser, reason = f"{receipt.display_name}: ", promotion.reason
    if receipt.version.state != _State.STATE_PENDING or not reason.startswith(accuser):
        return receipt
    failed = replace(receipt.version, state=_State.STATE_FAILED, reason=reason.removeprefix(accuser), broken=True)
    return replace(receipt, version=failed)


def _ending(view: _View) -> VersionBroken | Conflict | NotServedYet | None:
    """Why there is nothing more to watch, if that is so and the version is not served."""
    promotion = view.promotion
    name = f"models/{promotion.model_id}/versions/{promotion.version}"
    place = f"models/{promotion.model_id}/aliases/{promotion.alias}"
    if promotion.broken:
        where = "is back where it was" if promotion.was_put_back else "was left as it is"
        return VersionBroken(
            f"{name} cannot be served: {promotion.reason[:_REASON_BYTES]}; {place} {where}",
            metadata={"put_back": str(bool(promotion.was_put_back)).lower(), "pod_reasons": _reasons(view)},
        )
    if view.superseded:
        etag = "" if view.current is None else str(view.current.sequence)
        return Conflict(f"{place} was moved by somebody else meanwhile", metadata={"etag": etag})
    if view.over and not view.served:
        return _not_served(view, name, place)
    return None


def _not_served(view: _View, name: str, place: str) -> NotServedYet:
    serving = sum(receipt.version.state == _State.STATE_SERVING for receipt in view.receipts)
    live = len(view.receipts)
    how = f"by {serving} of {live} live pods" if live else "by nobody: no pod is alive"
    return NotServedYet(
        f"{name} is served {how} so far; {place} has moved, and pods go on loading it",
        metadata={"live_pods": str(live), "serving_pods": str(serving), "pod_reasons": _reasons(view)},
    )


def _reasons(view: _View) -> str:
    """What the pods say, as far as it fits into an error."""
    told = [f"{receipt.display_name}: {receipt.version.reason}" for receipt in view.receipts if receipt.version.reason]
    return "; ".join(told or [view.promotion.reason])[:_REASON_BYTES]
