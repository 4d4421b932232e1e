"""The answer of GetQuerySchema: tables, fields, operators and examples that one caller may use."""

import re
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any

from pvemcp_server.query.binder import is_valid
from pvemcp_server.query.catalog import Catalog, fields_of
from pvemcp_server.query.examples import EXAMPLES
from pvemcp_server.query.operators import Function, Operator
from pvemcp_server.tables.registry import Table
from pvemcp_server.tables.rows import Field, Kind

Description = dict[str, Any]


def overview(catalog: Catalog) -> Description:
    """Describe all tables, each with its fields in short; of rare tables, what they are only."""
    tables = []
    rare = {table.name: _first_part(table) for table in catalog.tables.values() if table.rare}
    for table in (table for table in catalog.tables.values() if not table.rare):
        fields = (
            field.name if field.kind is Kind.TEXT else f"{field.name}:{field.kind}"
            for field in fields_of(table).values()
        )
        tables.append({**_table(catalog, table), "fields": ", ".join(fields)})
    return {
        "tables": tables,
        **({"more_tables": rare} if rare else {}),
        **_grammar(catalog, catalog.tables),
        "more": "Name tables to see the description, unit and values of each field.",
    }


def _first_part(table: Table) -> str:
    """Return the first clause of a table's description."""
    return re.split(r"[.;:](?:\s|$)", table.description, maxsplit=1)[0]


def details(catalog: Catalog, names: Sequence[str]) -> Description:
    """Describe the named tables in full; raise BadArgument for an unknown one."""
    tables = [catalog.table(name, f"tables[{n}]") for n, name in enumerate(names)]
    return {
        "tables": [
            {
                **_table(catalog, table),
                "main_fields": list(table.row.minimal),
                "fields": [_field(field) for field in fields_of(table).values()],
            }
            for table in tables
        ],
        **_grammar(catalog, {table.name for table in tables}),
    }


def _table(catalog: Catalog, table: Table) -> Description:
    relations = catalog.relations(table)
    description = {
        "name": table.name,
        "description": table.description,
        "cost": table.cost.value,
        "relations": {
            name: f"{relation.table}: {relation.description}"
            for name, relation in relations.items()
        },
    }
    return {name: value for name, value in description.items() if value}


def _field(field: Field) -> Description:
    description = {
        "name": field.name,
        "type": field.kind.value,
        "unit": field.unit.value if field.unit else None,
        "values": list(field.choices),
        "description": field.description,
        "also_called": list(field.aliases),
    }
    return {name: value for name, value in description.items() if value}


def _grammar(catalog: Catalog, tables: Container[str]) -> Description:
    """Describe operators, aggregates and values, with the examples for these tables."""
    now = datetime.now(UTC)
    return {
        "operators": {
            kind.value: [operator.value for operator in Operator if operator.fits(kind)]
            for kind in Kind
        },
        "aggregates": {
            function.value: [kind.value for kind in Kind if function.fits(kind)]
            for function in Function
        },
        "related": 'A field of a related table by its dotted name: "node.cpu_usage" of guests.',
        "related_rows": "EXISTS, NOT EXISTS: rows of a table with a relation to this one.",
        "fields": 'valueField compares with a field: {"field": "cpu_count", "operator": ">", '
        '"valueField": "node.cpu_total"}.',
        "spans": 'HOUR, DAY or WEEK of a time (UTC): select "DAY(start_time) as day", groupBy day.',
        "first": 'limitPer, the first rows of each: {"fields": ["cluster", "vmid"], "count": 1}.',
        "lists": "groupBy of a list (tags) makes a group for each entry.",
        "times": 'ISO 8601 (a date is its first second), or from now: "-30d", "-24h", "now".',
        "numbers": 'Sizes: 1024 or "8GiB". Percentages: 0 to 100.',
        "examples": [
            {"question": example.question, "query": dict(example.query)}
            for example in EXAMPLES
            if example.query["from"] in tables and is_valid(example.query, catalog, now)
        ],
    }
