"""From a version's name to a version that can answer: fetch, verify, check, make the session, compare, warm up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from modelyard.core.errors import DeadlineExceeded, DigestMismatch, MalformedContent, ModelyardError, RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import is_transient
from modelyard.inference.execution import run_memory
from modelyard.inference.execution.calibration import Wishes, plan_execution, replan, threads_of_run
from modelyard.inference.execution.cpus import available_cpus
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.predictability import is_predictable
from modelyard.inference.execution.run_watch import RunWatch
from modelyard.inference.execution.sessions import LOAD_ERRORS, GraphSession, RunLimits, RuntimeOptions, brief
from modelyard.inference.serving.desired import WantedVersion
from modelyard.inference.serving.memory import MemoryBudget, NoRoom, available_memory
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.inference.settings import InferenceSettings

from .agreement import agreed_signature
from .artifact_sets import fetch_version, release_version
from .artifacts import ArtifactCache
from .compatibility import check_runtime_supports
from .graph_file import read_graph_file
from .trying import VersionTrials, maps_weights

log = get_logger()


class Loader:
    """Loads and frees versions. Each step that computes or waits for the disk runs in a thread."""

    def __init__(self, artifacts: ArtifactCache, settings: InferenceSettings) -> None:
        """Raises WrongState if the settings demand a device that is not there."""
        self._artifacts = artifacts
        self._settings = settings
        self.options = RuntimeOptions(settings.graph_threads or 1, settings.device, tf32=settings.cuda_tf32)
        self.budget = MemoryBudget(settings.memory_budget_bytes)
        self._trials = VersionTrials(settings, on_gpu=self.options.on_gpu)
        self._watch = RunWatch(settings.max_run_s)
        self._opening = asyncio.Semaphore(max(1, available_cpus() // 2))
        """How a version computes best is measured while it is opened; others on the same processors would decide it."""
        self._memory = None if self.options.on_gpu else run_memory.shared(_arena_bytes(settings))
        log.info("runtime", providers=self.options.providers(), runners=settings.runners or "as measured")

    async def load(self, wanted: WantedVersion) -> LoadedVersion:
        """A version that is warm and ready to answer. What it raises, `reason_of` puts into words."""
        start = time.perf_counter()
        if wanted.opset_version > 0 and wanted.ir_version > 0:
            await asyncio.to_thread(check_runtime_supports, wanted.opset_version, wanted.ir_version)
        path = await fetch_version(self._artifacts, wanted)
        fetched = time.perf_counter()
        room = None
        try:
            threads = wanted.serving.graph_threads or self.options.graph_threads
            facts = await self._trials.facts(path, wanted, threads)
            room = await self.budget.reserve(wanted.model, facts.memory_bytes)
            async with self._opening:
                session, plan = await asyncio.to_thread(self._open, path, wanted)
        except BaseException:
            release_version(self._artifacts, wanted)
            if room is not None:
                room.release()
            raise
        log.info(
            "version loaded", version=str(wanted), digest=wanted.digest, signature=str(session.signature),
            fetch_ms=_milliseconds(start, fetched), load_ms=_milliseconds(fetched, time.perf_counter()),
            batching=plan.reason, batch_rows=plan.batch_rows, inline_rows=plan.inline_rows, runners=plan.runners,
            graph_threads=plan.graph_threads,
        )  # fmt: skip
        return LoadedVersion(wanted, session, plan, room)

    async def unload(self, version: LoadedVersion) -> None:
        """Lets a version finish what it has, then frees it."""
        await version.retire()
        version.room.release()
        release_version(self._artifacts, version.wanted)
        await asyncio.to_thread(self._give_back)
        log.info("version unloaded", version=str(version.wanted))

    def _give_back(self) -> None:
        """Gives the system what an unloaded version has left."""
        if self._memory is not None:
            self._memory.reclaim()
        run_memory.trim_heap()

    async def close(self) -> None:
        """Ends what watches and tries versions. Every version must have been unloaded."""
        await self._trials.close()
        await asyncio.to_thread(self._watch.close)

    def _open(self, path: Path, wanted: WantedVersion) -> tuple[GraphSession, ExecutionPlan]:
        graph = read_graph_file(path)
        graph.check(wanted.weights.location if wanted.weights is not None else "")
        predictable = is_predictable(graph)
        wishes = self._wishes(wanted)
        try:
            session = self._session(path, wanted, wishes, predictable=predictable)
            plan = plan_execution(session, wishes, predictable=predictable)
            threads = threads_of_run(plan, available_cpus()) if session.runs_in_caller else 1
            if threads > 1 and not self._is_told_threads(wanted):
                del session  # its memory first
                wishes = replace(wishes, runners=max(1, available_cpus() // threads), graph_threads=threads)
                session = self._session(path, wanted, wishes, predictable=predictable)
                plan = replan(plan, session, wishes)
        except LOAD_ERRORS as error:
            raise MalformedContent(f"the graph fails on zeros: {brief(error)}") from error
        except DeadlineExceeded as error:  # where no trial came first
            raise MalformedContent(f"it computes zeros for longer than {self._watch.limit_s:g} s") from error
        return session, plan

    def _session(self, path: Path, wanted: WantedVersion, wishes: Wishes, *, predictable: bool) -> GraphSession:
        """A session that has computed what it will be asked for first."""
        options = replace(
            self.options, graph_threads=wishes.graph_threads, mapped_weights=maps_weights(wanted, self._settings)
        )
        session = GraphSession(path, options, self._limits(wanted, predictable=predictable))
        session.signature = agreed_signature(wanted.inputs, wanted.outputs, session.signature)
        session.warm_up([size for size in self._settings.warm_up_batch_sizes if size <= self._settings.max_batch_size])
        return session

    def _is_told_threads(self, wanted: WantedVersion) -> bool:
        serving, settings = wanted.serving, self._settings
        return bool(serving.runners or serving.graph_threads or settings.runners or settings.graph_threads)

    def _limits(self, wanted: WantedVersion, *, predictable: bool) -> RunLimits:
        """Graphs that take as much for every request of a batch size have memory of their own, which goes with them."""
        tensors = (*wanted.inputs, *wanted.outputs)
        batched = bool(wanted.inputs) and all(tensor.shape[:1] == (-1,) for tensor in tensors)
        steady = batched and not any(-1 in tensor.shape[1:] for tensor in wanted.inputs)
        return RunLimits(self._watch, None if predictable and steady else self._memory)

    def _wishes(self, wanted: WantedVersion) -> Wishes:
        """What is asked of this version: by the model's owner, else by the pod's settings."""
        serving, settings = wanted.serving, self._settings
        return Wishes(
            runners=serving.runners or settings.runners or available_cpus(),
            queue_size=serving.queue_size or settings.queue_size,
            max_batch_size=serving.max_batch_size or settings.max_batch_size,
            graph_threads=serving.graph_threads or settings.graph_threads or 1,
            batching=serving.batching if settings.batching else False,
        )


def reason_of(error: BaseException) -> str:
    """Why a version could not be loaded, for people."""
    if isinstance(error, ModelyardError):
        return error.message
    if isinstance(error, RemoteError):
        return f"the registry {'is away' if is_transient(error) else 'does not give the artifact'} ({error})"
    if isinstance(error, OSError):
        return f"the pod's disk: {error.strerror}"
    if isinstance(error, NoRoom):
        return str(error)
    return "an error inside the pod; its log says more"


def is_broken(error: BaseException) -> bool:
    """Whether the version itself is at fault, so that no pod could load it."""
    return isinstance(error, (MalformedContent, DigestMismatch))


def is_expected(error: BaseException) -> bool:
    """Whether `reason_of` says all there is to say."""
    return isinstance(error, (ModelyardError, RemoteError, OSError, NoRoom))


def _arena_bytes(settings: InferenceSettings) -> int:
    """The limit of the memory that predictions share: weights of the graphs that use it count too."""
    weights = settings.memory_budget_bytes or available_memory()
    return weights + settings.run_memory_bytes if settings.run_memory_bytes else 0


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1e3, 1)
