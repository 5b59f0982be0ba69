"""A bar that shows how far an upload is, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from .output import err


@contextmanager
def upload_bar(*files: Path) -> Iterator[Callable[[int, int], None]]:
    """Draws a bar for as long as it is entered; gives what hears (bytes sent, bytes in all). Only in a terminal."""
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("uploading", total=sum(file.stat().st_size for file in files))
        yield lambda sent, total: progress.update(task, completed=sent, total=total)
