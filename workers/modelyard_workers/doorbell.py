"""What a worker does when the bell rings: ask the gateway for the job, and work on it if it is ours."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import grpc
import structlog

from modelyard.core import channels
from modelyard.core.errors import InvalidFields, RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.names import TRAINING_JOB
from modelyard.core.retries import Patience
from modelyard.v1.worker_service_pb2 import ClaimTrainingJobResponse

from .attempt import Attempt
from .bell import Bell
from .gateway import Gateway, may_pass
from .interruptions import Interruptions
from .settings import WorkerSettings
from .trainers import Trainers

_CLAIM_PATIENCE_S = 60.0

log = get_logger()


def answer_doorbell(name: str, settings: WorkerSettings, shutdown: Bell, trainers: Trainers | None = None) -> None:
    """Works on the job `name` if the gateway gives it to us; returns when that is over.

    Runs in the main thread of a pool process. Channels are made here and nowhere earlier: gRPC must not have been
    started in a process that forks. `trainers`: where to get the trainer from; by default a new one is started.
    """
    try:
        TRAINING_JOB.parse(name, "name")
    except InvalidFields as error:
        log.warning("a doorbell for no job was ignored", error=str(error))
        return
    with ExitStack() as stack:
        stack.enter_context(structlog.contextvars.bound_contextvars(job=name))
        gateway = Gateway(stack.enter_context(_channel(settings.gateway_address, settings)))
        claim = _claim(gateway, name, shutdown)
        if claim is None:
            return
        stack.enter_context(structlog.contextvars.bound_contextvars(attempt=claim.training_job.attempt))
        log.info("job claimed", dataset=claim.dataset.name)
        registry = stack.enter_context(_channel(settings.registry_address, settings))
        Attempt(settings, gateway, registry, claim, Interruptions(shutdown), trainers or _cold(settings)).run()


def _cold(settings: WorkerSettings) -> Trainers:
    return Trainers(settings.trainer_command, ahead=False)


def worker_name() -> str:
    """Who this process says it is."""
    return f"{socket.gethostname()}/{os.getpid()}"


def _claim(gateway: Gateway, name: str, shutdown: Bell) -> ClaimTrainingJobResponse | None:
    """The job if it is ours now. A gateway that is away is asked again for a while; then others ring again."""
    patience = Patience(_CLAIM_PATIENCE_S)
    try:
        while not shutdown.rung():
            try:
                claim = gateway.claim(name, worker_name())
            except RemoteError as error:
                if not may_pass(error):
                    raise
                shutdown.rung(patience.wait_s(error))
            else:
                return claim if claim.claimed else None
    except RemoteError as error:
        log.warning("the job could not be claimed", error=str(error))
    return None


def _channel(address: str, settings: WorkerSettings) -> grpc.Channel:
    metadata = channels.TokenFile(settings.token_file).metadata if settings.token_file else channels.no_token
    return channels.sync_channel(address, metadata)
