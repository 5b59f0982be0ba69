"""How the command talks: tables and colours for people, `--json` for programs, exit codes for scripts.

Results go to standard output, everything else (progress, errors) to standard error, so that a pipe sees results only.
What services and people wrote (column names, messages, reasons) is printed as it is: only what is written here may
carry the terminal library's markup.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.core.errors import ModelyardError, RemoteError, to_status

_PIPE_WIDTH = 400
"""Columns where nobody said how many there are: a program that reads a table must not find its rows folded."""


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]


class Exit(IntEnum):
    """Exit codes. They do not change between releases."""

    OK = 0
    FAILED = 1
    """The thing asked for did not succeed, for example the job failed."""
    USAGE = 2
    """Wrong arguments, or content that a service refused as invalid."""
    NOT_FOUND = 3
    DENIED = 4
    """No token, or one without the right."""
    UNAVAILABLE = 5
    """The cluster cannot be reached or cannot answer now: trying again may help."""
    CONFLICT = 6
    """The state does not allow it: exists already, changed in between, wrong state."""
    CANCELLED = 7
    """The job that was watched was cancelled."""
    PAUSED = 8
    """The job that was watched is paused."""
    INTERRUPTED = 130


_EXIT_OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.DENIED,
    grpc.StatusCode.UNAVAILABLE: Exit.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNAVAILABLE,
    grpc.StatusCode.ALREADY_EXISTS: Exit.CONFLICT,
    grpc.StatusCode.ABORTED: Exit.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.CONFLICT,
}


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turns what a command raises into a message for people and an exit code for scripts."""
    try:
        yield
    except RemoteError as error:
        _explain(error)
        raise typer.Exit(_EXIT_OF_CODE.get(error.code, Exit.FAILED)) from error
    except ModelyardError as error:
        remote = RemoteError(_code_of(error), error.message, violations=getattr(error, "violations", ()))
        _explain(remote)
        raise typer.Exit(_EXIT_OF_CODE.get(remote.code, Exit.FAILED)) from error
    except ConnectionError as error:
        complain(str(error))
        raise typer.Exit(Exit.UNAVAILABLE) from error
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(Exit.USAGE) from error
    except ValueError as error:
        complain(str(error))
        raise typer.Exit(Exit.USAGE) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(Exit.INTERRUPTED) from error


def _code_of(error: ModelyardError) -> grpc.StatusCode:
    number = to_status(error).code
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def _explain(error: RemoteError) -> None:
    for violation in error.violations:
        complain(f"{violation.field}: {violation.description}")
    if not error.violations:
        complain(error.message, note=f"({error.reason or error.code.name})")
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        err.print("  [dim]MODELYARD_TOKEN holds the token; `modelyard token create` makes one[/]")
    if error.metadata.get("request_id") and error.code is grpc.StatusCode.INTERNAL:
        err.print(f"  [dim]request id {error.metadata['request_id']}[/]")


def complain(message: str, note: str = "") -> None:
    """An error message for people, printed as it is; `note` stands behind it."""
    err.print(Text.assemble(("error:", "bold red"), f" {message}", (f" {note}" if note else "", "dim")))


def print_json(value: Message | Iterable[Message] | dict[str, Any]) -> None:
    """A document for programs: field names as in the protos, enums by name, times in RFC 3339."""
    if isinstance(value, Message):
        document: Any = as_dict(value)
    elif isinstance(value, dict):
        document = value
    else:
        document = [as_dict(message) for message in value]
    out.print(json.dumps(document, indent=2), markup=False, highlight=False, emoji=False)


def print_json_line(message: Message) -> None:
    """One event of a stream on one line (JSON Lines)."""
    out.print(json.dumps(as_dict(message)), markup=False, highlight=False, emoji=False)


def as_dict(message: Message) -> dict[str, Any]:
    """The message as plain data."""
    return MessageToDict(message, preserving_proto_field_name=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, empty: str) -> None:
    """A table for people, or a sentence if there is nothing. Texts stand in it as they are; `styled` colours one."""
    table = Table(box=None, pad_edge=False, header_style="bold dim")
    for column in columns:
        table.add_column(column, overflow="fold")  # nothing is left out on a narrow terminal
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if table.row_count:
        out.print(table)
    else:
        err.print(f"[dim]{empty}[/]")


def styled(text: str, style: str) -> Text:
    """A text in a colour, whatever is in it."""
    return Text(text, style)


def read_text(path: Path) -> str:
    """A file's text; raises OSError, or ValueError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8; byte {error.start + 1} is none") from error


def when(moment: Timestamp) -> str:
    """A time in the reader's own zone."""
    return moment.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment.seconds else "–"


def given_id(text: str, collection: str) -> str:
    """The id that a person gave, alone or as `datasets/ID`; a path stays one, for the service to refuse."""
    return text.removeprefix(f"{collection}/")


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def last_part(name: str) -> str:
    """The id at the end of a resource name that a service answered; for what a person gave: `given_id`."""
    return name.rpartition("/")[2]
