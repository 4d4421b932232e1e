"""The oracle: answers a query row by row in plain Python, slow and easy to verify."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pvemcp_server.tables.registry import tables
from pvemcp_server.tables.rows import Kind

from .datasets import Dataset
from .reference import (
    AggregateReference,
    Comparison,
    ComparisonGroup,
    ExistenceReference,
    FieldReference,
    ReferenceQuery,
    Subject,
)

Record = Mapping[str, Any]  # a row with its cluster, its table and its dataset


def expected(
    query: ReferenceQuery, dataset: Dataset
) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """Return the rows of the answer, in order; how many groups limitPer cuts, and of how many."""
    groups, cut = _groups_in_order(query, dataset), (0, 0)
    if query.limit_per:
        groups, cut = _first(groups, *query.limit_per)
    page = groups[query.offset : query.offset + query.limit]
    return [_output(group, query) for group in page], cut


def _groups_in_order(query: ReferenceQuery, dataset: Dataset) -> list[list[Record]]:
    """Return the records of each row of the answer, without its limits."""
    records = [record for record in _records(query.table, dataset) if _holds(query.where, [record])]
    records = [{**record, "all": records} for record in records]
    for key in query.group_by:
        if key.is_entry:
            records = [part for record in records for part in _by_entry(record, key)]
    groups = _groups(query, records) if query.grouped else [[record] for record in records]
    groups = [group for group in groups if _holds(query.having, group)]
    if query.grouped:
        groups.sort(key=lambda group: [_group_key(_value(key, group)) for key in query.group_by])
    if query.distinct:
        groups = _distinct(groups, query)
    for subject, descending in reversed(query.order_by):
        groups = _sorted(groups, subject, descending)
    return groups


def _by_entry(record: Record, key: FieldReference) -> list[Record]:
    """Return the record once for each different entry of its list; once without a list."""
    entries = dict.fromkeys(map(str, _exact_value(record, key) or ())) or [None]
    return [{**record, "entry": entry} for entry in entries]


def _records(table: str, dataset: Dataset) -> list[Record]:
    return [
        {"cluster": cluster, "row": row, "dataset": dataset, "table": table}
        for cluster, rows in dataset.rows[table].items()
        for row in rows
    ]


def _field_value(record: Record, field: FieldReference) -> Any:
    if field.is_entry:
        return record["entry"]
    value = _exact_value(record, field)
    return value if value is None or not field.span else _start(value, field.span)


def _start(time: datetime, span: str) -> datetime:
    """Return the start of the hour, day or week."""
    hour = time.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {"HOUR": hour, "DAY": day, "WEEK": day - timedelta(days=day.weekday())}[span]


def _exact_value(record: Record, field: FieldReference) -> Any:
    table, cluster, row = tables()[record["table"]], record["cluster"], record["row"]
    for hop in field.path:
        relation = next(relation for relation in table.relations if relation.name == hop)
        table = tables()[relation.table]
        here = {"cluster": cluster, "row": row, "dataset": record["dataset"]}
        related = _related(here, table.name, relation.keys)
        if related is None:
            return None
        cluster, row = related["cluster"], related["row"]
    return cluster if field.field.name == "cluster" else getattr(row, field.field.name)


def _related(record: Record, table: str, keys: Mapping[str, str]) -> Record | None:
    """Return the first record of the table whose fields equal those of this one."""
    values = {there: _own_value(record, here) for here, there in keys.items()}
    return next(_matching(table, record["dataset"], values), None)


def _matching(table: str, dataset: Dataset, values: Mapping[str, Any]) -> Iterator[Record]:
    """Yield the table's records with these values; a missing one equals nothing."""
    own = {name: value for name, value in values.items() if name != "cluster"}
    if None in values.values():
        return
    for cluster, rows in dataset.rows[table].items():
        for row in rows if values.get("cluster", cluster) == cluster else ():
            if all(getattr(row, name) == value for name, value in own.items()):
                yield {"cluster": cluster, "row": row, "dataset": dataset, "table": table}


def _own_value(record: Record, name: str) -> Any:
    return record["cluster"] if name == "cluster" else getattr(record["row"], name)


def _value(subject: Subject, group: Sequence[Record]) -> Any:
    if isinstance(subject, FieldReference):
        return _field_value(group[0], subject)
    if subject.function == "SHARE":
        return _share(subject.field, group)
    if subject.field is None:
        return len(group)
    values = [_field_value(record, subject.field) for record in group]
    is_list = subject.field.field.kind is Kind.LIST
    values = [value for value in values if value is not None and (value or not is_list)]
    if subject.function == "COUNT":
        return len(set(values)) if subject.distinct else len(values)
    if not values:
        return None
    totals: dict[str, Callable[[list[Any]], Any]] = {
        "SUM": sum,
        "AVERAGE": lambda numbers: sum(numbers) / len(numbers),
        "MIN": min,
        "MAX": max,
    }
    return totals[subject.function](values)


