"""Write docs/reference/tables.md: every table that queries and list tools read, with its fields.

python scripts/make_docs_tables.py           renew it
python scripts/make_docs_tables.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path

import pvemcp_server.tables  # noqa: F401 - declares the tables
from pages import renew_or_check
from pvemcp_server.query.catalog import CLUSTER
from pvemcp_server.tables.registry import Table, tables
from pvemcp_server.tables.rows import Field

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "tables.md"
INTRO = f"""\
# Tables

Generated from the declarations by `make docs`.

The tables of `ExecuteQuery`; the list tools show the same rows. Every table also has the field
`{CLUSTER.name}`. A query reads the rows that the table's governing tool would show the key, and
only where `ExecuteQuery` is granted too. [Queries](../users/query.md) explains comparisons.
A query without `select` answers the fields in **bold**; aliases of a field are in brackets.
"""


def page() -> str:
    """Return the whole page."""
    lines = (line for _, table in sorted(tables().items()) for line in _table(table))
    return "\n".join([INTRO, *lines]).rstrip() + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    yield f"{table.description}\n"
    tools = " and ".join(f"`{tool}`" for tool in table.tools)
    yield f"Costs {table.cost} per cluster. Governed by {tools}.\n"
    yield "| field | type | unit or values | description |"
    yield "|---|---|---|---|"
    yield from (_field(table, field) for field in table.fields.values())
    yield ""
    if table.relations:
        yield "| relation | leads to | |"
        yield "|---|---|---|"
        for relation in table.relations:
            target = f"[{relation.table}](#{relation.table})"
            yield f"| {relation.name} | {target} | {relation.description} |"
        yield ""


def _field(table: Table, field: Field) -> str:
    name = f"**{field.name}**" if field.name in table.row.minimal else field.name
    aliases = f" ({', '.join(field.aliases)})" if field.aliases else ""
    measured = ", ".join(field.choices) or (field.unit.value if field.unit else "")
    return f"| {name}{aliases} | {field.kind} | {measured} | {field.description} |"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
