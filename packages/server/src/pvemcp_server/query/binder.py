"""Makes a query certain: looks up names, gives values their types, refuses what has no meaning."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pvemcp_server.errors import BadArgument
from pvemcp_server.query import model
from pvemcp_server.query.catalog import Catalog, Column, fields_of
from pvemcp_server.query.names import plain, shown, unknown
from pvemcp_server.query.operators import Function, Operator
from pvemcp_server.query.parser import read
from pvemcp_server.query.plan import Expression, Output, Plan, Sort, Summed, Test, Tests
from pvemcp_server.query.values import Value, article, typed
from pvemcp_server.tables.registry import Field, Kind, Table

MOST_ROWS: Final = 1000
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def validate(query: model.Query, catalog: Catalog, now: datetime) -> Plan:
    """The plan of the query; BadArgument with place and remedy when there is none."""
    table = catalog.table(query.table, "from")
    return _Validator(catalog, table, query, now).plan()


def can_be_asked(asked: object, catalog: Catalog, now: datetime) -> bool:
    """Whether all that a query names is in the catalog."""
    try:
        validate(read(asked), catalog, now)
    except BadArgument:
        return False
    return True


@dataclass
class _Validator:
    catalog: Catalog
    table: Table
    query: model.Query
    now: datetime

    def plan(self) -> Plan:
        query = self.query
        group_by = tuple(
            self._grouping(one, f"groupBy[{n}]") for n, one in enumerate(query.group_by)
        )
        outputs = self._outputs(group_by)
        summed = any(isinstance(one.expression, Summed) for one in outputs)
        grouped = bool(group_by) or summed
        if query.having and not group_by:
            raise BadArgument("having", "it filters groups.", hint="Add groupBy, or use where.")
        if grouped:
            self._check_grouped(outputs, group_by)
        known = {plain(one.name): one.expression for one in outputs}
        having = self._tests(query.having, known, group_by) if query.having else None
        order_by = tuple(self._sort(one, known, grouped, group_by) for one in query.order_by)
        self._check_distinct(outputs)
        return Plan(
            table=self.table,
            outputs=outputs,
            where=self._tests(query.where, {}, None) if query.where else None,
            grouped=grouped,
            group_by=group_by,
            having=having,
            order_by=order_by,
            distinct=query.distinct,
            limit=min(query.limit or MOST_ROWS, MOST_ROWS),
            offset=query.offset,
        )

    def _outputs(self, group_by: tuple[Column, ...]) -> tuple[Output, ...]:
        if self.query.select:
            return self._selected(self.query.select)
        if group_by:
            return tuple(Output(one.name, one) for one in group_by)
        return tuple(Output(one.name, Column((), self.table.name, one, one.name))
                     for one in self._default_fields())  # fmt: skip

    def _default_fields(self) -> Iterable[Field]:
        """All fields for "*" but those that take further calls; else the table's main ones."""
        known = fields_of(self.table)
        if self.query.everything:
            return (one for one in known.values() if one.name not in self.table.extra)
        return (known[name] for name in ("cluster", *self.table.row.minimal))

    def _selected(self, select: tuple[model.Selected, ...]) -> tuple[Output, ...]:
        found: dict[str, Output] = {}
        for one in select:
            expression = self._expression(one.term, one.at)
            name = one.alias or _title(expression)
            if name in found:
                raise BadArgument(one.at, f"there are two columns {name}.", hint='Use "as".')
            found[name] = Output(name, expression)
        return tuple(found.values())

    def _expression(self, term: model.Term, at: str) -> Expression:
        if isinstance(term, model.Name):
            return self.catalog.column(self.table, term.text, at)
        if term.field is None:
            return Summed(term.function, None)
        column = self.catalog.column(self.table, term.field.text, at)
        if not term.function.fits(column.field.kind):
            raise BadArgument(
                at,
                f"no {term.function} of {column.name}, which is {article(column.field)}.",
                hint=_functions_for(column.field.kind),
            )
        if term.distinct and column.field.kind is Kind.LIST:
            raise BadArgument(at, f"{column.name} is a list: its entries can't be counted so.")
        return Summed(term.function, column, term.distinct)

    def _grouping(self, name: model.Name, at: str) -> Column:
        column = self.catalog.column(self.table, name.text, at)
        if column.field.kind is Kind.LIST:
            raise BadArgument(
                at, f"{column.name} is a list.", hint="Filter with CONTAINS, and count."
            )
        return column

    def _check_grouped(self, outputs: tuple[Output, ...], group_by: tuple[Column, ...]) -> None:
        groups = {_key(one) for one in group_by}
        for n, one in enumerate(outputs):
            if isinstance(one.expression, Column) and _key(one.expression) not in groups:
                raise BadArgument(
                    f"select[{n}]",
                    f"{one.name} differs within a group.",
                    hint=f"Add {one.name} to groupBy, or aggregate it.",
                )

    def _check_distinct(self, outputs: tuple[Output, ...]) -> None:
        if not self.query.distinct:
            return
        shown = {_key(one.expression) for one in outputs}
        for n, one in enumerate(self.query.order_by):
            names = {plain(output.name): output.expression for output in outputs}
            if _key(self._named(one.term, names, one.at)) not in shown:
                raise BadArgument(
                    f"orderBy[{n}]", "distinct rows are sorted by what is selected only."
                )

    def _sort(
        self,
        one: model.Ordered,
        known: Mapping[str, Expression],
        grouped: bool,
        group_by: tuple[Column, ...],
    ) -> Sort:
        expression = self._named(one.term, known, one.at)
        if grouped:
            _check_of_group(expression, group_by, one.at)
        elif isinstance(expression, Summed):
            raise BadArgument(one.at, "there are no groups to sort by this.", hint="Add groupBy.")
        if isinstance(expression, Column) and expression.field.kind is Kind.LIST:
            raise BadArgument(one.at, f"{expression.name} is a list and has no order.")
        return Sort(expression, one.descending)

    def _named(self, term: model.Term, known: Mapping[str, Expression], at: str) -> Expression:
        """What a name means in orderBy and having: a column of the answer first, then a field."""
        if isinstance(term, model.Name) and plain(term.text) in known:
            return known[plain(term.text)]
        return self._expression(term, at)

    def _tests(
        self,
        tree: model.Conditions,
        known: Mapping[str, Expression],
        group_by: tuple[Column, ...] | None,
    ) -> Tests:
        parts = (
            self._tests(one, known, group_by)
            if isinstance(one, model.Conditions)
            else self._test(one, known, group_by)
            for one in tree.parts
        )
        return Tests(tree.logic, tuple(parts))

    def _test(
        self,
        one: model.Condition,
        known: Mapping[str, Expression],
        group_by: tuple[Column, ...] | None,
    ) -> Test:
        if group_by is None:
            self._check_not_alias(one)
        expression = self._named(one.term, known, f"{one.at}.field")
        if group_by is not None:
            _check_of_group(expression, group_by, f"{one.at}.field")
        elif isinstance(expression, Summed):
            raise BadArgument(f"{one.at}.field", "groups are filtered in having.")
        field = _field(expression)
        _check_operator(one, field)
        places = enumerate(one.values)
        values = tuple(typed(v, field, f"{one.at}.value[{n}]", self.now) for n, v in places)
        if one.operator.whole and field.choices:
            _check_choices(one, field, values)
        if one.operator.whole and field.kind is Kind.TIME:
            _check_moments(one)
        if one.operator.whole and isinstance(expression, Column):
            self._check_not_elsewhere(one, expression, values)
        if one.operator is Operator.BETWEEN:
            _check_bounds(one, values)
        return Test(expression, one.operator, values)

    def _check_not_alias(self, one: model.Condition) -> None:
        """Names given in select are not known in where, where fields alone are."""
        if not isinstance(one.term, model.Name) or self.catalog.has(self.table, one.term.text):
            return
        meant = plain(one.term.text)
        for selected in self.query.select:
            if selected.alias and plain(selected.alias) == meant:
                summed = isinstance(selected.term, model.Summary)
                raise BadArgument(
                    f"{one.at}.field",
                    f"{selected.alias} is a name given in select.",
                    hint="Groups are filtered in having." if summed else "Write the field itself.",
                )

    def _check_not_elsewhere(
        self, one: model.Condition, column: Column, values: tuple[Value, ...]
    ) -> None:
        """A word that another field tells would match nothing here, and say so to nobody."""
        for n, value in enumerate(values):
            if other := dict(column.field.elsewhere).get(str(value).casefold()):
                choices = self.catalog.tables[column.table].fields[other].choices
                raise BadArgument(
                    f"{one.at}.value[{n}]",
                    f"{column.name} is never {shown(value)}.",
                    hint=f"Use {other}, which is one of {', '.join(choices)}.",
                )


