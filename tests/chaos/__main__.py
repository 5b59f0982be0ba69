"""`python -m chaos run`: see `--help`, and docs/chaos.md."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from .bars import bench, measure_kills, measure_outage
from .disks import own_mounts
from .report import report
from .run import ChaosPlan, run_chaos
from .stage import StageOptions
from .timings import SHORT

app = typer.Typer(help="Breaks a real cluster on purpose, and checks that nothing was lost.", no_args_is_help=True)


@app.command()
def run(
    seed: Annotated[int | None, typer.Option(help="Repeats a run. Default: a new one.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many.")] = 200,
    minutes: Annotated[float, typer.Option(min=0.1, help="Nothing new is begun after that.")] = 60.0,
    pause: Annotated[float, typer.Option(min=0.3, help="Seconds between two faults, in the mean.")] = 6.0,
    workers: Annotated[int, typer.Option(min=2, help="Worker programs.")] = 2,
    postgres: Annotated[bool, typer.Option(help="PostgreSQL and two gateways; without: SQLite and one.")] = True,
    pod: Annotated[bool, typer.Option(help="An inference pod too.")] = False,
    outage: Annotated[bool, typer.Option(help="Take all gateways away once.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where logs and data stay. Default: a temporary folder.")] = None,
) -> None:
    """Break things at random while jobs run."""
    _stop_in_order()
    options = StageOptions(SHORT, postgres=postgres, workers=workers, pod=pod, mounts=own_mounts())
    seed = seed if seed is not None else random.SystemRandom().randrange(10_000)
    tell(f"seed {seed}")
    plan = ChaosPlan(seed, jobs, minutes, options, pause_s=pause, outage=outage)
    result = run_chaos(plan, _folder(folder), tell)
    print(f"\n{report(result)}", flush=True)
    sys.exit(0 if result.survived else 1)


@app.command()
def bars(
    rounds: Annotated[int, typer.Option(min=0, help="Kills of each kind; 0: none, and no cancel.")] = 5,
    outage_minutes: Annotated[float, typer.Option(min=0, help="All gateways away for so long; 0: not at all.")] = 10.0,
    postgres: Annotated[bool, typer.Option(help="PostgreSQL and two gateways; without: SQLite and one.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where logs and data stay. Default: a temporary folder.")] = None,
) -> None:
    """Time single faults with default settings."""
    _stop_in_order()
    mounts, place = own_mounts(), _folder(folder)
    with bench(place, tell, mounts=mounts, postgres=postgres) as quiet:
        measured = measure_kills(quiet, rounds) if rounds else []
        measured += [measure_outage(quiet, outage_minutes)] if outage_minutes else []
    print("\n" + "\n".join(bar.line() for bar in measured), flush=True)


def _stop_in_order() -> None:
    """A run that is told to stop leaves nothing behind."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    tell(f"told to stop by {signal.Signals(number).name}")
    raise KeyboardInterrupt


def _folder(wanted: Path | None) -> Path:
    folder = wanted or Path(tempfile.mkdtemp(prefix="chaos-run-"))
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"logs and data are in {folder}")
    return folder


_began = time.monotonic()


def tell(line: str) -> None:
    """A line for somebody who waits."""
    print(f"[{time.monotonic() - _began:6.1f} s] {line}", flush=True)


def _main() -> int:
    """The exit code."""
    try:
        app()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - the last line of defence: it is told, and then the process ends
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = _main()
    sys.stdout.flush()
    os._exit(code)  # watchers of a run that was broken off are still at their calls
