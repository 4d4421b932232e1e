"""Compiles a plan to SQL: identifiers come from the declarations only, values are bound only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from pvemcp_server.query.catalog import Catalog, Column, Path
from pvemcp_server.query.operators import Function, Logic, Operator, Span
from pvemcp_server.query.plan import (
    Aggregate,
    Existence,
    Expression,
    LimitPer,
    Output,
    Predicate,
    PredicateGroup,
    QueryPlan,
    columns,
)
from pvemcp_server.query.values import Value
from pvemcp_server.tables.rows import Kind

CASEFOLDED: Final = frozenset({Kind.TEXT, Kind.LIST})
"""Kinds whose column has a second, casefolded one beside it, for comparisons and sorting."""

SEPARATOR: Final = "\x1f"
"""Stands before, between and after the entries of a list in its casefolded column."""


def quoted(name: str) -> str:
    """Quote a declared name as an SQL identifier."""
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(f"not a declared name: {name!r}")
    return f'"{name}"'


def entries_table(table: str, field: str) -> str:
    """Return the identifier of the table with the entries of a list: row, entry and "entry~"."""
    return f'"{table}~{field}"'


def casefolded_column(name: str) -> str:
    """Return the identifier of the casefolded column beside a field's own."""
    return f'"{name}~"'


@dataclass(frozen=True)
class Statement:
    """An SQL statement with its bound values; extra columns after the plan's only sort."""

    sql: str
    values: tuple[Value, ...]


def compile_plan(plan: QueryPlan, catalog: Catalog) -> Statement:
    """Compile the plan; the statement returns one row more than the limit, if there is one."""
    compiler, limit = _Compiler(plan, catalog), plan.limit_per
    return compiler.limited_statement(limit) if limit else compiler.statement()


def compile_cut_groups(plan: QueryPlan, limit: LimitPer, catalog: Catalog) -> Statement:
    """Compile the number of groups that limitPer cuts, and the number of all its groups."""
    return _Compiler(plan, catalog).cut_groups(limit)


def paths(plan: QueryPlan) -> list[Path]:
    """Return the paths of the plan's columns, each after the path that it extends."""
    prefixes = {column.path[:n] for column in columns(plan) for n in range(len(column.path) + 1)}
    return sorted({(), *prefixes}, key=lambda path: (len(path), path))


