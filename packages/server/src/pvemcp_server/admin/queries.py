"""Queries: run through the pipeline with a key's rights, and saved under a name."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_formats import Format, encode
from pvemcp_server.access.fields import Argument, Fields
from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.access.names import check_name
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.admin.tools import NO_KEY, Attempt, as_tool_call, call_tool, caller_of
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.pipeline.pagination import estimate
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.query.parser import parse
from pvemcp_server.query.plan import Aggregate
from pvemcp_server.query.schema_description import details
from pvemcp_server.query.sources import catalog_of
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import SavedQuery as SavedQueryRecord
from pvemcp_server.tables.registry import tables
from pvemcp_server.tables.rows import Kind

TOOL = "ExecuteQuery"

subject = Subject("Query", {"queries": "Run queries, and save them under names."})
QueryName = Annotated[str, Field(description="The query's name")]


class QueryFields(Fields):
    """A query to save under a name."""

    name: Annotated[QueryName, Argument()]
    description: str = Field(default="", description="The question that it answers")
    query: Annotated[dict[str, Any], Argument()] = Field(description="As ExecuteQuery reads it")


class SavedQuery(QueryFields):
    """A saved query."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: int


class RunRequest(Fields):
    """A query to run now."""

    query: dict[str, Any] = Field(description="As ExecuteQuery reads it")
    key: str = Field(default=NO_KEY, description="Run with this key's rights; default: all rights")
    cluster: str | None = Field(default=None, description="One cluster; all of the key when absent")


class FormattedAnswer(BaseModel):
    """The answer in one format; tokens are estimated, not counted by a model's tokenizer."""

    format: str
    text: str
    bytes: int
    tokens_estimated: int


class QueryAnswer(BaseModel):
    """The rows, and their size for a model in each format."""

    columns: list[str]
    rows: list[list[Any]]
    notes: str
    formats: list[FormattedAnswer]
    tool_call: dict[str, Any]
    units: dict[str, str] = Field(description="Units of the columns that have one, by their names")
    groups: list[str] = Field(description="Columns that the rows are grouped by")
    figures: list[str] = Field(description="Columns with a figure of each group")


@subject.operation(
    "queries.schema",
    Route("GET", "/query-schema"),
    elsewhere="tools call GetQuerySchema",
    may=AUDITORS,
)
async def query_schema(
    context: AdminContext,
    key: Annotated[
        str, Field(description="Id or name of a key; as Administrator when absent")
    ] = NO_KEY,
) -> dict[str, Any]:
    """Describe the tables that a key may query, with fields, relations, operators and examples."""
    caller = await caller_of(context, key)
    clusters = [cluster.name for cluster in await context.services.access.clusters.all()]
    catalog = catalog_of(caller, clusters)
    return details(catalog, sorted(catalog.tables.keys() & tables().keys()))


@subject.operation(
    "queries.run",
    Route("POST", "/queries/run"),
    Command("queries run", by_hand=True),
    may=AUDITORS,
)
async def run_query(context: AdminContext, pipeline: Pipeline, request: RunRequest) -> QueryAnswer:
    """Run a query with a key's rights: return the rows, and the answer in all four formats."""
    arguments: dict[str, Any] = {"query": request.query}
    if request.cluster:
        arguments["cluster_name"] = request.cluster
    compact = {**arguments, "format": Format.JSON_COMPACT.value}
    attempt = Attempt(key=request.key, arguments=compact)
    outcome = await call_tool(context, pipeline, TOOL, attempt)
    if outcome.failed:
        raise CallError(outcome.data)
    table = json.loads(outcome.data)["data"]
    columns, rows = table["headers"], table["rows"]
    formats = await in_key_thread(  # megabytes of rows take seconds
        f"queries of {context.by}", lambda: [_formatted(columns, rows, each) for each in Format]
    )
    plan = bind(parse(request.query), Catalog(tables()), utc_now())
    is_grouped = bool(plan.group_by)
    aggregates = [isinstance(output.expression, Aggregate) for output in plan.outputs]
    return QueryAnswer(
        columns=columns,
        rows=rows,
        notes=outcome.notes,
        formats=formats,
        tool_call=as_tool_call(TOOL, arguments),
        units={output.name: output.unit.value for output in plan.outputs if output.unit},
        groups=[
            output.name
            for output, aggregate in zip(plan.outputs, aggregates, strict=True)
            if is_grouped and not aggregate
        ],
        figures=[
            output.name
            for output, aggregate in zip(plan.outputs, aggregates, strict=True)
            if is_grouped and aggregate and output.kind in (Kind.INTEGER, Kind.NUMBER)
        ],
    )


@subject.operation(
    "queries.list",
    Route("GET", "/queries"),
    Command("queries list", columns=("name", "description")),
    may=AUDITORS,
)
async def list_queries(context: AdminContext) -> list[SavedQuery]:
    """List the saved queries."""
    return [_saved(record) for record in await context.services.store.saved_queries.all()]


@subject.operation(
    "queries.save",
    Route("PUT", "/queries"),
    Command("queries save", text="Saved {name}."),
    may=OWNERS,
)
async def save_query(context: AdminContext, new: QueryFields) -> SavedQuery:
    """Save a valid query under a name; one of the same name is replaced."""
    check_name(new.name)
    bind(parse(new.query), Catalog(tables()), utc_now())
    queries, now = context.services.store.saved_queries, utc_now()
    existing = await queries.find(name=new.name)
    values = {"description": new.description, "query": new.query, "changed": now}
    if existing is None:
        record: SavedQueryRecord | None = await queries.add(name=new.name, created=now, **values)
    else:
        record = await queries.change(existing.id, **values)
    if record is None:
        raise UnknownName("query", new.name, [])
    await context.changed("queries.save", **new.model_dump())
    return _saved(record)


@subject.operation(
    "queries.get",
    Route("GET", "/queries/{name}"),
    elsewhere="the command queries list --json",
    may=AUDITORS,
)
async def get_query(context: AdminContext, name: QueryName) -> SavedQuery:
    """Return a saved query."""
    return _saved(await _record(context, name))


@subject.operation(
    "queries.remove",
    Route("DELETE", "/queries/{name}"),
    Command("queries remove", text="Removed {name}."),
    may=OWNERS,
)
async def remove_query(context: AdminContext, name: QueryName) -> None:
    """Remove a saved query."""
    record = await _record(context, name)
    await context.services.store.saved_queries.remove(record.id)
    await context.changed("queries.remove", name=name)


async def _record(context: AdminContext, name: str) -> SavedQueryRecord:
    queries = context.services.store.saved_queries
    record = await queries.find(name=name)
    if record is None:
        raise UnknownName("query", name, [each.name for each in await queries.all()])
    return record


def _formatted(columns: list[str], rows: list[list[Any]], format: Format) -> FormattedAnswer:  # noqa: A002 - the format
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    text = encode(records, format, columns=columns)
    return FormattedAnswer(
        format=format.value, text=text, bytes=len(text.encode()), tokens_estimated=estimate(text)
    )


def _saved(record: SavedQueryRecord) -> SavedQuery:
    return SavedQuery(
        id=record.id, name=record.name, description=record.description, query=record.query
    )