def _field(expression: Expression) -> Field:
    """What an expression holds, as if it were a field."""
    if isinstance(expression, Column):
        return expression.field
    return Field(_title(expression), expression.kind, "", expression.unit)


def _check_operator(one: model.Condition, field: Field) -> None:
    if not one.operator.fits(field.kind):
        fitting = ", ".join(op.value for op in Operator if op.fits(field.kind))
        raise BadArgument(
            f"{one.at}.operator",
            f"{one.operator} doesn't fit {field.name}, which is {article(field)}.",
            hint=f"Use one of {fitting}.",
        )
    least, most = one.operator.values
    if not least <= len(one.values) <= most:
        number = str(least) if least == most else f"{least} or more"
        raise BadArgument(
            f"{one.at}.value",
            f"{one.operator} takes {number} value{'' if least == 1 == most else 's'}, "
            f"not {len(one.values)}.",
            hint=_hint_for_number(one, field.kind),
        )


def _hint_for_number(one: model.Condition, kind: Kind) -> str:
    """What to do with a number of values that the operator doesn't take."""
    if one.operator is Operator.BETWEEN:
        return "Write [least, greatest]."
    if len(one.values) < 2 or one.operator.values == (0, 0):
        return ""
    several = one.operator.several(kind)
    return f"Use {several} for several." if several else "Write a condition for each."


