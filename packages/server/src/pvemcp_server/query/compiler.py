"""From a plan to SQL: identifiers come from the declarations only, values are bound only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pvemcp_server.query.catalog import Catalog, Column, Path
from pvemcp_server.query.operators import Function, Logic, Operator
from pvemcp_server.query.plan import Expression, Plan, Sort, Summed, Test, Tests, columns
from pvemcp_server.query.values import Value
from pvemcp_server.tables.registry import Kind

FOLDED: Final = frozenset({Kind.TEXT, Kind.LIST})
"""Kinds that have a second column beside the first: the same without case, for comparisons."""

MARK: Final = "\x1f"
"""Stands before, between and after the entries of a list in its second column."""


def quoted(name: str) -> str:
    """A declared name as an SQL identifier."""
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(f"not a declared name: {name!r}")
    return f'"{name}"'


def beside(name: str) -> str:
    """The column with the same, as it is compared."""
    return f'"{name}~"'


@dataclass(frozen=True)
class Statement:
    """A statement with its values; `width` columns are the answer, the others sort it."""

    sql: str
    values: tuple[Value, ...]
    width: int


def compile_plan(plan: Plan, catalog: Catalog) -> Statement:
    """The statement that answers the plan, one row more than its limit."""
    return _Compiler(plan, catalog, _aliases(plan)).statement()


def paths(plan: Plan) -> list[Path]:
    """The paths that the plan follows, each after the one it goes on from."""
    found = {column.path[:n] for column in columns(plan) for n in range(len(column.path) + 1)}
    return sorted({(), *found}, key=lambda path: (len(path), path))


def _aliases(plan: Plan) -> dict[Path, str]:
    return {path: f"t{n}" for n, path in enumerate(paths(plan))}


@dataclass
class _Compiler:
    plan: Plan
    catalog: Catalog
    aliases: Mapping[Path, str]
    values: list[Value] = field(default_factory=list)

    def statement(self) -> Statement:
        plan = self.plan
        shown = [self._value(one.expression) for one in plan.outputs]
        sorts = [self._comparable(one.expression) for one in plan.order_by]
        parts = [
            f"SELECT {'DISTINCT ' if plan.distinct else ''}{', '.join(shown + sorts)}",
            self._from(),
            f"WHERE {self._tests(plan.where)}" if plan.where else "",
            self._group_by(),
            f"HAVING {self._tests(plan.having)}" if plan.having else "",
            f"ORDER BY {', '.join(self._order(len(shown)))}",
            "LIMIT ? OFFSET ?",
        ]
        self.values += [plan.limit + 1, plan.offset]
        sql = " ".join(part for part in parts if part)
        return Statement(sql.replace("ORDER BY  ", ""), tuple(self.values), len(shown))

    def _from(self) -> str:
        joins = [self._join(path) for path in self.aliases if path]
        return " ".join([f"FROM {quoted(self.plan.table.name)} AS t0", *joins])

    def _join(self, path: Path) -> str:
        parent = self.catalog.follow(self.plan.table, path[:-1])
        relation = self.catalog.relations(parent)[path[-1]]
        here, there = self.aliases[path[:-1]], self.aliases[path]
        on = {"cluster": "cluster", **relation.on}
        pairs = (f"{there}.{quoted(b)} = {here}.{quoted(a)}" for a, b in on.items())
        return f"LEFT JOIN {quoted(relation.table)} AS {there} ON {' AND '.join(pairs)}"

    def _group_by(self) -> str:
        if not self.plan.group_by:
            return ""
        # what a field is compared by follows from it, so it need not be a key as well
        return f"GROUP BY {', '.join(map(self._value, self.plan.group_by))}"

    def _keys(self, one: Column) -> list[str]:
        """A field and what it is compared by, which follows from it."""
        return list(dict.fromkeys((self._value(one), self._comparable(one))))

    def _order(self, shown: int) -> list[str]:
        """The wanted order, then one that is always the same, so that pages fit together."""
        wanted = [_sort(one, shown + n) for n, one in enumerate(self.plan.order_by, 1)]
        if self.plan.distinct:
            return wanted + [f"{n} NULLS LAST" for n in range(1, shown + 1)]
        if self.plan.grouped:
            return wanted + [
                f"{key} NULLS LAST"
                for one in self.plan.group_by
                for key in reversed(self._keys(one))
            ]
        return [*wanted, "t0.rowid"]

    def _value(self, one: Expression) -> str:
        if isinstance(one, Summed):
            return self._summed(one)
        return f"{self.aliases[one.path]}.{quoted(one.field.name)}"

    def _comparable(self, one: Expression) -> str:
        if isinstance(one, Summed) or one.field.kind not in FOLDED:
            return self._value(one)
        return f"{self.aliases[one.path]}.{beside(one.field.name)}"

    def _summed(self, one: Summed) -> str:
        if one.column is None:
            return "count(*)"
        counts = one.function is Function.COUNT and not one.distinct
        inner = self._comparable(one.column) if counts else self._value(one.column)
        return f"{_FUNCTIONS[one.function]}({'DISTINCT ' if one.distinct else ''}{inner})"

    def _tests(self, tree: Tests) -> str:
        joint = " AND " if tree.logic is Logic.AND else " OR "
        parts = (
            self._test(one) if isinstance(one, Test) else self._tests(one) for one in tree.parts
        )
        return f"({joint.join(parts)})"

    def _test(self, one: Test) -> str:
        column = self._comparable(one.expression)
        is_list = isinstance(one.expression, Column) and one.expression.field.kind is Kind.LIST
        sql, values = (_of_list if is_list else _of_single)(column, one)
        self.values += values
        return sql


def _sort(one: Sort, position: int) -> str:
    return f"{position} {'DESC' if one.descending else 'ASC'} NULLS LAST"


Compared = tuple[str, list[Value]]


def _of_single(column: str, one: Test) -> Compared:
    return _WRITERS[one.operator](column, list(one.values))


def _of_list(column: str, one: Test) -> Compared:
    """A list is compared by its entries: IN and CONTAINS find any of the values in it."""
    if one.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return f"{column} {one.operator.value}", []
    values: list[Value] = [f"{MARK}{v}{MARK}" for v in one.values if MARK not in str(v)]
    any_of = _any([f"instr({column}, ?) > 0"] * len(values))
    if one.operator in (Operator.NOT_IN, Operator.NOT_CONTAINS):
        return f"({column} IS NULL OR NOT ({any_of}))", values
    return f"({any_of})", values


def _any(tests: Sequence[str]) -> str:
    """One of the tests, as a tree of even depth: SQLite refuses a chain of a thousand."""
    if len(tests) < 3:
        return " OR ".join(tests) or "0"
    half = len(tests) // 2
    return f"({_any(tests[:half])}) OR ({_any(tests[half:])})"


def _compared(sign: str) -> Callable[[str, list[Value]], Compared]:
    return lambda column, values: (f"{column} {sign} ?", values)


def _in(column: str, values: list[Value]) -> Compared:
    return f"{column} IN ({', '.join('?' * len(values))})", values


def _not_in(column: str, values: list[Value]) -> Compared:
    marks = ", ".join("?" * len(values))
    return f"({column} IS NULL OR {column} NOT IN ({marks}))", values


def _starts_with(column: str, values: list[Value]) -> Compared:
    text = str(values[0])
    return f"substr({column}, 1, ?) = ?", [len(text), text]


def _ends_with(column: str, values: list[Value]) -> Compared:
    text = str(values[0])
    if not text:
        return f"{column} IS NOT NULL", []
    return f"substr({column}, ?) = ?", [-len(text), text]


_FUNCTIONS: Final = {
    Function.COUNT: "count",
    Function.SUM: "sum",
    Function.AVERAGE: "avg",
    Function.MIN: "min",
    Function.MAX: "max",
}

# a field without a value equals nothing: it matches !=, NOT IN and NOT CONTAINS, and no others
_WRITERS: Final[Mapping[Operator, Callable[[str, list[Value]], Compared]]] = {
    Operator.EQUAL: _compared("="),
    Operator.UNEQUAL: _compared("IS NOT"),
    Operator.GREATER: _compared(">"),
    Operator.LESS: _compared("<"),
    Operator.AT_LEAST: _compared(">="),
    Operator.AT_MOST: _compared("<="),
    Operator.CONTAINS: lambda column, values: (f"instr({column}, ?) > 0", values),
    Operator.NOT_CONTAINS: lambda column, values: (
        f"({column} IS NULL OR instr({column}, ?) = 0)",
        values,
    ),
    Operator.IN: _in,
    Operator.NOT_IN: _not_in,
    Operator.BETWEEN: lambda column, values: (f"{column} BETWEEN ? AND ?", values),
    Operator.STARTS_WITH: _starts_with,
    Operator.ENDS_WITH: _ends_with,
    Operator.IS_NULL: lambda column, _: (f"{column} IS NULL", []),
    Operator.IS_NOT_NULL: lambda column, _: (f"{column} IS NOT NULL", []),
}
