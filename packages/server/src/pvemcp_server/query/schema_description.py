"""What GetQuerySchema tells: tables, fields, operators and examples, as one caller may use them."""

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any

from pvemcp_server.query.binder import can_be_asked
from pvemcp_server.query.catalog import Catalog, fields_of
from pvemcp_server.query.examples import EXAMPLES
from pvemcp_server.query.operators import Function, Operator
from pvemcp_server.tables.registry import Field, Kind, Table

Told = dict[str, Any]


def overview(catalog: Catalog) -> Told:
    """All tables, each with its fields in short; the rest is told of named tables."""
    return {
        "tables": [_short(catalog, table) for table in catalog.tables.values()],
        **_grammar(catalog, catalog.tables),
        "more": "Name tables to see the description, unit and values of each field.",
    }


def details(catalog: Catalog, names: Sequence[str]) -> Told:
    """The named tables with all that is known of their fields."""
    found = [catalog.table(name, f"tables[{n}]") for n, name in enumerate(names)]
    return {
        "tables": [
            {
                **_head(catalog, table),
                "main_fields": list(table.row.minimal),
                "fields": [_field(one) for one in fields_of(table).values()],
            }
            for table in found
        ],
        **_grammar(catalog, {one.name for one in found}),
    }


def _short(catalog: Catalog, table: Table) -> Told:
    fields = ", ".join(_typed(one) for one in fields_of(table).values())
    return {**_head(catalog, table), "fields": fields}


def _head(catalog: Catalog, table: Table) -> Told:
    relations = catalog.relations(table).values()
    told = {
        "name": table.name,
        "description": table.description,
        "cost": table.cost.value,
        "relations": {one.name: f"{one.table}: {one.description}" for one in relations},
    }
    return {name: value for name, value in told.items() if value}


def _typed(one: Field) -> str:
    return one.name if one.kind is Kind.TEXT else f"{one.name}:{one.kind}"


def _field(one: Field) -> Told:
    told = {
        "name": one.name,
        "type": one.kind.value,
        "unit": one.unit.value if one.unit else None,
        "values": list(one.choices),
        "description": one.description,
        "also_called": list(one.also),
    }
    return {name: value for name, value in told.items() if value}


def _grammar(catalog: Catalog, told: Container[str]) -> Told:
    """What holds for all tables, with the examples of those that are told of."""
    now = datetime.now(UTC)
    return {
        "operators": {
            kind.value: [one.value for one in Operator if one.fits(kind)] for kind in Kind
        },
        "aggregates": {
            one.value: [kind.value for kind in Kind if one.fits(kind)] for one in Function
        },
        "related": 'A field of a related table by its dotted name: "node.cpu_usage" of guests.',
        "times": 'ISO 8601 (a date is its first second), or from now: "-30d", "-24h", "now".',
        "numbers": 'Sizes: 1024 or "8GiB". Percentages: 0 to 100.',
        "examples": [
            {"question": one.question, "query": dict(one.query)}
            for one in EXAMPLES
            if one.query["from"] in told and can_be_asked(one.query, catalog, now)
        ],
    }
