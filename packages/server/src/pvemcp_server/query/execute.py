"""Runs a query: parse, bind, load, compile, execute, then collect hints about the answer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec

from pvemcp_server.access.key_threads import has_key_thread, in_key_thread
from pvemcp_server.errors import OverBudget
from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import Catalog, Column
from pvemcp_server.query.compiler import Statement, compile_cut_groups, compile_plan
from pvemcp_server.query.engine import SECONDS, Database, too_large_sum
from pvemcp_server.query.hints import Hints
from pvemcp_server.query.loader import Loader
from pvemcp_server.query.parser import parse
from pvemcp_server.query.plan import Output, QueryPlan
from pvemcp_server.query.sources import Sources
from pvemcp_server.query.values import LARGEST
from pvemcp_server.tables.registry import Budget
from pvemcp_server.tables.rows import Kind

_FEW_ROWS: Final = 5_000  # of a database that is tried on the event loop first
_SHORT_TEXT: Final = 250  # characters of the longest text in such a database
_LOOP_SECONDS: Final = 0.01  # that a query may block the event loop
_HINT_SECONDS: Final = 0.05  # for each query that only serves a hint
_DECIMALS: Final = 2  # of averages and shares


@dataclass(frozen=True)
class QueryResult:
    """The rows of an answer. `next_offset` is set when more rows match than the query asked for."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    next_offset: int | None
    decimals: Mapping[str, int]  # of columns that need another number of them than usual
    reasons: Mapping[str, str]  # why columns may be empty in every row

    @classmethod
    def from_cells(cls, plan: QueryPlan, cells: Sequence[Sequence[Any]]) -> "QueryResult":
        """Convert the database's cells to the types of the answer."""
        names = tuple(output.name for output in plan.outputs)
        readers = [_reader(output) for output in plan.outputs]
        rows = [
            {
                name: cell if cell is None or reader is None else reader(cell)
                for name, cell, reader in zip(names, row, readers, strict=False)
            }
            for row in cells[: plan.limit]
        ]
        next_offset = plan.offset + plan.limit if len(cells) > plan.limit else None
        decimals = {output.name: _DECIMALS for output in plan.outputs if output.is_rounded}
        reasons = {
            output.name: gap.reason
            for output in plan.outputs
            if isinstance(output.expression, Column) and (gap := output.expression.field.gap)
        }
        return cls(names, rows, next_offset, decimals, {n: r for n, r in reasons.items() if r})


async def execute(
    source: object,
    sources: Sources,
    budget: Budget,
    now: datetime,
    row_cap: int,
) -> QueryResult:
    """Answer a query, given as an object or JSON text.

        sources = Sources(caller, clusters)
        query = {"from": "guests", "select": ["node", "COUNT(*) as n"], "groupBy": "node"}
        result = await execute(query, sources, Budget(), datetime.now(UTC), row_cap=1000)
        result.columns  # ("node", "n")
        result.rows     # [{"node": "pve1", "n": 12}, …]

    The result has at most `row_cap` rows, with or without `limit`; the pipeline pages them.
    Missing rows and hints go to the sources' notes. Raise BadArgument for a wrong query,
    OverBudget for a slow one, and ProxmoxError when no cluster answers for the queried table.
    """
    catalog = sources.catalog
    query = parse(source)
    plan = bind(replace(query, limit=min(query.limit or row_cap, row_cap)), catalog, now)
    database = await Loader(sources, catalog, plan, budget).database()
    key_id = sources.caller.holder
    cells = await _run(database, compile_plan(plan, catalog), key_id)
    for name in _rounded_columns(plan, cells):
        sources.notes.add(
            f"{name} has values beyond 2^63, which queries round to 15 digits; the list tools show "
            "them exactly."
        )

    for note in await _cut_groups(plan, catalog, database, key_id):
        sources.notes.add(note)

    async def run(related: QueryPlan) -> list[tuple[Any, ...]]:
        return await _run(database, compile_plan(related, catalog), key_id, _HINT_SECONDS)

    with suppress(OverBudget):  # an answer without hints is better than none
        for hint in await Hints(plan, sources, run).collect(cells):
            sources.notes.add(hint)
    result = QueryResult.from_cells(plan, cells)
    if query.limit is not None and query.limit <= row_cap:
        return replace(result, next_offset=None)  # all rows that the query asked for
    return result


async def _cut_groups(
    plan: QueryPlan, catalog: Catalog, database: Database, key_id: str
) -> list[str]:
    """Return a note of how many groups have more rows than limitPer; none when it takes long."""
    if not (limit := plan.limit_per):
        return []
    with suppress(OverBudget):
        counting = compile_cut_groups(plan, limit, catalog)
        ((cut, groups),) = await _run(database, counting, key_id)
        if cut:
            names = ", ".join(column.name for column in limit.columns)
            return [f"limitPer cut {cut} of {groups} values of {names}: they have more rows."]
    return []


async def _run(
    database: Database, statement: Statement, key_id: str, seconds: float = SECONDS
) -> list[tuple[Any, ...]]:
    """Run a statement: on the event loop if it is quick, else in a thread.

    Changing threads takes longer than a typical query on few rows. The event loop doesn't wait for
    a database that is in use, and tries no statement of a key that has a slow one.
    """
    is_small = database.rows <= _FEW_ROWS and database.longest_text <= _SHORT_TEXT
    if is_small and not has_key_thread(key_id):
        with suppress(OverBudget):
            return database.execute(statement, _LOOP_SECONDS, wait=False)
    return await in_key_thread(key_id, partial(database.execute, statement, seconds))


def _rounded_columns(plan: QueryPlan, cells: Sequence[Sequence[Any]]) -> list[str]:
    """Return the columns of integers with a value that the database has as a float only.

    Raise CallError for a sum of such values.
    """
    names = []
    for position, output in enumerate(plan.outputs):
        if output.kind is Kind.INTEGER and any(_is_beyond(row[position]) for row in cells):
            if output.is_sum:
                raise too_large_sum()
            names.append(output.name)
    return names


def _is_beyond(number: float | None) -> bool:
    """Return whether an integer is too large for the database, which rounded it to a float."""
    return isinstance(number, float) and abs(number) > LARGEST


def _reader(output: Output) -> Callable[[Any], Any] | None:
    """Return the conversion of a column's cells; None where they stay as they are."""
    if output.is_rounded:
        return lambda number: round(number, _DECIMALS)
    match output.kind:
        case Kind.TIME:
            return lambda epoch: datetime.fromtimestamp(epoch, UTC)
        case Kind.BOOLEAN:
            return bool
        case Kind.INTEGER:
            return lambda number: int(number) if _is_beyond(number) else number
        case Kind.LIST:
            return msgspec.json.decode
        case _:
            return None
