"""Answers a query row by row in plain Python: slow, and easy to believe."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pvemcp_server.tables.registry import Kind, tables

from .meaning import Cell, Comparison, Joint, Meaning, Total
from .worlds import World

Record = Mapping[str, Any]  # a row with its cluster and, by path, the rows it leads to


def expected(meaning: Meaning, world: World) -> list[dict[str, Any]]:
    """The rows of the answer, in order."""
    records = [one for one in _records(meaning.table, world) if _holds(meaning.where, [one])]
    groups = _groups(meaning, records) if meaning.grouped else [[one] for one in records]
    groups = [group for group in groups if _holds(meaning.having, group)]
    if meaning.grouped:
        groups.sort(key=lambda group: [_exact(_value(one, group)) for one in meaning.group_by])
    if meaning.distinct:
        groups = _distinct(groups, meaning)
    for subject, descending in reversed(meaning.order_by):
        groups = _sorted(groups, subject, descending)
    page = groups[meaning.offset : meaning.offset + meaning.limit]
    return [_shown(group, meaning) for group in page]


def _records(table: str, world: World) -> list[Record]:
    return [
        {"cluster": cluster, "row": row, "world": world, "table": table}
        for cluster, rows in world.rows[table].items()
        for row in rows
    ]


def _cell(record: Record, cell: Cell) -> Any:
    table, cluster, row = tables()[record["table"]], record["cluster"], record["row"]
    for hop in cell.path:
        relation = next(one for one in table.relations if one.name == hop)
        table = tables()[relation.table]
        row = _related(record["world"].rows[table.name][cluster], relation.on, row)
        if row is None:
            return None
    return cluster if cell.field.name == "cluster" else getattr(row, cell.field.name)


def _related(rows: Sequence[Any], on: Mapping[str, str], row: Any) -> Any:
    wanted = {there: getattr(row, here) for here, there in on.items()}
    if None in wanted.values():
        return None
    fits = (one for one in rows if all(getattr(one, k) == v for k, v in wanted.items()))
    return next(fits, None)


def _value(subject: Cell | Total, group: Sequence[Record]) -> Any:
    if isinstance(subject, Cell):
        return _cell(group[0], subject)
    if subject.cell is None:
        return len(group)
    found = [value for record in group if (value := _cell(record, subject.cell)) is not None]
    if subject.cell.field.kind is Kind.LIST:
        found = [value for value in found if value]
    return _total(subject, found)


def _total(subject: Total, found: list[Any]) -> Any:
    if subject.function == "COUNT":
        return len(set(found)) if subject.distinct else len(found)
    if not found:
        return None
    totals: dict[str, Callable[[list[Any]], Any]] = {
        "SUM": sum,
        "AVERAGE": lambda values: sum(values) / len(values),
        "MIN": min,
        "MAX": max,
    }
    return totals[subject.function](found)


def _holds(tree: Joint | Comparison | None, group: Sequence[Record]) -> bool:
    if tree is None:
        return True
    if isinstance(tree, Joint):
        parts = (_holds(one, group) for one in tree.parts)
        return all(parts) if tree.logic == "and" else any(parts)
    value = _value(tree.subject, group)
    return _compared(value, tree.operator, tree.values)


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _compared(value: Any, operator: str, values: Sequence[Any]) -> bool:
    missing = value is None or value == []
    if operator in ("IS NULL", "IS NOT NULL"):
        return missing == (operator == "IS NULL")
    if operator in ("!=", "NOT IN", "NOT CONTAINS"):
        positive = {"!=": "=", "NOT IN": "IN", "NOT CONTAINS": "CONTAINS"}[operator]
        return missing or not _compared(value, positive, values)
    if missing:
        return False
    given = [_folded(one) for one in values]
    if isinstance(value, list):
        return any(_folded(str(one)) in given for one in value)
    return _PLAIN[operator](_folded(value), given)


_PLAIN: Mapping[str, Callable[[Any, list[Any]], bool]] = {
    "=": lambda value, given: value == given[0],
    ">": lambda value, given: value > given[0],
    "<": lambda value, given: value < given[0],
    ">=": lambda value, given: value >= given[0],
    "<=": lambda value, given: value <= given[0],
    "CONTAINS": lambda value, given: given[0] in value,
    "STARTSWITH": lambda value, given: value.startswith(given[0]),
    "ENDSWITH": lambda value, given: value.endswith(given[0]),
    "IN": lambda value, given: value in given,
    "BETWEEN": lambda value, given: given[0] <= value <= given[1],
}


def _groups(meaning: Meaning, records: Sequence[Record]) -> list[list[Record]]:
    if not meaning.group_by:
        return [list(records)]
    found: dict[Any, list[Record]] = {}
    for record in records:
        key = tuple(_cell(record, cell) for cell in meaning.group_by)
        found.setdefault(key, []).append(record)
    return list(found.values())


def _sorted(
    groups: list[list[Record]], subject: Cell | Total, descending: bool
) -> list[list[Record]]:
    """Stable; what has no value comes last, whatever the direction."""
    valued = [group for group in groups if _value(subject, group) is not None]
    without = [group for group in groups if _value(subject, group) is None]
    valued.sort(key=lambda group: _folded(_value(subject, group)), reverse=descending)
    return valued + without


def _distinct(groups: list[list[Record]], meaning: Meaning) -> list[list[Record]]:
    """One of each, sorted from the first column to the last."""

    def key(group: list[Record]) -> tuple[Any, ...]:
        return tuple(_listless(_value(one, group)) for _, one in meaning.outputs)

    found = {key(group): group for group in groups}
    return sorted(found.values(), key=lambda group: [_plain(cell) for cell in key(group)])


def _exact(value: Any) -> tuple[Any, ...]:
    """Where a value stands: without case, then as it is; none at the end."""
    return (value is None, *(() if value is None else (_folded(value), value)))


def _plain(value: Any) -> tuple[Any, ...]:
    return (value is None, *(() if value is None else (value,)))


def _listless(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _shown(group: list[Record], meaning: Meaning) -> dict[str, Any]:
    row = {name: _value(one, group) for name, one in meaning.outputs}
    for name, one in meaning.outputs:
        if isinstance(one, Total) and one.function == "AVERAGE" and row[name] is not None:
            row[name] = round(row[name], 2)
    return row
