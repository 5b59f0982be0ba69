"""Which errors are worth a repetition, and how long to wait before it."""

from __future__ import annotations

import random
import time

import grpc

from .errors import RemoteError

_Code = grpc.StatusCode

_TRANSIENT = frozenset({_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.UNKNOWN, _Code.INTERNAL, _Code.CANCELLED})


def is_transient(error: RemoteError) -> bool:
    """Whether the same call may succeed later: the service is away, restarting, overloaded, or ended the call oddly.

    INTERNAL, UNKNOWN and CANCELLED belong here because that is what callers see when a connection breaks or a server
    stops in the middle of a call; a lasting bug is bounded by the caller's patience.
    """
    return error.code in _TRANSIENT or error.retry_after is not None


class Backoff:
    """Waiting times that double from `first_s` to `limit_s`, each shortened at random by up to half.

    The randomness keeps callers that failed together from coming back together.
    """

    def __init__(self, first_s: float = 0.1, limit_s: float = 5.0) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._next_s = first_s

    def reset(self) -> None:
        """Begins again with the shortest time: something succeeded."""
        self._next_s = self._first_s

    def next_s(self, error: RemoteError | None = None) -> float:
        """Seconds to wait now; not less than what the service advised in `error`, up to the limit."""
        wait = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._next_s = min(self._next_s * 2, self._limit_s)
        advised = error.retry_after if error is not None else None
        return wait if advised is None else max(wait, min(advised, self._limit_s))


class Patience:
    """Repeats while there is progress: gives up after `limit_s` seconds without any."""

    def __init__(self, limit_s: float, backoff: Backoff | None = None) -> None:
        self._limit_s = limit_s
        self._backoff = backoff or Backoff()
        self._since = time.monotonic()

    def progressed(self) -> None:
        """Something succeeded: the time without progress begins anew."""
        self._since = time.monotonic()
        self._backoff.reset()

    def wait_s(self, error: RemoteError) -> float:
        """Seconds to wait before the next try; raises `error` when the patience is at its end."""
        left = self._since + self._limit_s - time.monotonic()
        if left <= 0:
            raise error
        return min(self._backoff.next_s(error), left)
