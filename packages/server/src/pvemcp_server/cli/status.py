"""`pvemcp status`, `bridges`, `notices` and `tools`: how things stand, what the AI sees."""

import json
from typing import Annotated, Any

import typer

from pvemcp_server.admin import bridge, overview
from pvemcp_server.admin import tools as seen
from pvemcp_server.cli.context import AsJson, acting, pipeline_of, tell, tell_rows
from pvemcp_server.cli.state import command
from pvemcp_server.errors import BadArgument

app = typer.Typer()
notices = typer.Typer(help="What an administrator should see.", no_args_is_help=True)
tools = typer.Typer(help="What the AI sees, and trying a call.", no_args_is_help=True)
app.add_typer(notices, name="notices")
app.add_typer(tools, name="tools")

AsKey = Annotated[str, typer.Option("--key", help="As this key; as Administrator if absent.")]
HEALTH = ("name", "reachable", "nodes_online", "nodes_total", "guests_running", "trouble")


@app.command()
@command
async def status(as_json: AsJson = False) -> None:
    """Every cluster as it answers now; exits with 1 when one does not."""
    async with acting() as by:
        found = await overview.health(by)
        tell_rows(found, HEALTH, as_json=as_json)
    if not all(one.reachable for one in found):
        raise typer.Exit(1)


@app.command()
@command
async def bridges(as_json: AsJson = False) -> None:
    """The bridge's binary for each platform, with size and SHA-256 where it has been built."""
    async with acting() as by:
        found = await bridge.binaries(by)
        tell_rows(found, ("name", "platform", "size", "sha256"), as_json=as_json)


@notices.command("list")
@command
async def list_notices(as_json: AsJson = False) -> None:
    """Refused keys, failed sign-ins: each once, with how often."""
    async with acting() as by:
        found = await overview.notices(by)
        tell_rows(found, ("id", "message", "count", "last_seen"), as_json=as_json)


@notices.command()
@command
async def dismiss(
    notice: Annotated[int, typer.Argument(min=0, help="Its id.")], as_json: AsJson = False
) -> None:
    """Dismiss a notice; it comes back when its fact is seen again."""
    async with acting() as by:
        await overview.dismiss(by, notice)
    tell({"dismissed": notice}, f"Dismissed {notice}.", as_json=as_json)


@tools.command("list")
@command
async def list_tools(key: AsKey = "", as_json: AsJson = False) -> None:
    """The tools as tools/list shows them to a key."""
    async with acting() as by:
        found = await seen.seen_tools(by, pipeline_of(by), key)
        tell_rows(found, ("name", "effect", "description"), as_json=as_json)


@tools.command()
@command
async def call(
    name: Annotated[str, typer.Argument(help="The tool.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments as JSON.")] = "{}",
    key: AsKey = "",
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Agree to a call that loses data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a real call, the way that a client's takes; exits with 1 when it fails."""
    attempt = seen.Attempt(key=key, arguments=_read(arguments), confirmed=confirmed)
    async with acting() as by:
        tried = await seen.try_tool(by, pipeline_of(by), name, attempt)
    tell(tried, tried.data, as_json=as_json)
    if tried.notes and not as_json:
        typer.echo(tried.notes, err=True)
    if tried.failed:
        raise typer.Exit(1)


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as wrong:
        raise BadArgument("arguments", f"{wrong}.") from None
    if not isinstance(found, dict):
        raise BadArgument("arguments", 'an object, as {"cluster_name": "prod"}.')
    return found
