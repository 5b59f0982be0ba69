"""Whose turn it is: shares a queue's workers between tenants by weight. Only arithmetic, so that claims, which decide,
and explanations, which foresee, use the same rule.

Two questions, in this order:

1. Who runs fewer jobs than its share? Of the places of all tenants that want to start a job, the free one included, a
   tenant's share is the part that its weight is of all their weights. Who has its share or more stands back.
2. Of those: who comes first by the tags? A share is seldom a whole number, and with one worker it never is. So every
   start puts a tenant's tag `1 / weight` further, and the lowest tag is next: over time the starts follow the weights.

A tenant that comes back after a pause takes the queue's present tag (start-time fair queueing: Goyal, Vin, Cheng 1996),
so nobody saves up turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDING = 1e-9


@dataclass(slots=True)
class Candidate:
    """A tenant that could start a job in the queue now."""

    tenant: str
    weight: float
    running: int
    """Its jobs in this queue that a worker holds."""
    tag: float
    """Where its starts so far have brought it; below the queue's tag it counts as that."""
    job_id: str = ""
    """The job that it would start."""


def whose_turn(candidates: Sequence[Candidate], queue_tag: float) -> Candidate | None:
    """The tenant that may start its next job; None if nobody wants to."""
    if not candidates:
        return None
    places = sum(candidate.running for candidate in candidates) + 1
    per_weight = places / sum(candidate.weight for candidate in candidates)
    # Never empty: if everybody had its share, all together would hold the free place too.
    below = (one for one in candidates if one.running < one.weight * per_weight - _ROUNDING)
    return min(below, key=lambda one: (max(one.tag, queue_tag), one.running / one.weight, one.tenant))


def next_tag(candidate: Candidate, queue_tag: float) -> float:
    """The tenant's tag after it has started a job."""
    return max(candidate.tag, queue_tag) + 1 / candidate.weight


def next_queue_tag(candidates: Sequence[Candidate], queue_tag: float) -> float:
    """The queue's tag after one of these has started a job: the lowest that any of them had. It never goes back."""
    return min(max(candidate.tag, queue_tag) for candidate in candidates)
