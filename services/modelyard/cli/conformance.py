"""`modelyard conformance`: does a server speak the Open Inference Protocol as Triton does?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table
from typer.core import TyperGroup

from .output import Exit, JsonFlag, complain, err, errors_explained, out

if TYPE_CHECKING:  # the suite is loaded when it is run: every other command starts without it
    from modelyard.conformance.registry import Check
    from modelyard.conformance.run import Report, Result

_STYLES = {"pass": "green", "fail": "bold red", "skip": "dim"}


class _RunByDefault(TyperGroup):
    """`modelyard conformance HOST:PORT …` is short for `modelyard conformance run HOST:PORT …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Check any server for conformance to the Open Inference Protocol as Triton speaks it.",
    no_args_is_help=True,
)


@app.command()
def run(
    server: Annotated[str, typer.Argument(help="host:port of the server's gRPC.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="The model to check with.")] = "conformance_add",
    model_version: Annotated[str, typer.Option(help="Its version; default: the server's choice.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(help="Metadata for every call: name=value. May be repeated.")
    ] = None,
    token: Annotated[str, typer.Option(help="A bearer token for every call.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM of the authority to trust, with --tls.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one call.")] = 30.0,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of a free dimension: INPUT=3 or INPUT.AXIS=3. May be repeated.")
    ] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="Inputs by name, as NumPy's .npz.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these checks: an id, a section, `refused.*`.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="All but these checks.")] = None,
    fail_on: Annotated[
        str, typer.Option(help="The weakest level whose failures make the exit code 1: required, triton, recommended.")
    ] = "triton",
    as_json: JsonFlag = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A page in Markdown on standard output.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every check in the table, not only failures.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the checks and stop.")] = False,
) -> None:
    """Run the checks against a server and print what failed.

    Exit codes: 0 if every check of the levels that count passed, 1 if one failed, 2 for wrong arguments, 5 if nothing
    that speaks the protocol answers.
    """
    from modelyard.conformance.probe import Target
    from modelyard.conformance.registry import Level
    from modelyard.conformance.report import failures
    from modelyard.conformance.run import choose
    from modelyard.conformance.run import run as run_checks

    with errors_explained():
        chosen = choose(only or [], skip or [])
        if listing:
            _print_list(chosen, as_json)
            return
        if not server:
            raise ValueError("give the server's host:port")
        strictest = Level(fail_on)
        target = Target(
            server, model, model_version, tuple(_pair(text, "--header") for text in header or []), token,
            tls=tls, root_certificates=ca.read_bytes() if ca else None, timeout=timeout,
            plan=_plan(dim or [], input_file),
        )  # fmt: skip
        with err.status(f"checking {server}"):
            report = run_checks(target, chosen)
        _print_report(report, as_json=as_json, markdown=markdown, junit=junit, show_all=show_all)
        if failures(report, strictest):
            raise typer.Exit(Exit.FAILED)


@app.command()
def models(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
) -> None:
    """Write the reference models: ONNX files, and what Triton, MLServer and KServe load."""
    with errors_explained():
        try:
            from modelyard.conformance.models.writing import write_models
        except ImportError as error:
            raise ValueError("the reference models are written with onnx: pip install onnx") from error
        for what, path in write_models(folder).items():
            out.print(f"{what}: {path}", highlight=False)


@app.command()
def compare(
    reports: Annotated[list[str], typer.Argument(help="NAME=FILE of each run's --json.", metavar="NAME=FILE…")],
) -> None:
    """Print several runs side by side, in Markdown."""
    from modelyard.conformance.report import compared

    with errors_explained():
        pairs = [_pair(text, "report") for text in reports]
        documents: list[dict[str, Any]] = [json.loads(Path(file).read_text(encoding="utf-8")) for _, file in pairs]
        out.print(compared(documents, [name for name, _ in pairs]), markup=False, highlight=False, end="")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found):
        raise ValueError(f"{option} {text!r}: expected name=value")
    return name, value


def _plan(dims: list[str], file: Path | None) -> Any:
    from modelyard.conformance.synthesis import Plan

    sizes = {name: int(size) for name, size in (_pair(text, "--dim") for text in dims)}
    if file is None:
        return Plan(sizes)
    with np.load(file, allow_pickle=False) as arrays:
        return Plan(sizes, dict(arrays))


def _print_list(checks: list[Check], as_json: bool) -> None:
    from modelyard.conformance.report import listed

    if as_json:
        out.print(json.dumps(listed(checks), indent=2, ensure_ascii=False), markup=False, highlight=False)
        return
    table = _table("CHECK", "LEVEL", "EXTENSION", "RULE")
    for check in checks:
        table.add_row(check.id, check.level.value, check.extension, check.rule)
    out.print(table)


def _print_report(report: Report, *, as_json: bool, markdown: bool, junit: Path | None, show_all: bool) -> None:
    from modelyard.conformance import report as documents

    if junit is not None:
        junit.write_text(documents.as_junit(report), encoding="utf-8")
    if as_json:
        out.print(documents.dumped(documents.as_json(report)), markup=False, highlight=False)
    elif markdown:
        out.print(documents.as_markdown(report), markup=False, highlight=False, end="")
    else:
        _print_tables(report, show_all=show_all)


def _print_tables(report: Report, *, show_all: bool) -> None:
    from modelyard.conformance.report import scores

    out.print(f"[bold]{report.server}[/] at {report.target.address}, model {report.target.model}", highlight=False)
    shown = [one for one in report.results if show_all or one.outcome == "fail"]
    if shown:
        table = _table("CHECK", "LEVEL", "RESULT", "SENT", "EXPECTED", "GOT")
        for result in shown:
            table.add_row(*_row(result))
        out.print(table)
    if report.unfinished:
        last = report.results[-1].check.id
        complain(f"the server is gone since {last}: {len(report.unfinished)} checks were not tried")
    table = _table("SECTION", "PASSED", "FAILED", "NOT APPLICABLE")
    for score in scores(report.results):
        failed = f"[bold red]{score.failed}[/]" if score.failed else "0"
        table.add_row(score.title, str(score.passed), failed, str(score.skipped))
    out.print(table)


def _row(result: Result) -> list[str]:
    from rich.markup import escape

    outcome = f"[{_STYLES[result.outcome]}]{result.outcome.value}[/]"
    texts = [escape(text) for text in (result.sent, result.expected, result.got)]
    return [result.check.id, result.check.level.value, outcome, *texts]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, overflow="fold")
    return table
