"""The Celery application: one task, the doorbell, and the settings that make Celery on Redis safe for trainings."""

from __future__ import annotations

from typing import Any

import grpc
from celery import Celery, signals

from modelyard.core.doorbell import TASK_NAME, celery_queue

from .bell import Bell
from .doorbell import answer_doorbell, open_channel, worker_name
from .gateway import Gateway
from .hardware import describe_hardware
from .interruptions import GOODBYE_S
from .presence import Presence
from .settings import BUILT_IN_TRAINER, WorkerSettings
from .trainers import Trainers

_START_POOL_S = 60.0


def make_app(settings: WorkerSettings, shutdown: Bell) -> Celery:
    """The application of one worker. `shutdown` is rung when the worker is being stopped."""
    app = Celery("modelyard", broker=settings.broker_url, set_as_current=False)
    app.conf.update(celery_settings(settings))
    trainers = Trainers(
        settings.trainer_command, ahead=settings.warm_trainer and settings.trainer_command == BUILT_IN_TRAINER
    )

    @app.task(name=TASK_NAME)  # type: ignore[untyped-decorator]  # celery has no types
    def doorbell(name: str) -> None:
        answer_doorbell(name, settings, shutdown, trainers, pool_process.presence)
        if not shutdown.rung():
            trainers.prepare()

    pool_process = _PoolProcess(settings, shutdown, trainers)
    signals.worker_process_init.connect(lambda **_: pool_process.begin(), weak=False)
    signals.worker_process_shutdown.connect(lambda **_: pool_process.end(), weak=False)

    return app


class _PoolProcess:
    """What each pool process has of its own, made behind the fork: gRPC does not survive one, and a trainer ends with
    the process that started it."""

    def __init__(self, settings: WorkerSettings, shutdown: Bell, trainers: Trainers) -> None:
        self._settings = settings
        self._shutdown = shutdown
        self._trainers = trainers
        self._channel: grpc.Channel | None = None
        self.presence: Presence | None = None

    def begin(self) -> None:
        self._trainers.prepare()
        settings = self._settings
        self._channel = open_channel(settings.gateway_address, settings)
        self.presence = Presence(
            Gateway(self._channel), worker_name(settings), settings.node, settings.queue_names, self._shutdown,
            describe_hardware,
        )  # fmt: skip
        self.presence.start()

    def end(self) -> None:
        self._trainers.close()
        if self.presence is not None:
            self.presence.close()
        if self._channel is not None:
            self._channel.close()


def celery_settings(settings: WorkerSettings) -> dict[str, Any]:
    """Celery's settings, each with its reason."""
    return {
        "task_default_queue": celery_queue(settings.queue_names[0]),
        # The message is a doorbell: acknowledged when it is heard, since Redis would deliver it a second time after
        # the visibility timeout while the first training still runs. For a lost one the gateway rings again.
        "task_acks_late": False,
        "task_ignore_result": True,
        # JSON only: no pickle from anybody who reaches Redis.
        "accept_content": ["json"],
        "task_serializer": "json",
        # Pool processes, not the solo pool, which loses the job on shutdown. One per job; the training itself runs in
        # a subprocess of the pool process (pool processes may have no children of their own kind, and CUDA no fork).
        "worker_pool": "prefork",
        "worker_concurrency": settings.concurrency,
        "worker_proc_alive_timeout": _START_POOL_S,
        # A worker takes a doorbell only when it can answer it: others may be idle.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        # Redis may be away for any time, at start and later; running trainings do not care.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": {"socket_keepalive": True, "health_check_interval": 25},
        # The bell stops trainings in good order (see `program`); this bounds a second Ctrl-C.
        "worker_soft_shutdown_timeout": settings.trainer_grace_s + settings.checkpoint_upload_s + GOODBYE_S + 5,
        # Whoever reaches Redis may ring, and nothing else: no remote shutdown, no revoking. Jobs are cancelled by row.
        "worker_enable_remote_control": False,
        # Logging is set up by the program.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }
