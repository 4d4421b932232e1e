"""Binds a parsed query to the declared tables: looks up names, converts values, checks meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pvemcp_server.errors import BadArgument, folded
from pvemcp_server.query import model
from pvemcp_server.query.catalog import Catalog, Column, fields_of
from pvemcp_server.query.names import UnknownWord, abbreviated, joined, unknown_name
from pvemcp_server.query.operators import Function, Operator
from pvemcp_server.query.parser import parse
from pvemcp_server.query.plan import (
    Aggregate,
    Existence,
    Expression,
    LimitPer,
    Output,
    Predicate,
    PredicateGroup,
    QueryPlan,
    Sort,
)
from pvemcp_server.query.values import Value, convert, day_of, reading_of, type_name
from pvemcp_server.settings import DEFAULT_ROWS
from pvemcp_server.tables.registry import Table
from pvemcp_server.tables.rows import Field, Kind, Unit


def bind(query: model.Query, catalog: Catalog, now: datetime) -> QueryPlan:
    """Return the plan of a query; raise BadArgument with the place and the next step."""
    table = catalog.table(query.table, "from")
    return _Binder(catalog, table, query, now).plan()


def is_valid(query: object, catalog: Catalog, now: datetime) -> bool:
    """Return whether the catalog has everything that a query names."""
    try:
        bind(parse(query), catalog, now)
    except BadArgument:
        return False
    return True


@dataclass
class _Binder:
    catalog: Catalog
    table: Table
    query: model.Query
    now: datetime
    entries: list[Column] = field(default_factory=list)  # lists that rows are grouped by

    def plan(self) -> QueryPlan:
        self._require_known_fields()
        query = self.query
        group_by = tuple(
            self._group(self._aliased(term), f"groupBy[{n}]")
            for n, term in enumerate(query.group_by)
        )
        where = self._predicates(query.where, {}, None) if query.where else None
        self.entries = [column for column in group_by if column.is_entry]
        if len(self.entries) > 1:
            names = " and ".join(column.name for column in self.entries)
            raise BadArgument("groupBy", f"{names} are lists.", hint="Group by one of them.")
        outputs = self._outputs(group_by)
        grouped = bool(group_by) or any(isinstance(o.expression, Aggregate) for o in outputs)
        if query.having and not group_by:
            raise BadArgument("having", "it filters groups.", hint="Add groupBy, or use where.")
        if grouped:
            self._require_same_in_groups(outputs, group_by)
        named = {folded(output.name): output.expression for output in outputs}
        having = self._predicates(query.having, named, group_by) if query.having else None
        order_by = tuple(self._sort(key, named, grouped, group_by) for key in query.order_by)
        if query.distinct:
            _require_selected(order_by, outputs)
        limit_per = self._limit_per(query.limit_per, outputs, group_by) if query.limit_per else None
        return QueryPlan(
            table=self.table,
            outputs=outputs,
            where=where,
            grouped=grouped,
            group_by=group_by,
            having=having,
            order_by=order_by,
            limit_per=limit_per,
            distinct=query.distinct,
            limit=query.limit or DEFAULT_ROWS,
            offset=query.offset,
        )

    def _require_same_in_groups(
        self, outputs: Sequence[Output], group_by: Sequence[Column]
    ) -> None:
        """Raise BadArgument for a selected column that rows of one group may differ in."""
        groups = set(map(_identity, group_by))
        for n, output in enumerate(outputs):
            expression = output.expression
            if isinstance(expression, Column) and _identity(expression) not in groups:
                raise BadArgument(
                    f"select[{n}]",
                    f"{output.name} differs within a group.",
                    hint="Leave groupBy out: limitPer needs none."
                    if self.query.limit_per
                    else f"Add {output.name} to groupBy, or aggregate it.",
                )

    def _require_known_fields(self) -> None:
        """Raise one BadArgument if several names are unknown; a single one is raised in its place.

        Names that select gives with "as" are no fields.
        """
        aliases = {folded(s.alias) for s in self.query.select if s.alias}
        unknown: dict[str, UnknownWord] = {}
        for term, at in model.terms(self.query):
            field = term if isinstance(term, model.FieldTerm) else term.field
            if field is None or folded(field.name) in {*aliases, *unknown}:
                continue
            try:
                self.catalog.column(self.table, field.name, at)
            except UnknownWord as error:
                unknown[folded(field.name)] = error
            except BadArgument:
                return  # raised where it is bound
        if len(unknown) > 1:
            raise joined(list(unknown.values()))

    def _outputs(self, group_by: tuple[Column, ...]) -> tuple[Output, ...]:
        """Return the selected columns; without select the groups or the table's main fields."""
        if not self.query.select and group_by:
            return tuple(Output(column.name, column) for column in group_by)
        fields, table = fields_of(self.table), self.table
        if self.query.everything:
            names = [name for name in fields if name not in table.extra]
        else:
            names = ["cluster", *table.row.minimal]
        if not self.query.select:
            return tuple(Output(n, Column((), table.name, fields[n], n)) for n in names)
        outputs: dict[str, Output] = {}
        for selection in self.query.select:
            expression = self._expression(selection.term, selection.at)
            name = selection.alias or _title(expression)
            if name in outputs:
                raise BadArgument(selection.at, f"there are two columns {name}.", hint='Use "as".')
            outputs[name] = Output(name, expression)
        return tuple(outputs.values())

    def _expression(self, term: model.Term, at: str) -> Expression:
        if isinstance(term, model.FieldTerm):
            return self._column(term, at)
        if term.field is None:
            return Aggregate(term.function, None)
        column = self.catalog.column(self.table, term.field.name, at)
        kind = column.field.kind
        if not term.function.fits(kind):
            fitting = ", ".join(function.value for function in Function if function.fits(kind))
            raise BadArgument(
                at,
                f"no {term.function} of {column.name}, which is {type_name(column.field)}.",
                hint=f"Use {fitting}.",
            )
        if term.distinct and kind is Kind.LIST:
            raise BadArgument(at, f"{column.name} is a list: its entries can't be counted so.")
        return Aggregate(term.function, column, term.distinct)

    def _column(self, term: model.FieldTerm, at: str) -> Column:
        column = self.catalog.column(self.table, term.name, at)
        if term.span is None:
            same = (entry for entry in self.entries if _identity(entry) == _identity(column))
            return next(same, column)
        if column.field.kind is not Kind.TIME:
            fact = f"{term.span} takes a time, and {column.name} is {type_name(column.field)}."
            raise BadArgument(at, fact)
        return replace(column, name=f"{term.span}({column.name})", span=term.span)

    def _aliased(self, term: model.FieldTerm) -> model.FieldTerm:
        """Return the field that select gives this name, unless it is the name of a field."""
        if term.span or self.catalog.has_field(self.table, term.name):
            return term
        for selection in self.query.select:
            named = selection.alias and folded(selection.alias) == folded(term.name)
            if named and isinstance(selection.term, model.FieldTerm):
                return selection.term
        return term

    def _group(self, term: model.FieldTerm, at: str) -> Column:
        column = self._column(term, at)
        if column.field.kind is not Kind.LIST:
            return column
        entry = Field(column.field.name, Kind.TEXT, column.field.description, nullable=True)
        return replace(column, field=entry, is_entry=True)

    def _sort(
        self,
        key: model.SortKey,
        named: Mapping[str, Expression],
        grouped: bool,
        group_by: tuple[Column, ...],
    ) -> Sort:
        expression = self._named_expression(key.term, named, key.at)
        if grouped:
            _require_grouped(expression, group_by, key.at)
        elif isinstance(expression, Aggregate):
            raise BadArgument(key.at, "there are no groups to sort by this.", hint="Add groupBy.")
        if isinstance(expression, Column) and expression.field.kind is Kind.LIST:
            raise BadArgument(key.at, f"{expression.name} is a list and has no order.")
        return Sort(expression, key.descending)

    def _limit_per(
        self, limit: model.LimitPer, outputs: tuple[Output, ...], group_by: tuple[Column, ...]
    ) -> LimitPer:
        """Bind limitPer: its fields have one value in each row of the answer."""
        if not self.query.order_by:
            hint = 'For example "orderBy": [{"field": "memory_usage", "direction": "desc"}].'
            raise BadArgument("limitPer", "orderBy has to say which rows come first.", hint=hint)
        named = {folded(output.name): output.expression for output in outputs}
        selected = {_identity(output.expression) for output in outputs}
        groups = set(map(_identity, group_by))
        columns: list[Column] = []
        for n, term in enumerate(limit.fields):
            at = f"limitPer.fields[{n}]"
            column = self._named_expression(term, named, at)
            if not isinstance(column, Column):
                raise BadArgument(at, "it is a field, not an aggregate.")
            if column.field.kind is Kind.LIST:
                raise BadArgument(at, f"{column.name} is a list.", hint="Add it to groupBy first.")
            if groups and _identity(column) not in groups:
                fact = f"{column.name} differs within a group."
                raise BadArgument(at, fact, hint="Use fields of groupBy, or leave groupBy out.")
            if self.query.distinct and _identity(column) not in selected:
                raise BadArgument(at, "distinct rows are limited by what is selected only.")
            columns.append(column)
        aggregated = any(isinstance(output.expression, Aggregate) for output in outputs)
        if (aggregated or groups) and groups <= set(map(_identity, columns)):
            names = ", ".join(column.name for column in columns)
            raise BadArgument(
                "limitPer",
                f"there is one row for each {names} already.",
                hint="Leave groupBy and aggregates out for the rows themselves, or group by more.",
            )
        return LimitPer(tuple(columns), limit.count)

    def _named_expression(
        self, term: model.Term, named: Mapping[str, Expression], at: str
    ) -> Expression:
        """Look up a name of orderBy or having: a column of the answer first, then a field."""
        if isinstance(term, model.FieldTerm) and not term.span and folded(term.name) in named:
            return named[folded(term.name)]
        return self._expression(term, at)

    def _predicates(
        self,
        group: model.ConditionGroup,
        named: Mapping[str, Expression],
        group_by: tuple[Column, ...] | None,
    ) -> PredicateGroup:
        """Bind a condition tree; `group_by` is None for where."""
        parts = (
            self._predicates(part, named, group_by)
            if isinstance(part, model.ConditionGroup)
            else self._existence(part, group_by)
            if isinstance(part, model.Existence)
            else self._predicate(part, named, group_by)
            for part in group.parts
        )
        return PredicateGroup(group.logic, tuple(parts))

    def _existence(self, test: model.Existence, group_by: tuple[Column, ...] | None) -> Existence:
        if group_by is not None:
            raise BadArgument(test.at, "groups have no related rows.", hint="Test rows in where.")
        table, keys = self.catalog.related_rows(self.table, test.rows, f"{test.at}.field")
        inner = _Binder(self.catalog, table, model.Query(table.name, where=test.where), self.now)
        inner._require_known_fields()
        where = inner._predicates(test.where, {}, None) if test.where else None
        return Existence(keys, QueryPlan(table, (), where=where), test.negated)

    def _predicate(
        self,
        condition: model.Condition,
        named: Mapping[str, Expression],
        group_by: tuple[Column, ...] | None,
    ) -> Predicate:
        at, operator = condition.at, condition.operator
        if group_by is None:
            self._refuse_alias(condition)
        expression = self._named_expression(condition.term, named, f"{at}.field")
        if group_by is not None:
            _require_grouped(expression, group_by, f"{at}.field")
        elif isinstance(expression, Aggregate):
            raise BadArgument(f"{at}.field", "groups are filtered in having.")
        field = _field_of(expression)
        if condition.other is not None:
            other = self._named_expression(condition.other, named, f"{at}.valueField")
            if group_by is not None:
                _require_grouped(other, group_by, f"{at}.valueField")
            elif isinstance(other, Aggregate):
                raise BadArgument(f"{at}.valueField", "groups are filtered in having.")
            _check_comparison(condition, field, _field_of(other))
            return Predicate(expression, operator, (), other)
        _check_operator(condition, field)
        values = tuple(
            self._value(value, field, f"{at}.value[{n}]")
            for n, value in enumerate(condition.values)
        )
        if operator.is_equality:
            self._check_equality(condition, expression, field, values)
            return self._by_meaning(Predicate(expression, operator, values))
        if operator is Operator.BETWEEN:
            _check_bounds(condition, values)
        readings = dict.fromkeys(reading_of(value, field) for value in condition.values)
        reading = " ".join(filter(None, readings))
        return Predicate(expression, operator, values, reading=reading)

    def _value(self, value: Any, field: Field, at: str) -> Value:
        try:
            return convert(value, field, at, self.now)
        except BadArgument as error:
            if isinstance(value, str) and self.catalog.is_field(self.table, value):
                hint = f'Write "valueField": "{value}" instead of value.'
                raise BadArgument(at, f"{value} is a field.", hint=hint) from error
            raise

    def _by_meaning(self, test: Predicate) -> Predicate:
        """Put the values that people mean in place of words such as vm, backup or ceph."""
        column = test.expression
        if not isinstance(column, Column) or not column.field.meanings:
            return test
        meant = {value: column.field.values_for(str(value)) for value in test.values}
        values = tuple(dict.fromkeys(value for several in meant.values() for value in several))
        readings = (
            f"{column.name} {word!r} stands for {', '.join(several)}."
            for word, several in meant.items()
            if len(several) > 1
        )
        operator = test.operator
        if len(values) > 1:
            operator = operator.for_many(column.field.kind) or operator
        return Predicate(column, operator, values, reading=" ".join(readings))

    def _refuse_alias(self, condition: model.Condition) -> None:
        """Raise BadArgument for a name defined in select: where knows fields only."""
        term = condition.term
        if not isinstance(term, model.FieldTerm) or self.catalog.has_field(self.table, term.name):
            return
        for selection in self.query.select:
            if selection.alias and folded(selection.alias) == folded(term.name):
                aggregate = isinstance(selection.term, model.AggregateTerm)
                raise BadArgument(
                    f"{condition.at}.field",
                    f"{selection.alias} is a name given in select.",
                    hint="Groups are filtered in having."
                    if aggregate
                    else "Write the field itself.",
                )

    def _check_equality(
        self,
        condition: model.Condition,
        expression: Expression,
        field: Field,
        values: tuple[Value, ...],
    ) -> None:
        """Reject values that the field can never equal: an empty answer would give no reason.

        These are values outside of the field's choices, values that another field holds, and
        dates, which are the first second of their day.
        """
        redirects = dict(field.redirects) if isinstance(expression, Column) else {}
        for n, (source, value) in enumerate(zip(condition.values, values, strict=True)):
            at = f"{condition.at}.value[{n}]"
            meant = {choice.casefold() for choice in field.values_for(str(value))}
            if field.choices and not meant <= {choice.casefold() for choice in field.choices}:
                raise unknown_name(at, field.name, str(value), field.choices)
            spanned = isinstance(expression, Column) and expression.span
            is_day = field.kind is Kind.TIME and isinstance(source, str) and not spanned
            if is_day and (day := day_of(source, self.now)):
                raise BadArgument(
                    at,
                    f"{abbreviated(source)} is the first second of that day.",
                    hint=f'For the whole day use BETWEEN ["{day}", "{day}T23:59:59"].',
                )
            if isinstance(expression, Column) and (other := redirects.get(str(value).casefold())):
                choices = self.catalog.tables[expression.table].fields[other].choices
                raise BadArgument(
                    at,
                    f"{expression.name} is never {abbreviated(value)}.",
                    hint=f"Use {other}, which is one of {', '.join(choices)}.",
                )


