"""Why a job waits, in words."""

from __future__ import annotations

from modelyard.v1.training_service_pb2 import TrainingJobExplanation

from .durations import clock, until
from .job_lines import harmless, hour


def waiting_for(explanation: TrainingJobExplanation) -> str:
    """The reasons in one line, with the estimated start; empty if the job does not wait."""
    parts = [harmless(reason.message) for reason in explanation.reasons]
    starts = estimate(explanation)
    return "; ".join([*parts, starts] if parts and starts else parts)


def estimate(explanation: TrainingJobExplanation) -> str:
    """When the job will probably start; empty if that is not known."""
    if not explanation.HasField("estimated_start_time"):
        return ""
    moment = explanation.estimated_start_time
    return f"starts at about {hour(moment)} (in {clock(until(moment))})"
