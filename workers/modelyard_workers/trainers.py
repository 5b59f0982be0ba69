"""Where attempts get their trainers from: one that was started ahead and has everything imported, else a new one.

Importing torch takes seconds; a job that finds a warm trainer begins at once. Each trainer trains one job and ends, so
jobs share nothing but what was imported before the first of them. CUDA is not touched before a job is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelyard.core.logs import get_logger

from .trainer_process import TrainerProcess

log = get_logger()


class Trainers:
    """The trainers of one pool process. Use it from its main thread: trainers end with the thread that started them."""

    def __init__(self, command: Sequence[str], *, ahead: bool) -> None:
        """`ahead`: keep one waiting."""
        self._command = command
        self._ahead = ahead
        self._waiting: TrainerProcess | None = None

    def prepare(self) -> None:
        """Has a trainer waiting for the next job."""
        if not self._ahead or self._waiting is not None:
            return
        try:
            self._waiting = TrainerProcess.start_ahead(self._command)
        except OSError as error:  # the next job starts its own, and reports what is wrong
            log.warning("no trainer could be started ahead", error=str(error))

    def start(self, workdir: Path) -> TrainerProcess:
        """A trainer at work in `workdir`; raises OSError if there is no process to be had."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if waiting.assign(workdir):
                return waiting
            log.warning("the trainer that was started ahead has ended", exit_code=waiting.reap())
            waiting.close()
        return TrainerProcess.start(self._command, workdir)

    def close(self) -> None:
        """Ends the waiting trainer."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()
