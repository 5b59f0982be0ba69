"""The worker program: Celery's worker with our way of starting, being ready and stopping."""

from __future__ import annotations

import signal
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

from celery import bootsteps, signals
from celery.apps.worker import Worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state

from modelyard.core.doorbell import celery_queue
from modelyard.core.logs import get_logger

from .app import make_app
from .bell import Bell
from .checkpoint_shelf import CheckpointShelf
from .doorbell import worker_name
from .ready_file import write_ready
from .settings import WorkerSettings
from .workspace import WorkFolder

READY_INTERVAL_S = 5.0

log = get_logger()


def run(settings: WorkerSettings) -> int:
    """Hears doorbells until a signal ends it; answers the exit code. REMAP_SIGTERM must be set (see `__main__`).

    SIGTERM: no more doorbells; running trainers get SIGTERM and their time of grace, their jobs are given back.
    """
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of root, for fear of pickle, which is refused here
    shutdown = Bell()
    _sweep(settings)
    app = make_app(settings, shutdown)
    app.steps["consumer"].add(Readiness)
    app.conf.update(modelyard_ready_file=settings.ready_file)
    signals.setup_logging.connect(_keep_logging, weak=False)
    signals.worker_shutting_down.connect(lambda **_: shutdown.ring(), weak=False)
    queues = [celery_queue(queue) for queue in settings.queue_names]
    worker = TrainingWorker(
        shutdown, app=app, hostname=worker_name(settings), queues=queues, quiet=True, loglevel=settings.log_level,
        without_gossip=True, without_mingle=True, without_heartbeat=True,
    )  # fmt: skip
    worker.start()
    log.info("stopped")
    return int(worker.exitcode or 0)


def _sweep(settings: WorkerSettings) -> None:
    work = WorkFolder(settings.work_dir)
    swept = work.sweep()
    if swept:
        log.info("removed the folders of killed attempts", folders=swept)
    forgotten = CheckpointShelf(work.checkpoints).sweep(settings.checkpoint_retention_s)
    if forgotten:
        log.info("removed old checkpoints", jobs=forgotten)


class TrainingWorker(Worker):  # type: ignore[misc]  # celery has no types
    """Celery's worker, except that running trainings hear of a shutdown at once, and that it lasts no longer than they.

    With REMAP_SIGTERM=SIGQUIT, which keeps a SIGTERM to the whole process group away from the pool processes, Celery
    would answer SIGTERM by sleeping through the whole soft shutdown, kill the tasks, and only then send
    `worker_shutting_down` (celery 5.7, `apps/worker.py`).
    """

    def __init__(self, bell: Bell, **arguments: Any) -> None:
        self._bell = bell
        super().__init__(**arguments)

    def install_platform_tweaks(self, worker: Worker) -> None:
        """Called by Celery when it installs its signal handlers; ours comes on top."""
        super().install_platform_tweaks(worker)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGQUIT, self._stop)
        # At each connection loss, of the default of a setting that is set (see `app`). Celery's logging, set up just
        # before, shows it always.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

    def wait_for_soft_shutdown(self) -> None:
        """Called by Celery on a second Ctrl-C, before it waits."""
        self._bell.ring()
        super().wait_for_soft_shutdown()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._bell.ring()
        # What Celery's own handler for a warm shutdown does: take nothing new, end when the running tasks have.
        state.should_stop = 0


class Readiness(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Keeps the ready file while the worker is connected to Redis and its event loop turns."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **arguments: Any) -> None:
        self._file: Path | None = consumer.app.conf.modelyard_ready_file
        self._timer: Any = None
        super().__init__(consumer, **arguments)

    def start(self, consumer: Any) -> None:
        """Connected, also after Redis was away."""
        log.info("ready", queues=sorted(consumer.app.amqp.queues.consume_from))
        if self._file is not None:
            write_ready(self._file)
            self._timer = consumer.timer.call_repeatedly(READY_INTERVAL_S, write_ready, (self._file,))

    def stop(self, _consumer: Any) -> None:
        """Shutting down, or the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _keep_logging(**_arguments: Any) -> None:
    """Having a receiver for `setup_logging` keeps Celery from setting logging up in its own way."""
