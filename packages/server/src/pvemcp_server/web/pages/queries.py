"""Page Query: a playground over all tables, with the cost of an answer in each format."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from pvemcp_server.admin import clusters, keys, queries
from pvemcp_server.errors import BadArgument
from pvemcp_server.query.examples import EXAMPLES
from pvemcp_server.web.figures import charts_of, rows_of
from pvemcp_server.web.pages.forms import read_json
from pvemcp_server.web.session import PipelineOf, Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, redirect

router = APIRouter(prefix="/query")
navigation = Navigation(
    "Query",
    "/admin/query",
    operation="queries.list",
    icon="M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16 16l5 5",
)
Text = Annotated[str, Form()]
SHOWN_ROWS = 200


@router.get("", dependencies=[may("queries.list")])
async def show(
    request: Request,
    session: SignedIn,
    context: Reading,
    key: Annotated[str, Query()] = "",
    saved: Annotated[str, Query()] = "",
    example: Annotated[int, Query(ge=0, lt=len(EXAMPLES))] = 0,
) -> Response:
    chosen = await queries.get_query(context, saved) if saved else None
    query: Any = chosen.query if chosen else EXAMPLES[example].query
    schema = await queries.query_schema(context, key)
    return page(
        request,
        "query.html",
        session,
        here="queries",
        text=_formatted(query),
        question=chosen.description if chosen else EXAMPLES[example].question,
        chosen=chosen,
        schema=schema,
        operators=sorted({each for some in schema["operators"].values() for each in some}),
        examples=list(enumerate(example.question for example in EXAMPLES)),
        saved=await queries.list_queries(context),
        keys=await keys.list_keys(context),
        key=key,
        clusters=[cluster.name for cluster in await clusters.list_clusters(context)],
    )


@router.post("/run", dependencies=[may("queries.run")])
async def run(
    request: Request,
    session: SignedIn,
    context: Writing,
    pipeline: PipelineOf,
    query: Text,
    key: Text = "",
    cluster: Text = "",
) -> Response:
    run_request = queries.RunRequest(query=_query(query), key=key, cluster=cluster or None)
    answer = await queries.run_query(context, pipeline, run_request)
    return page(
        request,
        "query_answer.html",
        session,
        answer=answer,
        rows=rows_of(answer, SHOWN_ROWS),
        group_charts=charts_of(answer),
        tool_call=json.dumps(answer.tool_call, indent=2),
    )


@router.post("/save", dependencies=[may("queries.save")])
async def save(context: Writing, name: Text, query: Text, description: Text = "") -> Response:
    new = queries.QueryFields(name=name, description=description, query=_query(query))
    saved = await queries.save_query(context, new)
    return redirect("/admin/query?saved=", saved.name)


@router.post("/remove", dependencies=[may("queries.remove")])
async def remove(context: Writing, name: Text) -> Response:
    await queries.remove_query(context, name)
    return redirect("/admin/query")


def _formatted(query: Mapping[str, Any]) -> str:
    """Format a query as JSON with one part per line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in query.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _query(text: str) -> dict[str, Any]:
    query = read_json("query", text)
    if not isinstance(query, dict):
        raise BadArgument("query", 'an object, as {"from": "guests"}.')
    return query
