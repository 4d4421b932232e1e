"""Compares the engine's answers with those of the oracle."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from pvemcp_server.query.binder import bind
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.query.compiler import compile_cut_groups, compile_plan
from pvemcp_server.query.engine import Database
from pvemcp_server.query.execute import QueryResult
from pvemcp_server.query.loader import build_database
from pvemcp_server.query.parser import parse
from pvemcp_server.query.plan import LimitPer, QueryPlan
from pvemcp_server.query.pushdown import RequiredColumns
from pvemcp_server.tables.registry import tables
from pvemcp_server.tables.rows import Kind

from .datasets import NOW, Dataset
from .generator import QueryGenerator
from .oracle import expected

CATALOG = Catalog(dict(sorted(tables().items())))


@dataclass(frozen=True)
class Difference(Exception):
    """The engine's answer to a query differs from the oracle's."""

    query: Any
    rows: list[dict[str, Any]]
    expected: list[dict[str, Any]]

    def __str__(self) -> str:
        query = json.dumps(self.query, ensure_ascii=False)
        return f"{query}\nengine {self.rows}\noracle {self.expected}"


def database(dataset: Dataset) -> Database:
    """Return a database with all rows and columns of the dataset."""
    required = {
        name: RequiredColumns(
            {"cluster", *table.fields},
            entries={f.name for f in table.fields.values() if f.kind is Kind.LIST},
        )
        for name, table in tables().items()
    }
    return build_database(CATALOG, required, dataset.rows)


def answer(query: Any, rows: Database) -> list[dict[str, Any]]:
    """Return the engine's answer to a query, given as an object or JSON text."""
    return _answer(bind(parse(query), CATALOG, NOW), rows)


def _answer(plan: QueryPlan, rows: Database) -> list[dict[str, Any]]:
    return QueryResult.from_cells(plan, rows.execute(compile_plan(plan, CATALOG))).rows


def check(seed: int, queries: int) -> None:
    """Compare the answers to random queries about one dataset; raises Difference."""
    rng = Random(seed)  # noqa: S311 - a seed gives the same queries every time
    dataset = Dataset.random(rng)
    rows = database(dataset)
    generator = QueryGenerator(rng, dataset)
    for _ in range(queries):
        query, reference = generator.query()
        source = rng.choice((query, json.dumps(query)))
        plan, (truth, cut) = bind(parse(source), CATALOG, NOW), expected(reference, dataset)
        answered = _answer(plan, rows)
        if list(map(_cells, answered)) != list(map(_cells, truth)):
            raise Difference(query, answered, truth)
        if plan.limit_per and (counted := _cut_groups(plan, plan.limit_per, rows)) != cut:
            raise Difference(query, [{"cut": counted}], [{"cut": cut}])


def _cut_groups(plan: QueryPlan, limit: LimitPer, rows: Database) -> tuple[int, int]:
    ((cut, groups),) = rows.execute(compile_cut_groups(plan, limit, CATALOG))
    return cut or 0, groups


def _cells(row: dict[str, Any]) -> list[Any]:
    """Return the cells in order: the oracle may spell a column's name in another case."""
    return list(row.values())
