"""`modelyard train watch`: a job followed to its end."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from modelyard.client import Client
from modelyard.client.training import DEFAULT_PATIENCE_S
from modelyard.v1.training_job_pb2 import TrainingJob

from .job_feed import JobFeed
from .job_lines import State, cause_name, harmless
from .outcome import exit_code, show_outcome
from .output import Exit, err, last_part, print_json_line
from .screens import screen_for

REFRESH_S = 0.25
WHOLE_HISTORY = 300
"""A history up to so many events is shown from its beginning."""
TAIL = 40
"""Of a longer one, so many events; the curve and the attempts before them are shown as a whole."""
_EARLIER_POINTS = 1_000
_FIRST_CONTACT_S = 10.0
_EARLIER_ATTEMPTS = 5


def watch(
    client: Client, name: str, *, plain: bool = False, through_pauses: bool = False, console: Console = err
) -> Exit:
    """Draws the job until it ends (or is paused), then its outcome; answers the exit code that says how it ended."""
    # Not for long: a cluster that was never reached is more likely not there than away.
    job = client.training.get(name, patience_s=_FIRST_CONTACT_S)
    try:
        _draw(client, job, plain=plain, through_pauses=through_pauses, console=console)
    except KeyboardInterrupt:
        console.print(f"[dim]the job goes on; watch it again with: modelyard train watch {last_part(name)}[/]")
        raise
    return show_outcome(client.training.get(name, patience_s=DEFAULT_PATIENCE_S), console)


def watch_as_json(client: Client, name: str, *, after: int = 0, through_pauses: bool = False) -> Exit:
    """Prints every event behind `after` as one line of JSON; answers the exit code."""
    for event in client.training.watch(name, after_sequence=after, until_paused=not through_pauses):
        print_json_line(event)
    return exit_code(client.training.get(name, patience_s=DEFAULT_PATIENCE_S))


def _draw(client: Client, job: TrainingJob, *, plain: bool, through_pauses: bool, console: Console) -> None:
    _introduce(job, console)
    with screen_for(console, job, plain=plain) as screen:
        after = 0
        if job.last_sequence > WHOLE_HISTORY:
            after = job.last_sequence - TAIL
            _recall(client, job, after, console)
            for point in client.training.progress(job.name, max_points=_EARLIER_POINTS):
                screen.picture.curve.add(point.progress)
        with JobFeed(client, job.name, after_sequence=after, until_paused=not through_pauses) as feed:
            for heard in feed.batches(REFRESH_S):
                screen.show(heard)
                feed.waits(screen.picture.state == State.STATE_QUEUED)


def _introduce(job: TrainingJob, console: Console) -> None:
    title = f" “{harmless(job.display_name)}”" if job.display_name else ""
    queue = f", queue {job.scheduling.queue}" if job.scheduling.queue else ""
    console.print(Text.assemble((job.name, "bold"), f"{title} → {job.spec.model}{queue}"), highlight=False, emoji=False)


def _recall(client: Client, job: TrainingJob, skipped: int, console: Console) -> None:
    """What a watcher who comes late has to know of the time before: one line per attempt, not one per event."""
    console.print(
        f"[dim]{skipped:,} earlier events are not shown; `modelyard train logs {last_part(job.name)}` "
        "prints the log lines[/]",
        highlight=False,
    )
    if job.attempt < 2:
        return
    earlier = [one for one in client.training.attempts(job.name, limit=_EARLIER_ATTEMPTS + 1) if one.end_cause]
    for one in reversed(earlier[:_EARLIER_ATTEMPTS]):
        ended = f"attempt {one.attempt} on {harmless(one.worker)}: {cause_name(one.end_cause)}"
        told = Text(f"  {ended} {harmless(one.message)}".rstrip(), "dim")
        console.print(told, highlight=False, emoji=False)
