"""`pvemcp queries run`: the answer to a query in one of the formats."""

from typing import Annotated, Any

import typer

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.queries import RunRequest, get_query, run_query
from pvemcp_server.admin.tools import NO_KEY
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import AsJson, administrator, pipeline_of, to_json
from pvemcp_server.cli.input import read_object
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.cli.terminal import printable
from pvemcp_server.errors import BadArgument

Query = Annotated[str, typer.Argument(help="JSON, @FILE, or the name of a saved query.")]
AsKey = Annotated[
    str | None,
    typer.Option(
        "--key", help="Run as this key; as Administrator if absent.", autocompletion=complete("key")
    ),
]
Format = Annotated[str, typer.Option("--format", help="JsonCompact, JsonNormal, Toon or Csv.")]


@by_hand("queries run")
async def run(
    query: Query,
    key: AsKey = None,
    cluster: Annotated[str | None, typer.Option(help="One cluster; all when absent.")] = None,
    format: Format = "Csv",  # noqa: A002 - the option's name
    as_json: AsJson = False,
) -> None:
    """Run a query now, as ExecuteQuery does."""
    async with administrator(writes=False) as context:
        request = RunRequest(query=await _query(context, query), key=key or NO_KEY, cluster=cluster)
        answer = await run_query(context, pipeline_of(context), request)
    texts = {each.format: each.text for each in answer.formats}
    if format not in texts:
        raise BadArgument("--format", f"one of {', '.join(texts)}.")
    typer.echo(to_json(answer) if as_json else texts[format].rstrip("\n"))
    if answer.notes:
        typer.echo(printable(answer.notes), err=True)


async def _query(context: AdminContext, text: str) -> dict[str, Any]:
    if text.startswith(("{", "@")):
        return read_object("query", text, '{"from": "guests"}')
    return (await get_query(context, text)).query
