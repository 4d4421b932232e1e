"""Queries: asked through the pipeline as a key, shown in all formats, and kept under a name."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_formats import Format, encode
from pvemcp_server.access.names import check_name
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.token_estimate import estimate
from pvemcp_server.admin.tools import (
    NO_KEY,
    Attempt,
    as_tool_call,
    caller_of,
    try_tool,
)
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.query.parser import parse
from pvemcp_server.query.schema_description import details
from pvemcp_server.query.sources import catalog_of
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import SavedQuery as Record
from pvemcp_server.tables.registry import tables

TOOL = "ExecuteQuery"


class QueryFields(BaseModel):
    """A query to keep under a name."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str = Field(default="", description="The question that it answers")
    query: dict[str, Any] = Field(description="As ExecuteQuery takes it")


class SavedQuery(QueryFields):
    """A query that is kept."""

    id: int


class AskedQuery(BaseModel):
    """A query to run now."""

    model_config = ConfigDict(extra="forbid")

    query: dict[str, Any]
    key: str = Field(default=NO_KEY, description="Key to ask as; without one: as Administrator")
    cluster: str | None = Field(default=None, description="One cluster; all of the key when absent")


class Written(BaseModel):
    """The answer in one format; the tokens are estimated, not counted by a model's tokenizer."""

    format: str
    text: str
    bytes: int
    tokens_estimated: int


class QueryAnswer(BaseModel):
    """The rows, and what they cost a model in each format."""

    columns: list[str]
    rows: list[list[Any]]
    notes: str
    formats: list[Written]
    tool_call: dict[str, Any]


async def ask(context: AdminContext, pipeline: Pipeline, asked: AskedQuery) -> QueryAnswer:
    """The answer to a query; raises CallError saying what is wrong with it."""
    arguments: dict[str, Any] = {"query": asked.query}
    if asked.cluster:
        arguments["cluster_name"] = asked.cluster
    compact = {**arguments, "format": Format.JSON_COMPACT.value}
    tried = await try_tool(context, pipeline, TOOL, Attempt(key=asked.key, arguments=compact))
    if tried.failed:
        raise CallError(tried.data)
    table = json.loads(tried.data)["data"]
    return QueryAnswer(
        columns=table["headers"],
        rows=table["rows"],
        notes=tried.notes,
        formats=[_written(table["headers"], table["rows"], one) for one in Format],
        tool_call=as_tool_call(TOOL, arguments),
    )


async def schema(context: AdminContext, key: str = NO_KEY) -> dict[str, Any]:
    """Every table that the key may ask, with fields, relations, operators and examples."""
    caller = await caller_of(context, key)
    clusters = [one.name for one in await context.services.access.clusters.all()]
    catalog = catalog_of(caller, clusters)
    return details(catalog, sorted(catalog.tables.keys() & tables().keys()))


async def list_queries(context: AdminContext) -> list[SavedQuery]:
    return [_saved(one) for one in await context.services.store.saved_queries.all()]


async def get_query(context: AdminContext, name: str) -> SavedQuery:
    return _saved(await _record(context, name))


async def save_query(context: AdminContext, new: QueryFields) -> SavedQuery:
    """Keeps a query that can be asked; one of the same name is replaced."""
    check_name(new.name)
    bind(parse(new.query), Catalog(tables()), utc_now())
    saved, now = context.services.store.saved_queries, utc_now()
    known = await saved.find(name=new.name)
    values = {"description": new.description, "query": new.query, "changed": now}
    if known is None:
        record: Record | None = await saved.add(name=new.name, created=now, **values)
    else:
        record = await saved.change(known.id, **values)
    if record is None:
        raise UnknownName("query", new.name, [])
    await context.changed("queries.save", **new.model_dump())
    return _saved(record)


async def remove_query(context: AdminContext, name: str) -> None:
    record = await _record(context, name)
    await context.services.store.saved_queries.remove(record.id)
    await context.changed("queries.remove", name=name)


async def _record(context: AdminContext, name: str) -> Record:
    found = await context.services.store.saved_queries.find(name=name)
    if found is None:
        known = await context.services.store.saved_queries.all()
        raise UnknownName("query", name, [one.name for one in known])
    return found


def _written(columns: list[str], rows: list[list[Any]], format: Format) -> Written:  # noqa: A002 - what it is
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    text = encode(cells, format, columns=columns)
    return Written(
        format=format.value, text=text, bytes=len(text.encode()), tokens_estimated=estimate(text)
    )


def _saved(record: Record) -> SavedQuery:
    return SavedQuery(
        id=record.id, name=record.name, description=record.description, query=record.query
    )
