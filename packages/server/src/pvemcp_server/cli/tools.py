"""`pvemcp tools call`: a real call of a tool."""

from typing import Annotated

import typer

from pvemcp_server.admin.tools import NO_KEY, Attempt, try_tool
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import AsJson, administrator, pipeline_of, print_answer
from pvemcp_server.cli.input import read_object
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.cli.terminal import printable

AsKey = Annotated[
    str | None, typer.Option("--key", help="As this key; as Administrator if absent.")
]


@by_hand("tools call")
async def call(
    name: Annotated[str, typer.Argument(help="The tool.", autocompletion=complete("tool"))],
    arguments: Annotated[str, typer.Argument(help="Its arguments as JSON, or @FILE.")] = "{}",
    key: AsKey = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Confirm a call that loses data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a real call, like a client's; exits with 1 when it fails."""
    fields = read_object("arguments", arguments, '{"cluster_name": "prod"}')
    attempt = Attempt(key=key or NO_KEY, arguments=fields, confirmed=confirmed)
    async with administrator(writes=False) as context:
        outcome = await try_tool(context, pipeline_of(context), name, attempt)
    print_answer(outcome, outcome.data, as_json=as_json)
    if outcome.notes and not as_json:
        typer.echo(printable(outcome.notes), err=True)
    if outcome.failed:
        raise typer.Exit(1)
