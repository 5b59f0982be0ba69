"""Why a prediction failed, in the four words that Triton's metrics have for it."""

from __future__ import annotations

import asyncio

from modelyard.core.errors import Cancelled, DeadlineExceeded, ModelyardError, ResourceExhausted

REJECTED, CANCELED, BACKEND, OTHER = REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
"""Values of the label `reason` of `nv_inference_request_failure`."""


def failure_reason(error: BaseException) -> str:
    """REJECTED: the queue was full, or the request's time was over; CANCELED: by its caller; BACKEND: the graph or the
    runtime failed; OTHER: the request was wrong."""
    if isinstance(error, (ResourceExhausted, DeadlineExceeded)):
        return REJECTED
    if isinstance(error, (asyncio.CancelledError, Cancelled)):
        return CANCELED
    return OTHER if isinstance(error, ModelyardError) else BACKEND