def _check_bounds(one: model.Condition, bounds: tuple[Any, ...]) -> None:
    """Bounds the wrong way round hold nothing between them: nobody means that."""
    least, greatest = bounds
    if least > greatest:
        raise BadArgument(
            f"{one.at}.value",
            f"{shown(one.values[0])} is more than {shown(one.values[1])}.",
            hint="Write the lower bound first.",
        )


def _check_moments(one: model.Condition) -> None:
    """A date is its first second, and nobody means that alone."""
    for n, day in enumerate(one.values):
        if isinstance(day, str) and _DATE.fullmatch(day.strip()):
            raise BadArgument(
                f"{one.at}.value[{n}]",
                f"{shown(day)} is the first second of that day.",
                hint=f'For the whole day use BETWEEN ["{day.strip()}", "{day.strip()}T23:59:59"].',
            )


def _check_choices(one: model.Condition, field: Field, values: tuple[Value, ...]) -> None:
    for n, value in enumerate(values):
        if value not in field.choices:
            at = f"{one.at}.value[{n}]"
            raise unknown(at, f"{field.name}", str(value), field.choices)


def _check_of_group(expression: Expression, group_by: tuple[Column, ...], at: str) -> None:
    if isinstance(expression, Column) and _key(expression) not in {_key(one) for one in group_by}:
        raise BadArgument(
            at,
            f"{expression.name} differs within a group.",
            hint="Use an aggregate or a field of groupBy; single rows are filtered in where.",
        )


def _key(expression: Expression) -> object:
    """Two names of one field are the same expression."""
    if isinstance(expression, Column):
        return expression.path, expression.field.name
    column = expression.column and _key(expression.column)
    return expression.function, column, expression.distinct


def _title(expression: Expression) -> str:
    """What a column is called that the caller gave no name."""
    if isinstance(expression, Column):
        return expression.name
    name = expression.column.name if expression.column else "*"
    return f"{expression.function}({'DISTINCT ' if expression.distinct else ''}{name})"


def _functions_for(kind: Kind) -> str:
    return f"Use {', '.join(one.value for one in Function if one.fits(kind))}."
