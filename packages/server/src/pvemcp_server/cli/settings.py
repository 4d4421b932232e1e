"""`pvemcp settings`: what changes while the server runs."""

import json
from typing import Annotated, Any

import typer

from pvemcp_server.admin import settings
from pvemcp_server.cli.context import AsJson, acting, tell, tell_rows
from pvemcp_server.cli.state import command
from pvemcp_server.errors import BadArgument

app = typer.Typer(help="Show and change settings.", no_args_is_help=True)
Pairs = Annotated[list[str], typer.Argument(help="NAME=VALUE, as enabled=true; lists as JSON.")]


@app.command("list")
@command
async def list_settings(as_json: AsJson = False) -> None:
    """Every setting with its value and default."""
    async with acting() as by:
        found = await settings.list_settings(by)
        tell_rows(found, ("name", "value", "default", "description"), as_json=as_json)


@app.command("set")
@command
async def change(pairs: Pairs, as_json: AsJson = False) -> None:
    """Change settings, all or none; takes effect within a second."""
    values = dict(_pair(text) for text in pairs)
    async with acting() as by:
        found = await settings.change_settings(by, values)
        tell(found, f"Changed {', '.join(values)}.", as_json=as_json)


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise BadArgument(text, "is not NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a bare word is a text
