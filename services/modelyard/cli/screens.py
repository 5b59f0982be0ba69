"""Where a job is drawn: a live picture at the end of a terminal, or plain lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console
from rich.text import Text

from modelyard.v1.training_job_pb2 import TrainingJob, TrainingJobEvent
from modelyard.v1.training_service_pb2 import TrainingJobExplanation

from .durations import clock
from .job_feed import Contact, Heard
from .job_lines import harmless, hour, line_of
from .job_picture import JobPicture, figures
from .terminal_region import TerminalRegion

PROGRESS_EVERY_S = 10.0
"""Plain lines tell of progress no more often than that."""


class Screen(Protocol):
    """Draws what was heard of a job."""

    picture: JobPicture

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def show(self, heard: Sequence[Heard]) -> None:
        """Draws it; with nothing heard, what changes with time alone."""


def screen_for(console: Console, job: TrainingJob, *, plain: bool) -> Screen:
    """The picture, if the console is a terminal that can show one and nobody asked for plain lines."""
    picture = JobPicture(job, ascii_only=console.options.ascii_only)
    if plain or not console.is_terminal or console.is_dumb_terminal:
        return PlainScreen(console, picture)
    return LiveScreen(console, picture)


class LiveScreen:
    """Lines that stay, above a picture that is drawn over."""

    def __init__(self, console: Console, picture: JobPicture) -> None:
        self.picture = picture
        self._console = console
        self._region = TerminalRegion(console)
        self._outage = Outage()

    def __enter__(self) -> Self:
        self._region.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._region.__exit__(*exception)

    def show(self, heard: Sequence[Heard]) -> None:
        above = []
        for item in heard:
            line = self._take(item)
            if line is not None:
                above.append(line)
        lines = self.picture.lines(self._region.columns, self._console.height)
        told = self._outage.line()
        self._region.draw([*lines, told] if told else lines, above)

    def _take(self, item: Heard) -> Text | None:
        if isinstance(item, Contact):
            return self._outage.take(item)
        if isinstance(item, TrainingJobExplanation):
            self.picture.explain(item)
            return None
        self.picture.take(item)
        # The picture tells of the newest checkpoint; a line for each would push everything else away.
        return None if item.HasField("checkpoint") else line_of(item)


class PlainScreen:
    """One line after the other, for files, pipes and small terminals."""

    def __init__(self, console: Console, picture: JobPicture) -> None:
        self.picture = picture
        self._console = console
        self._outage = Outage()
        self._untold: TrainingJobEvent | None = None
        self._told_s = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._tell_progress()

    def show(self, heard: Sequence[Heard]) -> None:
        for item in heard:
            self._take(item)
        if time.monotonic() - self._told_s >= PROGRESS_EVERY_S:
            self._tell_progress()

    def _take(self, item: Heard) -> None:
        if isinstance(item, Contact):
            lost = item.error is not None and not self._outage.lasts
            line = self._outage.take(item)
            self._print(self._outage.line() if lost else line)
        elif isinstance(item, TrainingJobExplanation):
            told = self.picture.waiting_for
            self.picture.explain(item)
            if self.picture.waiting_for not in {"", told}:
                self._print(Text(f"          {self.picture.waiting_for}", "dim"))
        else:
            self.picture.take(item)
            if item.HasField("progress"):
                self._untold = item
            elif not item.HasField("log_line"):
                self._tell_progress()  # in its place: before what came after it
            self._print(line_of(item))

    def _tell_progress(self) -> None:
        if self._untold is None:
            return
        event, self._untold, self._told_s = self._untold, None, time.monotonic()
        progress, left = event.progress, self.picture.time_left()
        far = f"epoch {progress.epoch:,}/{progress.max_epochs:,}"
        parts = [far, *figures(progress, self.picture.steps_per_second()), *([left] if left else [])]
        self._print(Text.assemble((f"{hour(event.time)}  ", "dim"), "  ".join(parts)))

    def _print(self, line: Text | None) -> None:
        if line is not None:
            self._console.print(line, highlight=False, emoji=False)


class Outage:
    """A time without the cluster."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._why = ""

    @property
    def lasts(self) -> bool:
        """Whether there is one now."""
        return self._since is not None

    def take(self, contact: Contact) -> Text | None:
        """Notes it; a line when it is over."""
        if contact.error is not None:
            self._since = self._since or time.monotonic()
            self._why = f"{contact.error.code.name}: {harmless(contact.error.message.partition(chr(10))[0])[:100]}"
            return None
        if self._since is None:
            return None
        lasted, self._since = time.monotonic() - self._since, None
        return Text(f"          connected again after {clock(lasted)}; no event was missed", "green")

    def line(self) -> Text | None:
        """What to say while it lasts."""
        if self._since is None:
            return None
        away = time.monotonic() - self._since
        told = f"connection lost, reconnecting for {clock(away)}; the job goes on"
        return Text.assemble(("  " + told, "yellow"), (f"  ({self._why})", "dim"))
