"""`modelyard token …`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.client import Client

from .durations import seconds
from .output import JsonFlag, err, errors_explained, out, print_json, styled, when

app = typer.Typer(help="Access tokens.", no_args_is_help=True)


@app.command()
def create(
    subject: Annotated[str, typer.Argument(help="Who the token stands for: a person or a program.")],
    role: Annotated[
        list[str], typer.Option(help="developer, viewer, predictor, worker, service or admin; may be repeated.")
    ],
    tenant: Annotated[str, typer.Option(help="The tenant it works in; default: your own.")] = "",
    lifetime: Annotated[str, typer.Option(help="How long it holds, as in 30m, 12h, 90d.")] = "24h",
    as_json: JsonFlag = False,
) -> None:
    """Create a token. The secret is printed once, alone on standard output."""
    with errors_explained(), Client() as client:
        token = client.access.create_token(subject, role, tenant=tenant, lifetime_s=seconds(lifetime, "a lifetime"))
        if as_json:
            print_json(token)
        else:
            out.print(token.secret, highlight=False, markup=False)
            err.print(styled(f"for {token.subject} in {token.tenant}, until {when(token.expire_time)}", "dim"))