def _field_of(expression: Expression) -> Field:
    """Return the field of a column, or one with the kind and unit of an aggregate."""
    if isinstance(expression, Column):
        return expression.field
    return Field(_title(expression), expression.kind, "", expression.unit)


def _check_comparison(condition: model.Condition, field: Field, other: Field) -> None:
    """Check that two fields can be compared by the operator: equal kinds and units."""
    at, operator = condition.at, condition.operator
    if condition.values:
        raise BadArgument(f"{at}.valueField", "either value or valueField.")
    fitting = [known for known in Operator if known.compares_fields and known.fits(field.kind)]
    if operator not in fitting:
        names = ", ".join(each.value for each in fitting)
        raise BadArgument(
            f"{at}.operator",
            f"{operator} doesn't compare {field.name}, {type_name(field)}, with a field.",
            hint=f"Use one of {names}." if names else "Compare it with values.",
        )
    if _measure(field) != _measure(other):
        fact = f"{other.name} is {type_name(other)}, and {field.name} {type_name(field)}."
        raise BadArgument(f"{at}.valueField", fact, hint="Compare fields of one type and unit.")


def _measure(field: Field) -> object:
    """Return a key that is equal for fields that can be compared with each other."""
    if field.kind in (Kind.INTEGER, Kind.NUMBER):
        return None if field.unit is Unit.COUNT else field.unit
    return field.kind


