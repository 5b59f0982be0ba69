"""`modelyard tenants …`: how the workers are shared."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.client import Client
from modelyard.v1.access_service_pb2 import Tenant

from .output import JsonFlag, errors_explained, given_id, last_part, print_json, print_table

app = typer.Typer(help="Tenants and their shares of the workers.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(help="The tenant, `tenants/ID` or just ID.", metavar="TENANT")]


@app.command("list")
def list_tenants(as_json: JsonFlag = False) -> None:
    """List the tenants that have jobs or settings of their own, by name."""
    with errors_explained(), Client() as client:
        tenants = list(client.access.tenants())
        if as_json:
            print_json(tenants)
        else:
            _print(tenants)


@app.command()
def show(tenant: TenantArgument, as_json: JsonFlag = False) -> None:
    """Show a tenant's share and bounds, and what it runs and has waiting."""
    with errors_explained(), Client() as client:
        _answer(client.access.tenant(given_id(tenant, "tenants")), as_json)


@app.command("set")
def set_tenant(
    tenant: TenantArgument,
    weight: Annotated[
        float | None, typer.Option(help="Its share: twice the weight, twice the workers; 0.01 to 100.")
    ] = None,
    max_running: Annotated[int | None, typer.Option(min=0, help="The most jobs at once; 0: no limit.")] = None,
    max_waiting: Annotated[
        int | None, typer.Option(min=0, help="The most jobs that may wait, more are refused; 0: no limit.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a tenant's share and bounds; for administrators. What is not given stays."""
    if weight is None and max_running is None and max_waiting is None:
        raise typer.BadParameter("name at least one of --weight, --max-running, --max-waiting")
    with errors_explained(), Client() as client:
        changed = client.access.set_tenant(
            given_id(tenant, "tenants"), weight=weight, max_running_jobs=max_running, max_waiting_jobs=max_waiting
        )
        _answer(changed, as_json)


def _answer(tenant: Tenant, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        _print([tenant])


def _print(tenants: list[Tenant]) -> None:
    print_table(
        ["TENANT", "WEIGHT", "RUNNING", "AT MOST", "WAITING", "AT MOST"],
        [
            [
                last_part(tenant.name),
                f"{tenant.weight:g}",
                str(tenant.running_jobs),
                str(tenant.max_running_jobs or "–"),
                str(tenant.waiting_jobs),
                str(tenant.max_waiting_jobs or "–"),
            ]
            for tenant in tenants
        ],
        empty="no tenant has jobs or settings of its own",
    )
