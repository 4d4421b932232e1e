"""From a query as asked to its answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pvemcp_server.errors import OverBudget
from pvemcp_server.query.binder import MOST_ROWS, validate
from pvemcp_server.query.compiler import Statement, compile_plan
from pvemcp_server.query.engine import SECONDS, Database
from pvemcp_server.query.hints import Remarks
from pvemcp_server.query.loader import Loading
from pvemcp_server.query.operators import Function
from pvemcp_server.query.parser import read
from pvemcp_server.query.plan import Output, Plan, Summed
from pvemcp_server.query.sources import Sources
from pvemcp_server.tables.registry import Budget, Kind

_FEW: Final = 5_000  # rows that can be asked without a thread
_DECIMALS: Final = 2  # of averages
_MOMENT: Final = 0.01  # seconds that the event loop may wait for them
_ASIDE: Final = 0.05  # seconds for what is asked only to say something of the answer


@dataclass(frozen=True)
class Answer:
    """The rows of an answer, and whether there were more."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    cut: bool
    decimals: Mapping[str, int]  # of columns where a second digit after the point matters

    @classmethod
    def of(cls, plan: Plan, cells: Sequence[Sequence[Any]]) -> "Answer":
        names = tuple(one.name for one in plan.outputs)
        readers = [_reader(plan, n) for n in range(len(names))]
        rows = [
            {
                name: cell if cell is None or reader is None else reader(cell)
                for name, cell, reader in zip(names, row, readers, strict=False)
            }
            for row in cells[: plan.limit]
        ]
        finer = {one.name: _DECIMALS for one in plan.outputs if _is_average(one)}
        return cls(names, rows, len(cells) > plan.limit, finer)


async def answer(asked: object, sources: Sources, budget: Budget, now: datetime) -> Answer:
    """The answer to a query; notes about what is missing go to the clusters' notes."""
    catalog = sources.catalog
    query = read(asked)
    plan = validate(query, catalog, now)
    database = await Loading(sources, catalog, plan, budget).database()
    cells = await _asked(database, compile_plan(plan, catalog))

    async def offload(one: Plan) -> list[tuple[Any, ...]]:
        return await _asked(database, compile_plan(one, catalog), _ASIDE)

    with suppress(OverBudget):  # the answer is worth more than what could be said of it
        for remark in await Remarks(plan, sources, offload).of(cells):
            sources.notes.add(remark)
    found = Answer.of(plan, cells)
    return found if query.limit is None or query.limit > MOST_ROWS else _uncut(found)


async def _asked(
    database: Database, statement: Statement, seconds: float = SECONDS
) -> list[tuple[Any, ...]]:
    """In a thread; but at once where that is quick: changing threads would take longer."""
    if database.rows <= _FEW:
        with suppress(OverBudget):  # not quick, then: a thread has more time
            return database.ask(statement, _MOMENT)
    return await asyncio.to_thread(database.ask, statement, seconds)


def _uncut(found: Answer) -> Answer:
    """Who asks for ten rows does not miss the others."""
    return replace(found, cut=False)


def _reader(plan: Plan, n: int) -> Callable[[Any], Any] | None:
    one = plan.outputs[n]
    return _rounded if _is_average(one) else _READERS.get(one.kind)


def _is_average(one: Output) -> bool:
    summed = one.expression
    return isinstance(summed, Summed) and summed.function is Function.AVERAGE


def _rounded(number: float) -> float:
    return round(number, _DECIMALS)


def _moment(epoch: int) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


_READERS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.TIME: _moment,
    Kind.BOOLEAN: bool,
    Kind.LIST: msgspec.json.decode,
}