def _check_operator(condition: model.Condition, field: Field) -> None:
    """Check that the operator fits the field and gets the right number of values."""
    operator, number = condition.operator, len(condition.values)
    if not operator.fits(field.kind):
        fitting = ", ".join(known.value for known in Operator if known.fits(field.kind))
        raise BadArgument(
            f"{condition.at}.operator",
            f"{operator} doesn't fit {field.name}, which is {type_name(field)}.",
            hint=f"Use one of {fitting}.",
        )
    least, most = operator.arity
    if least <= number <= most:
        return
    hint = ""
    if operator is Operator.BETWEEN:
        hint = "Write [least, greatest]."
    elif number > 1 and most > 0:
        for_many = operator.for_many(field.kind)
        hint = f"Use {for_many} for several." if for_many else "Write a condition for each."
    expected = str(least) if least == most else f"{least} or more"
    values = "value" if least == 1 == most else "values"
    fact = f"{operator} takes {expected} {values}, not {number}."
    raise BadArgument(f"{condition.at}.value", fact, hint=hint)


def _check_bounds(condition: model.Condition, bounds: tuple[Any, ...]) -> None:
    """Reject BETWEEN with reversed bounds: it can never match."""
    if bounds[0] > bounds[1]:
        least, greatest = map(abbreviated, condition.values)
        fact = f"{least} is more than {greatest}."
        raise BadArgument(f"{condition.at}.value", fact, hint="Write the lower bound first.")