@dataclass
class _Compiler:
    """Builds one statement; `values` grows in the order of its placeholders."""

    plan: QueryPlan
    catalog: Catalog
    values: list[Value] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)  # of aliases, unique in a statement

    def __post_init__(self) -> None:
        self.aliases = {path: f"t{next(self.numbers)}" for path in paths(self.plan)}
        self.entries = f"t{next(self.numbers)}"  # alias of the entries that rows are grouped by

    def statement(self) -> Statement:
        plan = self.plan
        outputs = [self._value(output.expression) for output in plan.outputs]
        sorts = [self._comparable(sort.expression) for sort in plan.order_by]
        order = ", ".join(self._order(len(outputs)))
        rows = self._rows(outputs + sorts)
        return self._page(f"{rows} ORDER BY {order}" if order else rows)

    def limited_statement(self, limit: LimitPer) -> Statement:
        """Return the statement of a plan with limitPer: the first rows of each of its groups."""
        rows, order = self._numbered_rows(limit)
        outputs = ", ".join(f"c{n}" for n in range(len(self.plan.outputs)))
        self.values.append(limit.count)
        numbered = f"SELECT {outputs} FROM ({rows})"  # noqa: S608 - declared names only
        return self._page(f"{numbered} WHERE number <= ? ORDER BY {order}")

    def cut_groups(self, limit: LimitPer) -> Statement:
        """Return the statement that counts the groups with more rows than limitPer, and all."""
        distinct = self.plan.outputs if self.plan.distinct else ()
        columns = [self._value(output.expression) for output in distinct]
        columns += map(self._value, limit.columns)
        names = [f"c{n}" for n in range(len(columns))]
        groups = ", ".join(names[len(distinct) :])
        rows = self._rows([f"{sql} AS {name}" for sql, name in zip(columns, names, strict=True)])
        counted = f"SELECT count(*) AS number FROM ({rows}) GROUP BY {groups}"  # noqa: S608 - as above
        sql = f"SELECT sum(number > ?), count(*) FROM ({counted})"  # noqa: S608 - as above
        return Statement(sql, (limit.count, *self.values))

    def _numbered_rows(self, limit: LimitPer) -> tuple[str, str]:
        """Return the SELECT of all rows, c0, c1 …, with their number in their group; their order.

        Rows are made first and numbered then: DISTINCT would take the number for a column.
        """
        plan = self.plan
        outputs = [self._value(output.expression) for output in plan.outputs]
        sorts = [self._comparable(sort.expression) for sort in plan.order_by]
        groups = list(map(self._value, limit.columns))
        ties = [] if plan.distinct else self._ties()
        columns = [*outputs, *sorts, *groups, *ties]
        names = [f"c{n}" for n in range(len(columns))]
        unread = iter(names)
        outputs, sorts, groups, ties = (
            list(islice(unread, len(part))) for part in (outputs, sorts, groups, ties)
        )
        keys = [(name, sort.descending) for name, sort in zip(sorts, plan.order_by, strict=True)]
        keys += [(name, False) for name in (outputs if plan.distinct else ties)]
        order = ", ".join(f"{name} {_direction(descending)}" for name, descending in keys)
        rows = self._rows([f"{sql} AS {name}" for sql, name in zip(columns, names, strict=True)])
        number = f"row_number() OVER (PARTITION BY {', '.join(groups)} ORDER BY {order})"
        return f"SELECT *, {number} AS number FROM ({rows})", order  # noqa: S608 - as above

    def _rows(self, columns: Sequence[str]) -> str:
        """Return the SELECT of all rows, in no order and without a limit."""
        plan = self.plan
        parts = [
            f"SELECT {'DISTINCT ' if plan.distinct else ''}{', '.join(columns)}",
            self._from(),
            f"WHERE {self._group(plan.where)}" if plan.where else "",
            # the casefolded column depends on the field's own, so it is no key of the group
            f"GROUP BY {', '.join(map(self._value, plan.group_by))}" if plan.group_by else "",
            f"HAVING {self._group(plan.having)}" if plan.having else "",
        ]
        return " ".join(part for part in parts if part)

    def _page(self, sql: str) -> Statement:
        self.values += [self.plan.limit + 1, self.plan.offset]
        return Statement(f"{sql} LIMIT ? OFFSET ?", tuple(self.values))

    def _from(self) -> str:
        joins = [self._join(path) for path in self.aliases if path]
        for column in self.plan.group_by:
            if column.is_entry:
                entries = entries_table(column.table, column.field.name)
                row = f'{self.entries}."row" = {self.aliases[column.path]}.rowid'
                joins.append(f"LEFT JOIN {entries} AS {self.entries} ON {row}")
        return " ".join([f"FROM {quoted(self.plan.table.name)} AS {self.aliases[()]}", *joins])

    def _join(self, path: Path) -> str:
        parent = self.catalog.follow(self.plan.table, path[:-1])
        relation = self.catalog.relations(parent)[path[-1]]
        here, there = self.aliases[path[:-1]], self.aliases[path]
        keys = relation.keys.items()
        pairs = (f"{there}.{quoted(b)} = {here}.{quoted(a)}" for a, b in keys)
        return f"LEFT JOIN {quoted(relation.table)} AS {there} ON {' AND '.join(pairs)}"

    def _order(self, outputs: int) -> list[str]:
        """Return the requested order, then a stable one, so that pages fit together."""
        requested = [
            f"{n} {_direction(sort.descending)}"
            for n, sort in enumerate(self.plan.order_by, outputs + 1)
        ]
        if self.plan.distinct:
            return requested + [f"{n} NULLS LAST" for n in range(1, outputs + 1)]
        # not for row ids, which SQLite reads in their order
        nulls = " NULLS LAST" if self.plan.grouped else ""
        return requested + [f"{key}{nulls}" for key in self._ties()]

    def _ties(self) -> list[str]:
        """Return the keys that order rows with equal sort keys: of their table, or of groups."""
        if not self.plan.grouped:
            return ["t0.rowid"]
        return [
            key
            for column in self.plan.group_by
            for key in dict.fromkeys((self._comparable(column), self._value(column)))
        ]

    def _value(self, expression: Expression) -> str:
        if isinstance(expression, Column) and expression.is_entry:
            return f'{self.entries}."entry"'
        if isinstance(expression, Column):
            column = f"{self.aliases[expression.path]}.{quoted(expression.field.name)}"
            return _rounded(column, expression.span) if expression.span else column
        if expression.function is Function.SHARE:
            return self._share(expression.column)
        inner_column, distinct = expression.column, expression.distinct
        if inner_column is None:
            return "count(*)"
        counts_all = expression.function is Function.COUNT and not distinct
        inner = self._comparable(inner_column) if counts_all else self._value(inner_column)
        return f"{_FUNCTIONS[expression.function]}({'DISTINCT ' if distinct else ''}{inner})"

    def _share(self, column: Column | None) -> str:
        """Divide by the total over all rows that the conditions leave."""
        total = Aggregate(Function.SUM if column else Function.COUNT, column)
        plan = QueryPlan(self.plan.table, (Output("", total),), where=self.plan.where)
        part = self._value(total)
        inner = _Compiler(plan, self.catalog, self.values, self.numbers)
        where = f" WHERE {inner._group(plan.where)}" if plan.where else ""
        return f"100.0 * {part} / (SELECT {inner._value(total)} {inner._from()}{where})"

    def _comparable(self, expression: Expression) -> str:
        """Return the column to compare and sort by: without case, for text and lists."""
        if isinstance(expression, Aggregate) or expression.field.kind not in CASEFOLDED:
            return self._value(expression)
        if expression.is_entry:
            return f"{self.entries}.{casefolded_column('entry')}"
        return f"{self.aliases[expression.path]}.{casefolded_column(expression.field.name)}"

    def _group(self, group: PredicateGroup) -> str:
        joint = " AND " if group.logic is Logic.AND else " OR "
        parts = (
            self._group(part)
            if isinstance(part, PredicateGroup)
            else self._existence(part)
            if isinstance(part, Existence)
            else self._predicate(part)
            for part in group.parts
        )
        return f"({joint.join(parts)})"

    def _existence(self, test: Existence) -> str:
        inner = _Compiler(test.plan, self.catalog, self.values, self.numbers)
        conditions = [f"{inner._value(there)} = {self._value(here)}" for here, there in test.keys]
        if test.plan.where:
            conditions.append(inner._group(test.plan.where))
        rows = f"SELECT 1 {inner._from()} WHERE {' AND '.join(conditions)}"
        return f"{'NOT ' if test.negated else ''}EXISTS ({rows})"

    def _predicate(self, predicate: Predicate) -> str:
        expression, operator = predicate.expression, predicate.operator
        column = self._comparable(expression)
        if predicate.other:
            return _compare_columns(column, operator, self._comparable(predicate.other))
        if isinstance(expression, Column) and expression.field.kind is Kind.LIST:
            sql, values = _compare_list(column, operator, predicate.values)
        else:
            sql, values = _COMPARISONS[operator](column, list(predicate.values))
        self.values += values
        return sql


