"""What a watcher hears, read in threads of their own, so that the terminal is drawn also while nothing happens."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from modelyard.client import Client, RemoteError
from modelyard.v1.training_job_pb2 import TrainingJobEvent
from modelyard.v1.training_service_pb2 import TrainingJobExplanation

_AHEAD = 1_000
_MOST_AT_ONCE = 500
_EXPLAIN_EVERY_S = 5.0
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Contact:
    """Whether the cluster can be reached."""

    error: RemoteError | None
    """Why not; None if it can."""


@dataclass(frozen=True)
class _End:
    """No more events, or what reading them raised."""

    error: BaseException | None = None


Heard = TrainingJobEvent | Contact | TrainingJobExplanation


class JobFeed:
    """One job's events, and why it waits while it does. Use it in a `with`."""

    def __init__(self, client: Client, name: str, *, after_sequence: int, until_paused: bool) -> None:
        self._client = client
        self._name = name
        self._after = after_sequence
        self._until_paused = until_paused
        # Bounded: a history is not read faster than it is drawn.
        self._heard: queue.Queue[Heard | _End] = queue.Queue(_AHEAD)
        self._waits = threading.Event()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        for target in (self._read, self._explain):
            threading.Thread(target=target, name=f"{target.__name__} {self._name}", daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closed.set()
        self._waits.set()

    def waits(self, waits: bool) -> None:
        """Says whether the job waits in its queue: then it is asked why, every few seconds."""
        if waits:
            self._waits.set()
        else:
            self._waits.clear()

    def batches(self, every_s: float) -> Iterator[list[Heard]]:
        """What was heard, in order, at least every `every_s` seconds, if only an empty list; ends with the events.

        Raises RemoteError when the cluster could not be reached for too long.
        """
        while True:
            batch: list[Heard] = []
            end = self._gather(batch, every_s)
            yield batch
            if end is not None and end.error is not None:
                raise end.error
            if end is not None:
                return

    def _gather(self, batch: list[Heard], every_s: float) -> _End | None:
        wait_s = every_s
        with contextlib.suppress(queue.Empty):
            while len(batch) < _MOST_AT_ONCE:
                item = self._heard.get(timeout=wait_s)
                if isinstance(item, _End):
                    return item
                batch.append(item)
                wait_s = 0.0
        return None

    def _read(self) -> None:
        try:
            events = self._client.training.watch(
                self._name,
                after_sequence=self._after,
                until_paused=self._until_paused,
                on_contact=lambda error: self._put(Contact(error)),
            )
            for event in events:
                self._put(event)
            self._put(_End())
        except BaseException as error:  # noqa: BLE001 - raised again where the feed is read
            self._put(_End(error))

    def _explain(self) -> None:
        while not self._closed.is_set():
            self._waits.wait()
            if self._closed.is_set():
                return
            # Why a job waits is an extra: whatever is wrong with asking, the events tell of it, or it does not matter.
            with contextlib.suppress(Exception):
                self._put(self._client.training.explain(self._name))
            self._rest()

    def _rest(self) -> None:
        """Until it is time to ask again, or the job has stopped waiting: it may soon wait for something else."""
        until = time.monotonic() + _EXPLAIN_EVERY_S
        while self._waits.is_set() and time.monotonic() < until and not self._closed.wait(_LOOK_EVERY_S):
            pass

    def _put(self, item: Heard | _End) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._heard.put(item, timeout=0.2)
                return
