"""How fast a version has been lately, and what follows from it: when to try again, and when a free runner waits."""

from __future__ import annotations

import time

_WEIGHT = 0.2
"""Of the latest run in the running mean."""
_RETRY_LEAST_S, _RETRY_MOST_S = 0.01, 30.0

LINGER_SHARE = 0.6
LINGER_MOST_S = 0.012
"""A free runner waits at most this share of the last run's time, and at most so long."""
LEAST_TRUST = 0.05


class Pace:
    """Told of every batch that begins and ends. Used from the event loop."""

    def __init__(self, runners: int) -> None:
        self._runners = runners
        self._request_s = 0.0
        """Runner time of one request; 0 until the first run."""
        self._returning_rows = 0
        """Rows whose callers have just been answered and have not come back yet, as callers in a loop will."""
        self._until = 0.0
        self._trust = 1.0
        """The share of the longest wait that is granted: less while callers do not come back."""

    def begun(self, rows: int) -> None:
        """A batch of so many rows has left the queue."""
        if self._until:
            came_back = 2 * rows >= self._returning_rows
            self._trust = min(1.0, 2 * self._trust) if came_back else max(LEAST_TRUST, self._trust / 2)
        self._returning_rows = max(0, self._returning_rows - rows)

    def ended(self, requests: int, rows: int, took_s: float) -> None:
        """A batch has been answered."""
        request_s = took_s / requests
        self._request_s += (request_s - self._request_s) * (_WEIGHT if self._request_s else 1.0)
        if requests > 1:
            now = time.monotonic()
            self._returning_rows = rows + (self._returning_rows if now < self._until else 0)
            self._until = max(self._until, now + self._trust * min(took_s * LINGER_SHARE, LINGER_MOST_S))

    def seconds_for(self, requests: int) -> float:
        """When a queue of this length will be empty, roughly."""
        return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, requests * self._request_s / self._runners))

    def linger_s(self, waiting_rows: int) -> float:
        """How long a free runner does well to wait for more; 0 if it should begin.

        When callers call again as soon as they are answered, those of a batch arrive one by one within a moment of each
        other. To leave with the first of them would compute small batches and large ones in turn. So behind a batch of
        several requests, a runner gives its callers that moment. On a server with little to do there is no such batch,
        hence no wait.
        """
        if waiting_rows >= self._returning_rows:
            return 0.0
        return max(0.0, self._until - time.monotonic())
