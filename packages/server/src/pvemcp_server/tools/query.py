"""Queries over all tables: their schema, and their execution."""

from datetime import UTC, datetime
from time import monotonic
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from proxmox_client import deadline
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import CallError, counted
from pvemcp_server.query.execute import execute
from pvemcp_server.query.operators import Operator
from pvemcp_server.query.schema_description import details, overview
from pvemcp_server.query.sources import TOOL, Sources, granted_catalog
from pvemcp_server.tables.registry import EVERY_KIND, Budget, Shares, Table
from pvemcp_server.toolkit.arguments import ClusterName
from pvemcp_server.toolkit.call import NO_CLUSTER, Call
from pvemcp_server.toolkit.missing_privileges import explain_filtered
from pvemcp_server.toolkit.registry import Document, Rows, tool

_FOR_THE_ANSWER = 2.0  # seconds of a call that are kept for executing the query and formatting

TableNames = Annotated[
    list[str], Field(max_length=50, description="Tables to describe in full; empty: all in short")
]

_LOGIC = {"type": "string", "enum": ["and", "or"]}
_COMPARISON = {
    "field": {"type": "string"},
    "operator": {"type": "string"},  # of those that conditions of `where` name
    # any value may be written as text; an array without items is refused by
    # OpenAI, Azure, Gemini and VS Code, together with all other tools
    "value": {"type": "array", "items": {"type": "string"}},
    "valueField": {"type": "string"},
}


def _conditions(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of conditions and the logic that joins them."""
    items = {"type": "object", "properties": properties}
    return {
        "type": "object",
        "description": description,
        "properties": {"logic": _LOGIC, "conditions": {"type": "array", "items": items}},
    }


_INNER = {"type": "array", "items": {"type": "object", "properties": _COMPARISON}}
_WHERE = _conditions(
    "Each is {field, operator, value or valueField}, again {logic, conditions}, or a test for "
    "related rows: {field: table, operator: EXISTS or NOT EXISTS, conditions}",
    {
        **_COMPARISON,
        "operator": {"type": "string", "enum": [operator.value for operator in Operator]},
        "logic": _LOGIC,
        "conditions": _INNER,
    },
)
_HAVING = _conditions("Like where, for groups", _COMPARISON)

_QUERY = {
    "type": "object",
    "properties": {
        "from": {
            "type": "string",
            "description": "Table: guests, nodes, disks, addresses, acl, backups, tasks …; "
            "GetQuerySchema has all",
        },
        "select": {
            "type": "array",
            "items": {"type": "string"},
            "description": 'Fields, dotted for related tables, and aggregates: "node.status", '
            '"COUNT(vmid) as total"; ["*"] is all, none the main fields',
        },
        "where": _WHERE,
        "groupBy": {"type": "array", "items": {"type": "string"}},
        "having": _HAVING,
        "orderBy": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "direction": {"type": "string", "enum": ["asc", "desc"]},
                },
            },
        },
        "distinct": {"type": "boolean"},
        "limit": {"type": "integer", "description": "At most row_cap"},
        "limitPer": {
            "type": "object",
            "description": "First rows of each, by orderBy",
            "properties": {
                "fields": {"type": "array", "items": {"type": "string"}},
                "count": {"type": "integer"},
            },
        },
        "offset": {"type": "integer"},
    },
    "required": ["from"],
}

AskedQuery = Annotated[
    Any,  # checked by the query parser, whose errors are more helpful than pydantic's
    WithJsonSchema({"anyOf": [_QUERY, {"type": "string"}]}),
    Field(description="The query, or its JSON text"),
]


@tool("GetQuerySchema", area=Area.QUERY, effect=Effect.READ, kinds=EVERY_KIND)
async def get_query_schema(call: Call, *, tables: TableNames = []) -> Document:  # noqa: B006 - read as a schema's default, never changed
    """List the tables that ExecuteQuery can ask, with fields, operators and examples."""
    catalog = granted_catalog(call.caller, await call.source.kinds())
    return details(catalog, tables) if tables else overview(catalog)


@tool(TOOL, area=Area.QUERY, effect=Effect.READ, kinds=EVERY_KIND)
async def execute_query(call: Call, *, query: AskedQuery, cluster_name: ClusterName = None) -> Rows:
    """Answer a question over guests, nodes, storages, backups, tasks and more, in one call."""
    until = monotonic() + max(1.0, call.seconds_left - _FOR_THE_ANSWER)
    budget = Budget(until=until, shares=Shares())

    async def explain_empty(cluster: Cluster, table: Table) -> None:
        with deadline(budget.until - monotonic()):
            await explain_filtered(cluster, table)

    clusters = await call.all_clusters(cluster_name)
    if not clusters:
        raise CallError(NO_CLUSTER)
    sources = Sources(call.caller, clusters, explain_empty)
    result = await execute(query, sources, budget, datetime.now(UTC), call.settings.row_cap)
    if result.next_offset is not None:
        call.notes.add(
            f"Cut at {counted(len(result.rows), 'row')}: ask for the next with offset "
            f"{result.next_offset}, or narrow the query."
        )
    return Rows(result.rows, result.columns, result.decimals, result.reasons)
