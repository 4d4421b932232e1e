"""`pvemcp audit`: who did what, and whether that record is whole."""

import sys
from datetime import datetime
from typing import Annotated, Literal

import typer

from pvemcp_server.admin import audit, overview
from pvemcp_server.cli.context import AsJson, acting, tell, tell_rows
from pvemcp_server.cli.options import Given, taking
from pvemcp_server.cli.state import command

app = typer.Typer(help="Find, export and verify the audit.", no_args_is_help=True)

TIMES = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]  # UTC unless told
OPTIONS = {
    "since": Annotated[
        datetime | None,
        typer.Option(
            formats=TIMES, metavar="TIME", help="2026-11-22, or 2026-11-22T08:00:00; UTC."
        ),
    ],
    "until": Annotated[
        datetime | None, typer.Option(formats=TIMES, metavar="TIME", help="Before this time.")
    ],
    "key": Annotated[str | None, typer.Option(help="Id of a key.")],
    "tool": Annotated[str | None, typer.Option(help="Tool, or admin.… for changes.")],
    "cluster": Annotated[str | None, typer.Option(help="Cluster that was asked.")],
    "kind": Annotated[
        str | None, typer.Option(help="call, intent, refused, admin, retention, break.")
    ],
    "outcome": Annotated[str | None, typer.Option(help="ok, error, refused or cancelled.")],
    "address": Annotated[str | None, typer.Option(help="Where it came from.")],
    "text": Annotated[str | None, typer.Option(help="In key name, tool, arguments or reason.")],
}
COLUMNS = ("seq", "at", "key_name", "tool", "cluster", "outcome", "rows", "duration_ms", "reason")


@app.command("list")
@command
@taking(
    {
        **OPTIONS,
        "before": Annotated[int | None, typer.Option(help="Older than this seq: next page.")],
    }
)
async def list_entries(
    given: Given,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most entries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Entries, newest first."""
    async with acting() as by:
        found = await audit.find(by, audit.Search(**given), limit)
        tell_rows(found, COLUMNS, as_json=as_json)


@app.command()
@command
@taking(OPTIONS)
async def export(
    given: Given,
    shape: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="csv, or json: one object a line.")
    ] = "csv",
) -> None:
    """All entries that match, to standard output."""
    async with acting() as by:
        async for piece in await audit.export(by, audit.Search(**given), shape):
            sys.stdout.write(piece)


@app.command()
@command
async def calls(as_json: AsJson = False) -> None:
    """Calls of the last day by hour, oldest first, and how many of them failed."""
    async with acting() as by:
        found = await overview.calls_by_hour(by)
        tell_rows(found, ("at", "calls", "failed"), as_json=as_json)


@app.command()
@command
async def verify(as_json: AsJson = False) -> None:
    """Find any edit, deletion or reordering; exits with 1 when there is one."""
    async with acting() as by:
        found = await audit.verify(by)
    told = [f"Row {one['seq']}: {one['fact']}" for one in found.findings]
    words = "\n".join(told) if told else "The chain is whole."
    tell(found, f"{words}\nIts end: {found.head}", as_json=as_json)
    if not found.whole:
        raise typer.Exit(1)
