"""`pvemcp audit`: who did what, and whether that record is whole."""

import sys
from datetime import datetime
from typing import Annotated, Literal

import typer

from pvemcp_server.cli.acting import AsJson, acting, changes, tell, tell_rows
from pvemcp_server.cli.state import command
from pvemcp_server.web.administration import audit

app = typer.Typer(help="Find, export and verify the audit.", no_args_is_help=True)

TIMES = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"]  # UTC unless told
Since = Annotated[datetime | None, typer.Option(formats=TIMES, help="2026-11-22T08:00:00, UTC.")]
Until = Annotated[datetime | None, typer.Option(formats=TIMES, help="Before this time.")]
Key = Annotated[str | None, typer.Option(help="Id of a key.")]
Tool = Annotated[str | None, typer.Option(help="Tool, or admin.… for changes.")]
OfCluster = Annotated[str | None, typer.Option(help="Cluster that was asked.")]
OfKind = Annotated[str | None, typer.Option(help="call, intent, refused, admin, retention, break.")]
Outcome = Annotated[str | None, typer.Option(help="ok, error, refused or cancelled.")]
Text = Annotated[str | None, typer.Option(help="In key name, tool, arguments or reason.")]
COLUMNS = ("seq", "at", "key_name", "tool", "cluster", "outcome", "rows", "duration_ms", "reason")


@app.command("list")
@command
async def list_entries(
    since: Since = None,
    until: Until = None,
    key: Key = None,
    tool: Tool = None,
    cluster: OfCluster = None,
    kind: OfKind = None,
    outcome: Outcome = None,
    text: Text = None,
    before: Annotated[int | None, typer.Option(help="Older than this seq: next page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most entries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Entries, newest first."""
    async with acting() as by:
        search = changes(
            audit.Search,
            since=since,
            until=until,
            key=key,
            tool=tool,
            cluster=cluster,
            kind=kind,
            outcome=outcome,
            text=text,
            before=before,
        )
        tell_rows(await audit.find(by, search, limit), COLUMNS, as_json=as_json)


@app.command()
@command
async def export(
    kind: Annotated[str, typer.Option("--format", help="csv, or json: one object a line.")] = "csv",
    since: Since = None,
    until: Until = None,
    key: Key = None,
    tool: Tool = None,
    cluster: OfCluster = None,
    outcome: Outcome = None,
) -> None:
    """All entries that match, to standard output."""
    chosen: Literal["csv", "json"] = "json" if kind == "json" else "csv"
    async with acting() as by:
        search = changes(
            audit.Search,
            since=since,
            until=until,
            key=key,
            tool=tool,
            cluster=cluster,
            outcome=outcome,
        )
        async for piece in audit.export(by, search, chosen):
            sys.stdout.write(piece)


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
