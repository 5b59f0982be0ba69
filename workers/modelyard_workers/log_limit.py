"""How much of what a trainer prints becomes log lines of its job."""

from __future__ import annotations

import time
from collections.abc import Callable

LINES_PER_S = 50.0
BURST_LINES = 1_000
LINES_PER_ATTEMPT = 100_000


class LogLimit:
    """A token bucket over lines, with a limit for the whole attempt.

    When the bucket runs dry lines are dropped until it is half full again, so that a flood is interrupted by few
    stretches of readable text rather than by many torn ones; each gap is told once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = float(BURST_LINES)
        self._filled_at = clock()
        self._left = LINES_PER_ATTEMPT
        self._dropping = False
        self._dropped = 0

    def admits(self) -> bool:
        """Whether the next line may pass; counts it as dropped if not."""
        self._fill()
        if self._empty():
            self._dropping = True
            self._dropped += 1
            return False
        self._dropping = False
        self._tokens -= 1
        self._left -= 1
        return True

    def drop(self, lines: int) -> None:
        """Counts lines that were dropped unseen."""
        self._dropped += lines

    def flooded(self) -> bool:
        """Whether lines are being dropped and the next one would be too. Counts nothing."""
        self._fill()
        return self._dropping and self._empty()

    def gap(self) -> str | None:
        """The line that tells of a gap which has ended, once; None if there is none to tell."""
        if not self._dropped:
            return None
        text = f"… {self._dropped:,} log lines dropped: the trainer prints more than {LINES_PER_S:.0f} lines a second"
        if self._left <= 0:
            text = f"… {self._dropped:,} log lines dropped: the attempt printed more than {LINES_PER_ATTEMPT:,} lines"
        self._dropped = 0
        return text

    def _empty(self) -> bool:
        return self._left <= 0 or self._tokens < (BURST_LINES / 2 if self._dropping else 1)

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(BURST_LINES, self._tokens + (now - self._filled_at) * LINES_PER_S)
        self._filled_at = now
