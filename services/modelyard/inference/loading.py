"""From a version's name to a version that can answer: fetch, verify, check, make the session, compare, warm up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from modelyard.core.errors import DigestMismatch, MalformedContent, ModelyardError, RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import is_transient
from modelyard.oip.tensors import format_shape

from .artifacts import ArtifactCache
from .calibration import Wishes, plan_execution
from .compatibility import check_runtime_supports
from .desired import WantedTensor, WantedVersion
from .execution import ExecutionPlan
from .graph_file import read_graph_file
from .predictability import is_predictable
from .sessions import LOAD_ERRORS, GraphSession, RuntimeOptions, brief
from .settings import InferenceSettings
from .signature import Signature, TensorInfo
from .versions import LoadedVersion

log = get_logger()


class Loader:
    """Loads and frees versions. Each step that computes or waits for the disk runs in a thread."""

    def __init__(self, artifacts: ArtifactCache, settings: InferenceSettings) -> None:
        """Raises WrongState if the settings demand a device that is not there."""
        self._artifacts = artifacts
        self._settings = settings
        self.options = RuntimeOptions(graph_threads=settings.graph_threads, device=settings.device)
        log.info("runtime", providers=self.options.providers(), runners=settings.runners)

    async def load(self, wanted: WantedVersion) -> LoadedVersion:
        """A version that is warm and ready to answer. What it raises, `reason_of` puts into words."""
        start = time.perf_counter()
        if wanted.opset_version > 0 and wanted.ir_version > 0:
            await asyncio.to_thread(check_runtime_supports, wanted.opset_version, wanted.ir_version)
        path = await self._artifacts.fetch(wanted.digest, wanted.size_bytes)
        fetched = time.perf_counter()
        try:
            session, plan = await asyncio.to_thread(self._open, path, wanted)
        except BaseException:
            self._artifacts.release(wanted.digest)
            raise
        log.info(
            "version loaded", version=str(wanted), digest=wanted.digest, signature=str(session.signature),
            fetch_ms=_milliseconds(start, fetched), load_ms=_milliseconds(fetched, time.perf_counter()),
            batching=plan.reason, batch_rows=plan.batch_rows, inline_rows=plan.inline_rows, runners=plan.runners,
        )  # fmt: skip
        return LoadedVersion(wanted, session, plan)

    async def unload(self, version: LoadedVersion) -> None:
        """Lets a version finish what it has, then frees it."""
        await version.retire()
        self._artifacts.release(version.wanted.digest)
        log.info("version unloaded", version=str(version.wanted))

    def _open(self, path: Path, wanted: WantedVersion) -> tuple[GraphSession, ExecutionPlan]:
        options = replace(self.options, graph_threads=wanted.serving.graph_threads or self.options.graph_threads)
        session = GraphSession(path, options)
        found = session.signature
        session.signature = Signature.of(
            _agreed("inputs", wanted.inputs, found.inputs), _agreed("outputs", wanted.outputs, found.outputs)
        )
        sizes = [size for size in self._settings.warm_up_batch_sizes if size <= self._settings.max_batch_size]
        try:
            session.warm_up(sizes)
            steady = not options.on_gpu and is_predictable(read_graph_file(path))
            plan = plan_execution(session, self._wishes(wanted), may_inline=steady)
        except LOAD_ERRORS as error:
            raise MalformedContent(f"the graph fails on zeros: {brief(error)}") from error
        return session, plan

    def _wishes(self, wanted: WantedVersion) -> Wishes:
        """What is asked of this version: by the model's owner, else by the pod's settings."""
        serving, settings = wanted.serving, self._settings
        return Wishes(
            runners=serving.runners or settings.runners,
            queue_size=serving.queue_size or settings.queue_size,
            max_batch_size=serving.max_batch_size or settings.max_batch_size,
            graph_threads=serving.graph_threads or settings.graph_threads,
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
    return "an error inside the pod; its log says more"


def is_broken(error: BaseException) -> bool:
    """Whether the version itself is at fault, so that no pod could load it."""
    return isinstance(error, (MalformedContent, DigestMismatch))


def is_expected(error: BaseException) -> bool:
    """Whether `reason_of` says all there is to say."""
    return isinstance(error, (ModelyardError, RemoteError, OSError))


def _agreed(what: str, recorded: tuple[WantedTensor, ...], found: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """The tensors as the registry recorded them from the same file; a contradiction means that it is not the same.

    The recorded shapes count, because they are what the file declares. The runtime reports what it infers, which may
    fix a dimension that is declared free: in a graph that was traced at one batch size, that is how one notices.
    """
    if not recorded:
        return found
    pairs = list(zip(recorded, found, strict=False))
    if len(recorded) != len(found) or not all(_compatible(*pair) for pair in pairs):
        expected = ", ".join(f"{tensor.name} {tensor.datatype} {format_shape(tensor.shape)}" for tensor in recorded)
        actual = ", ".join(map(str, found))
        raise MalformedContent(f"the registry recorded the {what} {expected}; the graph has {actual}")
    return tuple(TensorInfo(tensor.name, actual.datatype, tensor.shape) for tensor, actual in pairs)


def _compatible(recorded: WantedTensor, found: TensorInfo) -> bool:
    """Whether both may be readings of the same tensor."""
    return (
        (recorded.name, recorded.datatype) == (found.name, found.datatype.name)
        and len(recorded.shape) == len(found.shape)
        and all(-1 in sizes or sizes[0] == sizes[1] for sizes in zip(recorded.shape, found.shape, strict=True))
    )


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1e3, 1)
