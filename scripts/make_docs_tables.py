"""Writes docs/reference/tables.md: every table that queries and list tools read, with its fields.

python scripts/make_docs_tables.py           renew it
python scripts/make_docs_tables.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path

import pvemcp_server.tables  # noqa: F401 - declares the tables
from pages import renew_or_check
from pvemcp_server.query.catalog import CLUSTER
from pvemcp_server.tables.registry import Field, Table, tables

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "tables.md"
INTRO = f"""\
# Tables

Generated from the declarations by `make docs`.

What `ExecuteQuery` can ask; the list tools show the same rows. Every table also has the field
`{CLUSTER.name}`. A query reads of a table what the tool named with it would show the key, and
only where `ExecuteQuery` is granted too. How fields are compared is told in [Queries](query.md).
A field in **bold** is shown when a query selects nothing; other names of a field are in brackets.
"""


def page() -> str:
    """The whole page."""
    known = sorted(tables().items())
    return "\n".join([INTRO, *(line for _, one in known for line in _table(one))]).rstrip() + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    yield f"{table.description}\n"
    yield f"Costs {table.cost} per cluster. Governed by `{table.tool}`.\n"
    yield "| field | type | unit or values | description |"
    yield "|---|---|---|---|"
    yield from (_field(table, one) for one in table.fields.values())
    yield ""
    if table.relations:
        yield "| relation | leads to | |"
        yield "|---|---|---|"
        for one in table.relations:
            yield f"| {one.name} | [{one.table}](#{one.table}) | {one.description} |"
        yield ""


def _field(table: Table, one: Field) -> str:
    name = f"**{one.name}**" if one.name in table.row.minimal else one.name
    also = f" ({', '.join(one.also)})" if one.also else ""
    measured = ", ".join(one.choices) or (one.unit.value if one.unit else "")
    return f"| {name}{also} | {one.kind} | {measured} | {one.description} |"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
