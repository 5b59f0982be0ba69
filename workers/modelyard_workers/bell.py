"""How a worker's processes hear that it is shutting down."""

from __future__ import annotations

import os
import select


class Bell:
    """Rung once, heard by this process and by all that it forks afterwards (an eventfd; Linux).

    Celery's own `worker_shutting_down` is sent in the main process only, and on a cold shutdown only after the soft
    shutdown's wait is over: too late for a training to stop in good order.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Tells everybody, for good. Safe in a signal handler."""
        os.eventfd_write(self._descriptor, 1)

    def rung(self, wait_s: float = 0.0) -> bool:
        """Whether it has been rung, waiting up to `wait_s` seconds for it."""
        # Nobody ever reads the eventfd, so it stays readable for all.
        return bool(select.select([self._descriptor], [], [], wait_s)[0])

    def close(self) -> None:
        """Gives the descriptor back."""
        os.close(self._descriptor)