def _require_grouped(expression: Expression, group_by: tuple[Column, ...], at: str) -> None:
    """Raise BadArgument for a field that has many values in one group."""
    if not isinstance(expression, Column):
        return
    if _identity(expression) not in map(_identity, group_by):
        raise BadArgument(
            at,
            f"{expression.name} differs within a group.",
            hint="Use an aggregate or a field of groupBy; single rows are filtered in where.",
        )


def _require_selected(order_by: Sequence[Sort], outputs: Sequence[Output]) -> None:
    """Raise BadArgument for a sort key that distinct rows do not have."""
    selected = {_identity(output.expression) for output in outputs}
    for n, sort in enumerate(order_by):
        if _identity(sort.expression) not in selected:
            fact = "distinct rows are sorted by what is selected only."
            raise BadArgument(f"orderBy[{n}]", fact)


def _identity(expression: Expression) -> object:
    """Return a key that is equal for the same expression under two names."""
    if isinstance(expression, Column):
        return expression.path, expression.field.name, expression.span
    column = expression.column and _identity(expression.column)
    return expression.function, column, expression.distinct


def _title(expression: Expression) -> str:
    """Return the name of a column of the answer that the query gives no alias."""
    if isinstance(expression, Column):
        return expression.name
    name = expression.column.name if expression.column else "*"
    return f"{expression.function}({'DISTINCT ' if expression.distinct else ''}{name})"
