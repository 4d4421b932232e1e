"""`pvemcp queries`: saved ones, and asking one now."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_server.admin import AdminContext, queries
from pvemcp_server.cli.context import AsJson, acting, as_text, pipeline_of, tell, tell_rows
from pvemcp_server.cli.state import command
from pvemcp_server.errors import BadArgument

app = typer.Typer(help="Run queries, and keep them under names.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The query's name.")]
Asked = Annotated[str, typer.Argument(help="JSON, @FILE, or the name of a saved query.")]
AsKey = Annotated[str, typer.Option("--key", help="Ask as this key; as Administrator if absent.")]
Format = Annotated[str, typer.Option("--format", help="JsonCompact, JsonNormal, Toon or Csv.")]


@app.command("list")
@command
async def list_queries(as_json: AsJson = False) -> None:
    """Saved queries."""
    async with acting() as by:
        tell_rows(await queries.list_queries(by), ("name", "description"), as_json=as_json)


@app.command()
@command
async def run(
    query: Asked,
    key: AsKey = "",
    cluster: Annotated[str | None, typer.Option(help="One cluster; all when absent.")] = None,
    format: Format = "Csv",  # noqa: A002 - the option's name
    as_json: AsJson = False,
) -> None:
    """Ask now, as ExecuteQuery does."""
    async with acting() as by:
        asked = queries.AskedQuery(query=await _query(by, query), key=key, cluster=cluster)
        answer = await queries.ask(by, pipeline_of(by), asked)
    texts = {one.format: one.text for one in answer.formats}
    if format not in texts:
        raise BadArgument("--format", f"one of {', '.join(texts)}.")
    typer.echo(as_text(answer) if as_json else texts[format].rstrip("\n"))
    if answer.notes:
        typer.echo(answer.notes, err=True)


@app.command()
@command
async def save(
    name: Name,
    query: Annotated[str, typer.Argument(help="JSON, or @FILE.")],
    description: Annotated[str, typer.Option(help="The question that it answers.")] = "",
    as_json: AsJson = False,
) -> None:
    """Keep a query; one of the same name is replaced."""
    async with acting() as by:
        new = queries.QueryFields(name=name, description=description, query=_read(query))
        saved = await queries.save_query(by, new)
        tell(saved, f"Saved {saved.name}.", as_json=as_json)


@app.command()
@command
async def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget a saved query."""
    async with acting() as by:
        await queries.remove_query(by, name)
        tell({"removed": name}, f"Removed {name}.", as_json=as_json)


async def _query(by: AdminContext, text: str) -> dict[str, Any]:
    if text.startswith(("{", "@")):
        return _read(text)
    return (await queries.get_query(by, text)).query


def _read(text: str) -> dict[str, Any]:
    try:
        content = Path(text[1:]).read_text() if text.startswith("@") else text
        found = json.loads(content)
    except (OSError, ValueError) as wrong:
        raise BadArgument("query", f"{wrong}.") from None
    if not isinstance(found, dict):
        raise BadArgument("query", 'an object, as {"from": "guests"}.')
    return found
