"""Decides what a trial of a version may take, and whether one is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard.inference.serving.desired import WantedVersion
from modelyard.inference.serving.memory import available_memory
from modelyard.inference.settings import GIBIBYTE, InferenceSettings

from .trial_messages import TrialFacts, TrialTask
from .trial_records import TrialRecords
from .trials import Trials

_LEAST_MEMORY_BYTES = GIBIBYTE
"""Of address space, which libraries take more of than they use."""

_RUN_PART = 0.5
"""Of what a run may take with a caller: a row of zeros that takes so long will hardly be served, and whoever promotes a
version that loops for ever waits a minute, not two, to hear of it."""

_COPIES_OF_A_FILE = 2
"""How often a file's content is in memory once it is loaded, where nobody has measured: as weights and rearranged."""


class VersionTrials:
    """Tries versions once per artifact. `close` it."""

    def __init__(self, settings: InferenceSettings, *, on_gpu: bool) -> None:
        """The cache folder must exist."""
        self._settings = settings
        # On a GPU the figures would be those of another device, and a second copy may not fit beside the first.
        self._trials = Trials() if settings.trial_loads and not on_gpu else None
        self._records = TrialRecords(settings.cache_dir / "trials")
        self._records.forget_all_but({path.name for path in (settings.cache_dir / "blobs").iterdir()})
        budget = settings.memory_budget_bytes
        self._memory_bytes = max(budget or available_memory(), _LEAST_MEMORY_BYTES)

    async def facts(self, path: Path, wanted: WantedVersion, graph_threads: int) -> TrialFacts:
        """What is known of a verified artifact; it is tried if nothing is.

        Raises MalformedContent with the reason if it must not be loaded, Unavailable if it could not be tried.
        """
        if self._trials is None:
            return TrialFacts(memory_bytes=_COPIES_OF_A_FILE * _file_bytes(wanted, self._settings))
        task = self._task(path, wanted, graph_threads)
        facts = await asyncio.to_thread(self._records.find, wanted.digest, task)
        if facts is None:
            facts = await self._trials.run(task)
            await asyncio.to_thread(self._records.note, wanted.digest, task, facts)
        return facts

    async def close(self) -> None:
        """Ends the process that trials run in."""
        if self._trials is not None:
            await self._trials.close()

    def _task(self, path: Path, wanted: WantedVersion, graph_threads: int) -> TrialTask:
        settings = self._settings
        most_rows = wanted.serving.max_batch_size or settings.max_batch_size
        return TrialTask(
            path=str(path),
            inputs=wanted.inputs,
            outputs=wanted.outputs,
            graph_threads=graph_threads,
            mapped_weights=maps_weights(wanted, settings),
            location=wanted.weights.location if wanted.weights is not None else "",
            warm_up_batch_sizes=tuple(size for size in settings.warm_up_batch_sizes if size <= most_rows),
            memory_bytes=self._memory_bytes,
            time_s=settings.trial_time_s,
            run_s=settings.max_run_s * _RUN_PART,
        )


def maps_weights(wanted: WantedVersion, settings: InferenceSettings) -> bool:
    """Whether the version's weights stay in their file."""
    weights = wanted.weights
    return bool(
        weights and settings.mapped_weights_from_bytes and weights.size_bytes >= settings.mapped_weights_from_bytes
    )


def _file_bytes(wanted: WantedVersion, settings: InferenceSettings) -> int:
    """Of the files that are read into memory."""
    weights = 0 if wanted.weights is None or maps_weights(wanted, settings) else wanted.weights.size_bytes
    return wanted.size_bytes + weights
