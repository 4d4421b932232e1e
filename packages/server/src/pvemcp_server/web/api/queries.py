"""The query playground over REST."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from pvemcp_server.admin import queries
from pvemcp_server.web.api.answers import GONE
from pvemcp_server.web.session import PipelineOf, Reading, Writing

router = APIRouter(tags=["Query"])


@router.get("/query-schema")
async def query_schema(
    context: Reading,
    key: Annotated[
        str, Query(description="Id or name of a key; as Administrator when absent")
    ] = "",
) -> dict[str, Any]:
    """The tables that a key may ask, with fields, operators and examples."""
    return await queries.schema(context, key)


@router.post("/queries/run")
async def run_query(
    context: Writing, pipeline: PipelineOf, asked: queries.AskedQuery
) -> queries.QueryAnswer:
    """Run a query as a key: rows, and the answer in all four formats."""
    return await queries.ask(context, pipeline, asked)


@router.get("/queries")
async def list_queries(context: Reading) -> list[queries.SavedQuery]:
    """Saved queries."""
    return await queries.list_queries(context)


@router.put("/queries")
async def save_query(context: Writing, new: queries.QueryFields) -> queries.SavedQuery:
    """Keep a query under a name; one of the same name is replaced."""
    return await queries.save_query(context, new)


@router.get("/queries/{name}")
async def get_query(context: Reading, name: str) -> queries.SavedQuery:
    """A saved query."""
    return await queries.get_query(context, name)


@router.delete("/queries/{name}", status_code=GONE)
async def remove_query(context: Writing, name: str) -> None:
    """Forget a saved query."""
    await queries.remove_query(context, name)