def _share(field: FieldReference | None, group: Sequence[Record]) -> float | None:
    """Return the percentage of the total over all records that where leaves."""
    total = AggregateReference("SUM" if field else "COUNT", field)
    part, whole = _value(total, group), _value(total, group[0]["all"]) if group else None
    return None if part is None or not whole else 100.0 * part / whole


def _holds(
    tree: ComparisonGroup | ExistenceReference | Comparison | None, group: Sequence[Record]
) -> bool:
    if tree is None:
        return True
    if isinstance(tree, ExistenceReference):
        return _exists(tree, group[0]) != tree.negated
    if isinstance(tree, ComparisonGroup):
        parts = (_holds(part, group) for part in tree.parts)
        return all(parts) if tree.logic == "and" else any(parts)
    value, values = _value(tree.subject, group), tree.values
    if tree.other is not None:
        values = [_value(tree.other, group)]
        if values == [None]:
            return tree.operator == "!="
    return _compares(value, tree.operator, values)


def _exists(test: ExistenceReference, record: Record) -> bool:
    """Look at every row of the other table on the cluster that the test names."""
    values = {there: _field_value(record, here) for here, there in test.keys}
    others = _matching(test.table, record["dataset"], values)
    return any(_holds(test.where, [other]) for other in others)


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _compares(value: Any, operator: str, values: Sequence[Any]) -> bool:
    missing = value is None or value in ([], ())
    if operator in ("IS NULL", "IS NOT NULL"):
        return missing == (operator == "IS NULL")
    if operator in ("!=", "NOT IN", "NOT CONTAINS"):
        positive = {"!=": "=", "NOT IN": "IN", "NOT CONTAINS": "CONTAINS"}[operator]
        return missing or not _compares(value, positive, values)
    if missing:
        return False
    operands = [_folded(operand) for operand in values]
    if isinstance(value, list | tuple):
        return any(_folded(str(entry)) in operands for entry in value)
    return _OPERATORS[operator](_folded(value), operands)


_OPERATORS: Mapping[str, Callable[[Any, list[Any]], bool]] = {
    "=": lambda value, operands: value == operands[0],
    ">": lambda value, operands: value > operands[0],
    "<": lambda value, operands: value < operands[0],
    ">=": lambda value, operands: value >= operands[0],
    "<=": lambda value, operands: value <= operands[0],
    "CONTAINS": lambda value, operands: operands[0] in value,
    "STARTSWITH": lambda value, operands: value.startswith(operands[0]),
    "ENDSWITH": lambda value, operands: value.endswith(operands[0]),
    "IN": lambda value, operands: value in operands,
    "BETWEEN": lambda value, operands: operands[0] <= value <= operands[1],
}


def _groups(query: ReferenceQuery, records: Sequence[Record]) -> list[list[Record]]:
    if not query.group_by:
        return [list(records)]
    groups: dict[Any, list[Record]] = {}
    for record in records:
        key = tuple(_field_value(record, field) for field in query.group_by)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _sorted(groups: list[list[Record]], subject: Subject, descending: bool) -> list[list[Record]]:
    """Sort stably; groups without a value come last in both directions."""
    valued = [group for group in groups if _value(subject, group) is not None]
    without = [group for group in groups if _value(subject, group) is None]
    valued.sort(key=lambda group: _folded(_value(subject, group)), reverse=descending)
    return valued + without


def _first(
    groups: list[list[Record]], fields: Sequence[FieldReference], count: int
) -> tuple[list[list[Record]], tuple[int, int]]:
    """Keep `count` groups with the same values; return how many values have more, and of how many.

    Both are 0 without any row.
    """
    sizes: Counter[Any] = Counter()
    kept = []
    for group in groups:
        key = tuple(_value(field, group) for field in fields)
        sizes[key] += 1
        kept += [group] if sizes[key] <= count else []
    return kept, (sum(size > count for size in sizes.values()), len(sizes))


def _distinct(groups: list[list[Record]], query: ReferenceQuery) -> list[list[Record]]:
    """Keep one group for each row of the answer, sorted from the first column to the last."""

    def key(group: list[Record]) -> tuple[Any, ...]:
        return tuple(_hashable(_value(subject, group)) for _, subject in query.outputs)

    unique = {key(group): group for group in groups}
    return sorted(unique.values(), key=lambda group: [_column_key(cell) for cell in key(group)])


def _group_key(value: Any) -> tuple[Any, ...]:
    """Return a sort key: casefolded first, then exact; none last."""
    return (value is None, *(() if value is None else (_folded(value), value)))


def _column_key(value: Any) -> tuple[Any, ...]:
    return (value is None, *(() if value is None else (value,)))


def _hashable(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value


def _output(group: list[Record], query: ReferenceQuery) -> dict[str, Any]:
    row = {name: _value(subject, group) for name, subject in query.outputs}
    for name, subject in query.outputs:
        rounded = isinstance(subject, AggregateReference) and subject.function in (
            "AVERAGE",
            "SHARE",
        )
        if rounded and row[name] is not None:
            row[name] = round(row[name], 2)
    return row