def _direction(descending: bool) -> str:
    return f"{'DESC' if descending else 'ASC'} NULLS LAST"


Comparison = tuple[str, list[Value]]
"""SQL with placeholders, and their values."""


def _compare_list(column: str, operator: Operator, entries: Sequence[Value]) -> Comparison:
    """Compare a list by its entries: IN and CONTAINS match any of them."""
    if operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return f"{column} {operator.value}", []
    values: list[Value] = [
        f"{SEPARATOR}{entry}{SEPARATOR}" for entry in entries if SEPARATOR not in str(entry)
    ]
    any_of = _any([f"instr({column}, ?) > 0"] * len(values))
    if operator in (Operator.NOT_IN, Operator.NOT_CONTAINS):
        return f"({column} IS NULL OR NOT ({any_of}))", values
    return f"({any_of})", values


def _compare_columns(column: str, operator: Operator, other: str) -> str:
    """Compare two columns; a missing value equals nothing, so only != matches it."""
    if operator is Operator.UNEQUAL:
        return f"({column} IS NULL OR {other} IS NULL OR {column} != {other})"
    return f"{column} {operator.value} {other}"


def _rounded(column: str, span: Span) -> str:
    """Round a time down to the start of its span."""
    return f"({column} - ({column} + {span.offset}) % {span.seconds})"


def _any(tests: Sequence[str]) -> str:
    """Join tests by OR as a balanced tree: SQLite refuses a chain of a thousand."""
    if len(tests) < 3:
        return " OR ".join(tests) or "0"
    half = len(tests) // 2
    return f"({_any(tests[:half])}) OR ({_any(tests[half:])})"


def _compare(sign: str) -> Callable[[str, list[Value]], Comparison]:
    return lambda column, values: (f"{column} {sign} ?", values)


def _in(column: str, values: list[Value]) -> Comparison:
    return f"{column} IN ({', '.join('?' * len(values))})", values


def _not_in(column: str, values: list[Value]) -> Comparison:
    marks = ", ".join("?" * len(values))
    return f"({column} IS NULL OR {column} NOT IN ({marks}))", values


def _starts_with(column: str, values: list[Value]) -> Comparison:
    text = str(values[0])
    return f"substr({column}, 1, ?) = ?", [len(text), text]


def _ends_with(column: str, values: list[Value]) -> Comparison:
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

# A field without a value equals nothing: it matches !=, NOT IN and NOT CONTAINS, and no others
_COMPARISONS: Final[Mapping[Operator, Callable[[str, list[Value]], Comparison]]] = {
    Operator.EQUAL: _compare("="),
    Operator.UNEQUAL: _compare("IS NOT"),
    Operator.GREATER: _compare(">"),
    Operator.LESS: _compare("<"),
    Operator.AT_LEAST: _compare(">="),
    Operator.AT_MOST: _compare("<="),
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
