"""`pvemcp settings set`: settings as NAME=VALUE."""

import json
from typing import Annotated, Any

import typer

from pvemcp_server.admin.settings import change_settings
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import AsJson, administrator, print_answer
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.errors import BadArgument

Pairs = Annotated[
    list[str],
    typer.Argument(
        help="NAME=VALUE, as enabled=true; lists as JSON.", autocompletion=complete("pairs")
    ),
]


@by_hand("settings set")
async def set_settings(pairs: Pairs, as_json: AsJson = False) -> None:
    """Change settings, all or none; takes effect within a second."""
    values = dict(_pair(text) for text in pairs)
    async with administrator() as context:
        settings = await change_settings(context, values)
        print_answer(settings, f"Changed {', '.join(values)}.", as_json=as_json)


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise BadArgument(repr(text), "is not NAME=VALUE, as enabled=true.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a bare word is a text
