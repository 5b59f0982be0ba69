"""Tells the gateway how an attempt ended, until it has heard."""

from __future__ import annotations

from modelyard.core.errors import RemoteError
from modelyard.core.logs import get_logger
from modelyard.core.retries import Patience
from modelyard.v1.training_job_pb2 import TrainingJob
from modelyard.v1.worker_service_pb2 import FinishTrainingJobRequest

from . import outcomes
from .gateway import Gateway, is_stale, may_pass
from .interruptions import Interruption, Interruptions

log = get_logger()


def conclude(
    gateway: Gateway, outcome: FinishTrainingJobRequest, interruptions: Interruptions, limit_s: float
) -> TrainingJob | None:
    """Sends `outcome` (its name and attempt are set) and answers the job; None if it could not be delivered.

    A refusal that repeating cannot change turns a success into a failure that says what was refused, so that the job
    ends visibly. A cancel that comes while the gateway does not answer turns it into a cancellation.
    """
    try:
        job = _deliver(gateway, outcome, interruptions, Patience(limit_s))
    except RemoteError as error:
        log.warning("the gateway was not told how the attempt ended", error=str(error))
        return None
    log.info("attempt finished", state=TrainingJob.State.Name(job.state))
    return job


def _deliver(
    gateway: Gateway, outcome: FinishTrainingJobRequest, interruptions: Interruptions, patience: Patience
) -> TrainingJob:
    while True:
        try:
            return gateway.finish(outcome)
        except RemoteError as error:
            changed = _what_to_say_after(error, outcome, interruptions)
            changed.name, changed.attempt = outcome.name, outcome.attempt
            outcome = changed
            interruptions.pause(patience.wait_s(error))


def _what_to_say_after(
    error: RemoteError, outcome: FinishTrainingJobRequest, interruptions: Interruptions
) -> FinishTrainingJobRequest:
    """The outcome to send next; raises `error` if there is none."""
    if is_stale(error):
        raise error
    if not may_pass(error):
        if not outcome.HasField("succeeded"):
            raise error
        log.error("the gateway refused the result", error=str(error))
        return outcomes.internal_failure(f"the gateway refused the result: {error}")
    if interruptions.hopeless():
        raise error
    return outcomes.cancelled() if interruptions.current() is Interruption.CANCELLED else outcome
