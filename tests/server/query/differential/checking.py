"""Asks our engine and the oracle the same, and says where they differ."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from pvemcp_server.query.binder import validate
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.engine import Database
from pvemcp_server.query.execute import Answer
from pvemcp_server.query.loader import filled
from pvemcp_server.query.parser import read
from pvemcp_server.query.pushdown import RequiredColumns
from pvemcp_server.tables.registry import tables

from .asking import Asker
from .oracle import expected
from .worlds import NOW, World

CATALOG = Catalog(dict(sorted(tables().items())))


@dataclass(frozen=True)
class Difference(Exception):
    """Our answer is not the oracle's."""

    asked: Any
    ours: list[dict[str, Any]]
    oracles: list[dict[str, Any]]

    def __str__(self) -> str:
        return (
            f"{json.dumps(self.asked, ensure_ascii=False)}\nours   {self.ours}\n"
            f"oracle {self.oracles}"
        )


def database(world: World) -> Database:
    """All rows of the world, all columns."""
    needed = {
        name: RequiredColumns({"cluster", *table.fields}, set()) for name, table in tables().items()
    }
    return filled(CATALOG, needed, world.rows)


def answered(asked: Any, rows: Database) -> list[dict[str, Any]]:
    """Our answer."""
    plan = validate(read(asked), CATALOG, NOW)
    return Answer.of(plan, rows.ask(compile_plan(plan, CATALOG))).rows


def check(seed: int, queries: int) -> None:
    """Compare the answers to some queries about one world; raises Difference."""
    rng = Random(seed)  # noqa: S311 - a seed gives the same queries every time
    world = World.random(rng)
    rows = database(world)
    asker = Asker(rng, world)
    for _ in range(queries):
        asked, meaning = asker.query()
        written = rng.choice((asked, json.dumps(asked)))
        ours, oracles = answered(written, rows), expected(meaning, world)
        if list(map(_by_position, ours)) != list(map(_by_position, oracles)):
            raise Difference(asked, ours, oracles)


def _by_position(row: dict[str, Any]) -> list[Any]:
    return list(row.values())
