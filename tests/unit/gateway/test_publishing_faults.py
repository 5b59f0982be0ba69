"""The gateway and the registry die between any two steps of publishing: one version, and the job succeeds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modelyard.core.database import Database
from modelyard.core.errors import Unavailable
from modelyard.gateway.attempts import EndCause
from modelyard.gateway.events import AttemptEnd
from modelyard.gateway.jobs import Job, State
from modelyard.gateway.ledger import Edit
from support.job_desk import JobDesk, MemoryPublisher, result

VERSION = "models/house-prices/versions/1"


class Killed(BaseException):
    """The gateway ends here."""


class Killing:
    """Ends the gateway at one moment of its work on the database: the n-th edit, before or after its commit."""

    def __init__(self, desk: JobDesk, edit: int, *, is_committed: bool) -> None:
        self._left = edit
        self._is_committed = is_committed
        self._edit = desk.ledger.edit
        desk.ledger.edit = self.edit  # type: ignore[method-assign]

    @asynccontextmanager
    async def edit(self, job_id: str, *, tenant: str | None = None) -> AsyncIterator[Edit]:
        """See `ledger.Ledger.edit`."""
        self._left -= 1
        async with self._edit(job_id, tenant=tenant) as edit:
            yield edit
            if not self._left and not self._is_committed:
                raise Killed
        if not self._left and self._is_committed:
            raise Killed


class DyingPublisher(MemoryPublisher):
    """A registry whose caller dies before or after it has done the work."""

    killed: str = ""

    async def publish(self, job: Job) -> str:
        """See `finishing.Publisher`."""
        if self.killed == "before":
            raise Killed
        version = await super().publish(job)
        if self.killed == "after":
            raise Killed
        return version


@pytest.fixture
async def desk(database: Database) -> JobDesk:
    return JobDesk(database, DyingPublisher())


async def _kill(desk: JobDesk, job: Job, moment: str) -> None:
    """The worker finishes, and the gateway dies at the moment."""
    publisher = desk.publisher
    assert isinstance(publisher, DyingPublisher)
    if moment in {"before", "after"}:
        publisher.killed = moment
    else:
        step, _, place = moment.partition(" ")
        Killing(desk, {"recording": 1, "succeeding": 2}[step], is_committed=place == "committed")
    with pytest.raises(Killed):
        await desk.finishing.succeed(job.id, 1, result())
    publisher.killed = ""


MOMENTS = (
    "recording uncommitted", "recording committed", "before", "after", "succeeding uncommitted", "succeeding committed",
)  # fmt: skip
"""In the order in which they come; `before` and `after` are the registry's own."""


def _is_recorded(moment: str) -> bool:
    return moment != "recording uncommitted"


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_that_says_it_again_gets_the_one_version(desk: JobDesk, moment: str) -> None:
    job = await desk.claimed()
    await _kill(desk, job, moment)
    restarted = JobDesk(desk.database, desk.publisher)
    job = await restarted.finishing.succeed(job.id, 1, result())
    assert (job.state, job.model_version) == (State.SUCCEEDED, VERSION)
    await _check_published_once(restarted, job)


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if _is_recorded(moment)])
async def test_without_the_worker_the_next_gateway_publishes(desk: JobDesk, moment: str) -> None:
    job = await desk.claimed()
    await _kill(desk, job, moment)
    restarted = JobDesk(desk.database, desk.publisher)
    await restarted.expire_lease(job)
    assert await restarted.leases.reap() == 0
    assert await restarted.ask(job, "host/2") is None
    await restarted.finishing.publish_stalled()
    job = await restarted.get(job)
    assert (job.state, job.model_version, job.attempt) == (State.SUCCEEDED, VERSION, 1)
    await _check_published_once(restarted, job)


async def test_a_result_that_was_not_recorded_is_made_again(desk: JobDesk) -> None:
    job = await desk.claimed()
    await _kill(desk, job, "recording uncommitted")
    restarted = JobDesk(desk.database, desk.publisher)
    await restarted.expire_lease(job)
    claim = await restarted.claim(job, "host/2")
    job = await restarted.finishing.succeed(job.id, claim.job.attempt, result("e" * 64))
    assert (job.state, job.model_version, job.attempt) == (State.SUCCEEDED, VERSION, 2)
    assert len(restarted.publisher.artifacts) == 1


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("registry", ["away_before", "away_after"])
async def test_a_registry_that_dies_too_changes_nothing(desk: JobDesk, moment: str, registry: str) -> None:
    job = await desk.claimed()
    await _kill(desk, job, moment)
    restarted = JobDesk(desk.database, desk.publisher)
    setattr(restarted.publisher, registry, True)
    if (await restarted.get(job)).state is not State.SUCCEEDED:
        with pytest.raises(Unavailable):
            await restarted.finishing.succeed(job.id, 1, result())
    setattr(restarted.publisher, registry, False)
    job = await restarted.finishing.succeed(job.id, 1, result())
    assert (job.state, job.model_version) == (State.SUCCEEDED, VERSION)
    await _check_published_once(restarted, job)


async def _check_published_once(desk: JobDesk, job: Job) -> None:
    history = await desk.history(job)
    assert [event.sequence for event in history] == list(range(1, job.last_sequence + 1))
    ends = [event.payload for event in history if isinstance(event.payload, AttemptEnd)]
    assert ends == [AttemptEnd(EndCause.SUCCEEDED)]
    assert len(desk.publisher.artifacts) == 1
