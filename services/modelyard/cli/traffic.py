"""`modelyard models traffic` and `shadow`: where an alias sends its callers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from modelyard.client import Client
from modelyard.v1.model_pb2 import ShadowReport, Traffic

from .output import JsonFlag, err, errors_explained, given_id, out, print_json, print_table


def model_id(text: str) -> str:
    """`diabetes` of `diabetes` or `models/diabetes`."""
    return given_id(text, "models")


ModelArgument = Annotated[
    str, typer.Argument(help="The model, `models/ID` or just ID.", metavar="MODEL", callback=model_id)
]
AliasOption = Annotated[str, typer.Option(help="The alias.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]


def traffic(
    model: ModelArgument,
    canary: Annotated[
        list[str] | None,
        typer.Option(metavar="VERSION=PERCENT", help="Send so many percent to this version; may be repeated."),
    ] = None,
    shadow: Annotated[
        str, typer.Option(metavar="VERSION[=PERCENT]", help="Have this version answer too, for comparison only.")
    ] = "",
    sticky_key: Annotated[
        str, typer.Option(metavar="KEY", help="Metadata key that tells callers apart (x-modelyard-caller).")
    ] = "",
    alias: AliasOption = "live",
    reason: ReasonOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Send a share of an alias's callers to other versions. Without options: all to its own version again."""
    with errors_explained(), Client() as client:
        current = client.models.alias(model, alias)
        wanted = Traffic(sticky_key=sticky_key)
        for text in canary or ():
            if "=" not in text:
                raise ValueError(f"{text!r} says no share; expected VERSION=PERCENT, as in {text}=10")
            number, percent = _share(text)
            wanted.split.add(version=number, percent=percent)
        if shadow:
            wanted.shadow.version, wanted.shadow.percent = _share(shadow)
        moved = client.models.set_alias(
            model, current.version, alias=alias, traffic=wanted, etag=current.etag, reason=reason
        )
        if as_json:
            print_json(moved)
        else:
            out.print(f"{model} {alias} → {traffic_text(moved.version, moved.traffic)}", highlight=False)


def _share(text: str) -> tuple[int, float]:
    version, _, percent = text.partition("=")
    try:
        return int(version), float(percent or 0)
    except ValueError:
        raise ValueError(f"{text!r} is no share; expected VERSION=PERCENT, as in 2=10") from None


def traffic_text(version: int, found: Traffic) -> str:
    """Where an alias sends its callers, in words."""
    if not version:
        return "–"
    parts = [str(version), *(f"{share.percent:g} % {share.version}" for share in found.split)]
    if found.sticky_key:
        parts.append(f"by {found.sticky_key}")
    if found.HasField("shadow"):
        parts.append(f"shadow {found.shadow.version}")
    return ", ".join(parts)


def shadow(model: ModelArgument, alias: AliasOption = "live", as_json: JsonFlag = False) -> None:
    """Show how the answers of an alias's shadow version compare with those that callers get."""
    with errors_explained(), Client() as client:
        report = client.models.shadow_report(model, alias=alias)
        if as_json:
            print_json(report)
        else:
            _print_report(report)


def _print_report(report: ShadowReport) -> None:
    out.print(f"version {report.shadow_version} in the shadow of version {report.version}", highlight=False)
    print_table(
        ["COMPARED", "DIFFERING", "ROWS", "OTHER CLASS", "MAX DIFFERENCE", "RELATIVE", "FAILED", "DROPPED"],
        [
            [
                str(report.compared),
                str(report.differing),
                str(report.rows),
                str(report.class_mismatches),
                f"{report.max_absolute_difference:.3g}",
                f"{report.max_relative_difference:.3g}",
                str(report.failed),
                str(report.dropped),
            ]
        ],
        empty="",
    )
    if report.last_error:
        err.print(Text.assemble(("last failure:", "dim"), f" {report.last_error}"))
