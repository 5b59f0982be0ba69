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
        self._stayed_rows = 0
        """Rows that waited already when the last batch was answered, or were left over by one that has begun since."""
        self._expected_rows = 0
        """Rows that will wait when those have come back who have just been answered, as callers in a loop do."""
        self._until = 0.0
        self._trust = 1.0
        """The share of the longest wait that is granted: less while callers do not come back."""
        self._hoped = False
        """Whether callers were waited for, or came back before that, since the last batch began."""

    def begun(self, rows: int, waiting_rows: int) -> None:
        """A batch of so many rows has left the queue, which had `waiting_rows` before."""
        if self._hoped and self._expected_rows > self._stayed_rows:
            came_back = 2 * (waiting_rows - self._stayed_rows) >= self._expected_rows - self._stayed_rows
            self._trust = min(1.0, 2 * self._trust) if came_back else max(LEAST_TRUST, self._trust / 2)
        self._hoped = False
        self._stayed_rows = max(0, waiting_rows - rows)
        self._expected_rows = max(self._stayed_rows, self._expected_rows - rows)

    def ended(self, requests: int, rows: int, took_s: float, waiting_rows: int) -> None:
        """A batch has been answered while `waiting_rows` were in the queue."""
        request_s = took_s / requests
        self._request_s += (request_s - self._request_s) * (_WEIGHT if self._request_s else 1.0)
        if requests == 1 and not waiting_rows:
            return
        now = time.monotonic()
        outstanding = max(0, self._expected_rows - waiting_rows) if now < self._until else 0
        self._stayed_rows = waiting_rows
        self._expected_rows = waiting_rows + rows + outstanding
        self._until = max(self._until, now + self._trust * min(took_s * LINGER_SHARE, LINGER_MOST_S))

    def seconds_for(self, requests: int) -> float:
        """When a queue of this length will be empty, roughly."""
        return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, requests * self._request_s / self._runners))

    def linger_s(self, waiting_rows: int, most_rows: int) -> float:
        """How long a free runner does well to wait for more, if a batch has at most `most_rows`; 0 if it should begin.

        When callers call again as soon as they are answered, those of a batch arrive one by one within a moment of each
        other. To leave with the first of them would compute small batches and large ones in turn; to leave without
        them, when others have been waiting, would keep the two groups apart for ever. So behind a batch, a runner gives
        its callers that moment. A server with little to do computes one request while none waits, and waits for nobody.
        """
        if self._stayed_rows >= most_rows:
            return 0.0
        all_are_back = waiting_rows >= min(most_rows, self._expected_rows)
        wait_s = 0.0 if all_are_back else max(0.0, self._until - time.monotonic())
        if all_are_back or wait_s:
            self._hoped = True
        return wait_s
