"""Makes the loaded set equal to the wanted one, one overlapping swap at a time, and keeps trying.

A new version is loaded beside the old one; aliases move when it is ready; the old one is freed when its last request is
answered. A version that cannot be loaded changes nothing but its entry's failures, and is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from modelyard.core.errors import NotFound, Unavailable
from modelyard.core.logs import get_logger
from modelyard.core.retries import Backoff
from modelyard.inference.loading.loader import Loader, is_broken, is_expected, reason_of

from .desired import WantedModel, WantedVersion
from .lifecycle import LifecycleObserver, NullLifecycleObserver
from .memory import NoRoom
from .parking import Parking
from .table import RETRY_LOADING_S, Failure, ModelEntry, ServingTable
from .versions import LoadedVersion

_REST_PER_TRY = 10.0
"""A version that is at fault may keep others from loading for this fraction of the time: a try can take minutes."""

Observer = Callable[[], Awaitable[None]]

log = get_logger()


class Reconciler:
    """Owns the serving table. `run` it as a task; `stop` when the server has stopped."""

    def __init__(
        self,
        table: ServingTable,
        loader: Loader,
        *,
        parallel_loads: int,
        retry_first_s: float,
        retry_limit_s: float,
        turn_s: float = 0.0,
        lifecycle: LifecycleObserver | None = None,
    ) -> None:
        """`turn_s`: how long a model that was loaded stays in memory, whoever else needs room."""
        self._table = table
        self._lifecycle: LifecycleObserver = lifecycle or NullLifecycleObserver()
        self._loader = loader
        self._retry_first_s = retry_first_s
        self._retry_limit_s = retry_limit_s
        self._slots = asyncio.Semaphore(parallel_loads)
        self._changed = asyncio.Event()
        self._passed = asyncio.Condition()
        self._loads: dict[tuple[str, int], tuple[WantedVersion, asyncio.Task[None]]] = {}
        self._backoffs: dict[tuple[str, int], Backoff] = {}
        self._retirements: dict[asyncio.Task[None], LoadedVersion] = {}
        loader.budget.make_room = Parking(table, loader.budget, self._park, turn_s=turn_s).make_room
        self.observers: list[Observer] = []
        """Called after every pass."""

    def want(self, models: Mapping[str, WantedModel], changed: Iterable[str]) -> None:
        """Takes over what should be served. A changed model forgets that it was unloaded, and its failures."""
        for name in changed:
            entry = self._table.models.setdefault(name, ModelEntry(name))
            entry.wanted, entry.unloaded, entry.parked = models.get(name), False, False
            entry.failures.clear()
        self._table.known = True
        self._changed.set()

    def unload(self, model: str) -> None:
        """Takes a model out of service until `load`, or until the registry changes what to serve of it."""
        entry = self._table.models.get(model)
        if entry is not None and entry.wanted is not None:
            entry.unloaded = True
            self._pass()  # at once: the caller is told that it is so
            self._changed.set()

    async def load(self, model: str) -> None:
        """Undoes `unload` and returns when the model's versions are loaded. For a served model that is at once.

        Raises NotFound for a model that nothing should be served of, Unavailable if a version cannot be loaded.
        """
        entry = self._table.models.get(model)
        if entry is None or entry.wanted is None:
            raise NotFound(f"models/{model} has no alias, so no version of it is to be served: set one in the registry")
        self.demand(model)
        if entry.unloaded or entry.failures:
            entry.unloaded = False
            entry.failures.clear()
            self._changed.set()
        async with self._passed:
            await self._passed.wait_for(lambda: not self._changed.is_set() and self._settled(entry))
        if entry.wanted is None:
            raise NotFound.resource(f"models/{model}")
        if entry.parked:
            text = f"models/{model} cannot be loaded: {entry.no_room or 'there is no room in memory'}"
            raise Unavailable(text, retry_after=RETRY_LOADING_S)
        if entry.failures:
            reasons = "; ".join(failure.reason for failure in entry.failures.values())
            raise Unavailable(f"models/{model} cannot be loaded: {reasons}", retry_after=RETRY_LOADING_S)

    def demand(self, model: str) -> None:
        """A request waits for a model that was unloaded to save memory: it is loaded again, in place of others."""
        entry = self._table.models.get(model)
        if entry is not None and entry.parked:
            entry.parked, entry.demanded, entry.no_room = False, True, ""
            entry.failures.clear()
            self._changed.set()

    def settled(self) -> bool:
        """Whether everything that should be loaded has been tried at least once."""
        return self._table.known and all(self._settled(entry) for entry in self._table.models.values())

    async def run(self) -> None:
        """Works for ever. An error of its own is logged; what is served goes on being served."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._pass()
                await self._tell()
            except Exception:
                log.exception("reconciling failed")

    async def stop(self) -> None:
        """Gives up loads and frees every version. The server must have stopped: nobody is answered any more."""
        retiring = self._retirements.values()
        for version in [*retiring, *(one for entry in self._table.models.values() for one in entry.loaded.values())]:
            version.abort()
        loads = [task for _, task in self._loads.values()]
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, *self._retirements, return_exceptions=True)
        for entry in self._table.models.values():
            for version in entry.loaded.values():
                await self._loader.unload(version)
            entry.loaded.clear()
        self._table.models.clear()
        self._table.publish()

    def _settled(self, entry: ModelEntry) -> bool:
        return all(version.number in entry.failures for version in entry.missing())

    async def _tell(self) -> None:
        for observer in self.observers:
            await observer()
        async with self._passed:
            self._passed.notify_all()

    def _pass(self) -> None:
        """Brings every model as far as it can go now. One step of the event loop."""
        for entry in list(self._table.models.values()):
            self._begin_loads(entry)
            before = dict(entry.aliases)
            leaving = entry.switch()
            self._tell_switches(entry, before)
            if entry.wanted is None and not entry.retiring and not leaving:
                del self._table.models[entry.name]
            for version in leaving:
                self._begin_retirement(entry, version)
        self._table.publish()

    def _begin_loads(self, entry: ModelEntry) -> None:
        missing = {version.number: version for version in entry.missing()}
        for (model, number), (version, task) in self._loads.items():
            if model == entry.name and missing.get(number) != version:
                task.cancel()  # no longer wanted, or in another form; what it held is released as it ends
        for number, version in missing.items():
            failure = entry.failures.get(number)
            if (entry.name, number) in self._loads or (failure is not None and failure.resting):
                continue
            task = asyncio.create_task(self._load(entry, version), name=f"load {version}")
            self._loads[entry.name, number] = version, task

    async def _load(self, entry: ModelEntry, wanted: WantedVersion) -> None:
        key = entry.name, wanted.number
        start = time.perf_counter()
        try:
            async with self._slots:
                start = time.perf_counter()
                version = await self._loader.load(wanted)
        except NoRoom as error:
            self._note_no_room(entry, wanted, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the pod goes on and tries again
            self._note_failure(entry, wanted, error, time.perf_counter() - start)
        else:
            entry.load_s[wanted.number] = took_s = time.perf_counter() - start
            self._lifecycle.loaded(version, took_s)
            self._take_in(entry, version)
        finally:
            del self._loads[key]
            self._changed.set()

    def _take_in(self, entry: ModelEntry, version: LoadedVersion) -> None:
        number = version.wanted.number
        entry.failures.pop(number, None)
        self._backoffs.pop((entry.name, number), None)
        replaced = entry.loaded.get(number)
        entry.loaded[number] = version
        entry.loaded_at = time.time()
        entry.demanded = entry.demanded and bool(entry.missing())
        if replaced is not None:
            self._table.publish()
            self._begin_retirement(entry, replaced)

    def _note_no_room(self, entry: ModelEntry, wanted: WantedVersion, error: NoRoom) -> None:
        """A model in service keeps what it has; one that is not waits for a request, or has just disappointed some."""
        if entry.loaded:
            self._note_failure(entry, wanted, error)
            return
        entry.no_room = str(error) if entry.demanded else ""
        log.info("not loaded, to save memory", version=str(wanted), demanded=entry.demanded, reason=str(error))
        entry.parked, entry.demanded = True, False

    def _park(self, entry: ModelEntry) -> None:
        """Takes a model out of memory until a request demands it, or the registry changes what to serve of it."""
        entry.parked, entry.demanded, entry.no_room = True, False, ""
        self._pass()
        self._changed.set()

    def _note_failure(self, entry: ModelEntry, wanted: WantedVersion, error: Exception, took_s: float = 0.0) -> None:
        backoff = self._backoffs.setdefault(
            (entry.name, wanted.number), Backoff(self._retry_first_s, self._retry_limit_s)
        )
        previous = entry.failures.get(wanted.number)
        tries = previous.tries + 1 if previous else 1
        failure = Failure(reason_of(error), tries, broken=is_broken(error))
        entry.failures[wanted.number] = failure
        self._lifecycle.load_failed(wanted)
        wait = max(backoff.next_s(), _REST_PER_TRY * took_s if failure.broken else 0.0)
        asyncio.get_running_loop().call_later(wait, self._try_again, failure)
        log.error(
            "version cannot be loaded", version=str(wanted), digest=wanted.digest, reason=failure.reason,
            tries=failure.tries, retry_s=round(wait, 1), exc_info=None if is_expected(error) else error,
        )  # fmt: skip

    def _try_again(self, failure: Failure) -> None:
        failure.resting = False
        self._changed.set()

    def _begin_retirement(self, entry: ModelEntry, version: LoadedVersion) -> None:
        entry.retiring.add(version.wanted.number)
        version.room.leave()
        task = asyncio.create_task(self._retire(entry, version), name=f"retire {version.wanted}")
        self._retirements[task] = version
        task.add_done_callback(self._retirements.pop)

    async def _retire(self, entry: ModelEntry, version: LoadedVersion) -> None:
        try:
            await self._loader.unload(version)
        finally:
            entry.retiring.discard(version.wanted.number)
            self._changed.set()

    def _tell_switches(self, entry: ModelEntry, before: Mapping[str, int]) -> None:
        for alias in {*before, *entry.aliases}:
            old, new = before.get(alias, 0), entry.aliases.get(alias, 0)
            if old != new and not entry.parked:
                log.info("alias switched", model=entry.name, alias=alias, previous_version=old, version=new)
                self._lifecycle.switched(entry.name)
