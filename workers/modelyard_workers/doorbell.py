"""What a worker does when the bell rings: ask the gateway for the job, and work on it if it is ours."""

from __future__ import annotations

import os
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
from .presence import Presence
from .settings import WorkerSettings
from .trainers import Trainers

_CLAIM_PATIENCE_S = 60.0

log = get_logger()


def answer_doorbell(
    name: str,
    settings: WorkerSettings,
    shutdown: Bell,
    trainers: Trainers | None = None,
    presence: Presence | None = None,
) -> None:
    """Asks for the job `name` and works on the one that the gateway gives us, if any; returns when that is over.

    Runs in the main thread of a pool process. Channels are made here and nowhere earlier: gRPC must not have been
    started in a process that forks. `trainers`: where to get the trainer from; by default a new one is started.
    `presence` hears what this process is busy with.
    """
    try:
        TRAINING_JOB.parse(name, "name")
    except InvalidFields as error:
        log.warning("a doorbell for no job was ignored", error=str(error))
        return
    with ExitStack() as stack:
        stack.enter_context(structlog.contextvars.bound_contextvars(job=name))
        gateway = Gateway(stack.enter_context(open_channel(settings.gateway_address, settings)))
        claim = _claim(gateway, name, settings, shutdown)
        if claim is None:
            return
        job = claim.training_job  # whose turn it is: not always the one that rang
        stack.enter_context(structlog.contextvars.bound_contextvars(job=job.name, attempt=job.attempt))
        log.info("job claimed", dataset=claim.dataset.name)
        if presence is not None:
            presence.busy(job.name)
            stack.callback(presence.idle)
        registry = stack.enter_context(open_channel(settings.registry_address, settings))
        Attempt(settings, gateway, registry, claim, Interruptions(shutdown), trainers or _cold(settings)).run()


def _cold(settings: WorkerSettings) -> Trainers:
    return Trainers(settings.trainer_command, ahead=False)


def worker_name(settings: WorkerSettings) -> str:
    """Who this process says it is."""
    return f"{settings.node}/{os.getpid()}"


def _claim(gateway: Gateway, name: str, settings: WorkerSettings, shutdown: Bell) -> ClaimTrainingJobResponse | None:
    """A job that is ours now. A gateway that is away is asked again for a while; then others ring again."""
    patience = Patience(_CLAIM_PATIENCE_S)
    try:
        while not shutdown.rung():
            try:
                claim = gateway.claim(name, worker_name(settings), settings.node)
            except RemoteError as error:
                if not may_pass(error):
                    raise
                shutdown.rung(patience.wait_s(error))
            else:
                return claim if claim.claimed else None
    except RemoteError as error:
        log.warning("the job could not be claimed", error=str(error))
    return None


def open_channel(address: str, settings: WorkerSettings) -> grpc.Channel:
    """A channel to one of the services, with the worker's token in every call."""
    metadata = channels.TokenFile(settings.token_file).metadata if settings.token_file else channels.no_token
    return channels.sync_channel(address, metadata)
