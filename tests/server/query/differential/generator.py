"""Generator of random valid queries, each as a model might write it, with its meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

from pvemcp_server.query.catalog import CLUSTER, fields_of
from pvemcp_server.query.operators import Function, Operator, Span
from pvemcp_server.tables.registry import Table, tables
from pvemcp_server.tables.rows import Field, Kind, Unit

from .datasets import NOW, TEXTS, Dataset, random_value
from .reference import (
    AggregateReference,
    Comparison,
    ComparisonGroup,
    ExistenceReference,
    FieldReference,
    ReferenceQuery,
    Subject,
)

_NUMBERS = {Kind.INTEGER, Kind.NUMBER}
_KINDS = {
    Function.COUNT: set(Kind),
    Function.SUM: _NUMBERS,
    Function.AVERAGE: _NUMBERS,
    Function.MIN: _NUMBERS | {Kind.TIME},
    Function.MAX: _NUMBERS | {Kind.TIME},
    Function.SHARE: _NUMBERS,
}
_UNITS = {"KiB": 10, "MiB": 20, "GiB": 30, "G": 30, "TiB": 40}

Json = dict[str, Any]


@dataclass
class QueryGenerator:
    """Makes queries about a dataset; the same random state makes the same queries."""

    rng: Random
    dataset: Dataset

    def query(self) -> tuple[Json, ReferenceQuery]:
        """Return a query as written, and its meaning."""
        table = tables()[self.rng.choice(sorted(tables()))]
        query: Json = {self._key("from"): self._name(table.name)}
        reference = ReferenceQuery(table.name)
        if self.rng.random() < 0.75:
            query[self._key("where")], reference.where = self._conditions(table, 3)
        if self.rng.random() < 0.4:
            self._grouped(table, query, reference)
        else:
            self._plain(table, query, reference)
        if self.rng.random() < 0.5:
            reference.limit = self.rng.randint(1, 12)
            query["limit"] = self._one_of(reference.limit, str(reference.limit))
        if self.rng.random() < 0.2:
            reference.offset = query["offset"] = self.rng.randint(0, 5)
        return query, reference

    def _plain(self, table: Table, query: Json, reference: ReferenceQuery) -> None:
        fields = self._fields(table, self.rng.randint(1, 4))
        reference.outputs = list(fields.items())
        query["select"] = self._maybe_bare([self._dotted(field) for field in fields.values()])
        reference.distinct = self.rng.random() < 0.2
        if reference.distinct:
            query[self._key("distinct")] = self._one_of(True, "true")
        sortable = self._fields(table, 2) if not reference.distinct else fields
        keys = [field for field in sortable.values() if field.field.kind is not Kind.LIST]
        self._order([(self._dotted(field), field) for field in keys], query, reference)
        limited = keys if reference.distinct else self._fields(table, 2).values()
        scalars = [field for field in limited if field.field.kind is not Kind.LIST]
        self._limit_per(scalars, len(scalars), query, reference)

    def _grouped(self, table: Table, query: Json, reference: ReferenceQuery) -> None:
        keys = {
            name: field
            for name, field in self._fields(table, self.rng.randint(0, 2)).items()
            if field.field.kind is not Kind.LIST
        }
        lists = {n: f for n, f in self._fields(table, 6).items() if f.field.kind is Kind.LIST}
        if lists and self.rng.random() < 0.5:
            name, field = self.rng.choice(sorted(lists.items()))
            keys[name] = replace(field, is_entry=True)
        aggregates = {f"n{n}": self._aggregate(table) for n in range(self.rng.randint(1, 3))}
        reference.grouped, reference.group_by = True, list(keys.values())
        reference.outputs = [*keys.items(), *aggregates.items()]
        query["select"] = [self._dotted(field) for field in keys.values()] + [
            f"{self._spelled_aggregate(aggregate)} {self._one_of('as', 'AS')} {name}"
            for name, aggregate in aggregates.items()
        ]
        if keys:
            query[self._key("groupBy")] = self._maybe_bare(
                [self._dotted(field) for field in keys.values()]
            )
            if self.rng.random() < 0.5:
                query[self._key("having")], reference.having = self._having(aggregates)
        sortable: list[tuple[str, Subject]] = [(self._dotted(f), f) for f in keys.values()]
        sortable += [
            (self._one_of(name, self._spelled_aggregate(aggregate)), aggregate)
            for name, aggregate in aggregates.items()
        ]
        self._order(sortable, query, reference)
        self._limit_per(list(keys.values()), len(keys) - 1, query, reference)

    def _limit_per(
        self, fields: Sequence[FieldReference], most: int, query: Json, reference: ReferenceQuery
    ) -> None:
        if most < 1 or not reference.order_by or self.rng.random() < 0.5:
            return
        chosen, count = self.rng.sample(fields, self.rng.randint(1, most)), self.rng.randint(1, 3)
        reference.limit_per = (tuple(chosen), count)
        query[self._key("limitPer")] = {
            self._one_of("fields", "Field", "by"): self._maybe_bare(
                list(map(self._dotted, chosen))
            ),
            self._one_of("count", "limit"): self._one_of(count, str(count)),
        }

    def _order(
        self, sortable: Sequence[tuple[str, Subject]], query: Json, reference: ReferenceQuery
    ) -> None:
        if not sortable or self.rng.random() < 0.3:
            return
        entries = []
        for name, subject in self.rng.sample(sortable, self.rng.randint(1, min(2, len(sortable)))):
            descending = self.rng.random() < 0.5
            reference.order_by.append((subject, descending))
            word = self._one_of(*(("desc", "DESC") if descending else ("asc", "Ascending")))
            entries.append(self._one_of({"field": name, "direction": word}, f"{name} {word}"))
        query[self._key("orderBy")] = self._maybe_bare(entries)

    def _aggregate(self, table: Table) -> AggregateReference:
        function = self.rng.choice(list(Function))
        if function in (Function.COUNT, Function.SHARE) and self.rng.random() < 0.3:
            return AggregateReference(function.value, None)
        fields = self._fields(table, 12).values()
        fitting = [field for field in fields if field.field.kind in _KINDS[function]]
        if not fitting:
            return AggregateReference("COUNT", None)
        field = replace(self.rng.choice(fitting), span="")
        distinct = function is Function.COUNT and field.field.kind is not Kind.LIST
        return AggregateReference(function.value, field, distinct and self.rng.random() < 0.5)

    def _having(self, aggregates: Mapping[str, AggregateReference]) -> tuple[Json, ComparisonGroup]:
        name, aggregate = self.rng.choice(sorted(aggregates.items()))
        field = Field("total", aggregate.kind, "")
        is_time = aggregate.kind is Kind.TIME
        value = self._sample(field) if is_time else self.rng.randint(0, 6)
        operator = self.rng.choice([">", "<", ">=", "<=", "!=", "IS NULL", "IS NOT NULL"])
        values = () if "NULL" in operator else (value,)
        subject = self._one_of(name, self._spelled_aggregate(aggregate))
        condition = {"field": subject, "operator": operator, "value": self._spelled(field, values)}
        comparison = Comparison(aggregate, operator, values)
        return {"conditions": [condition]}, ComparisonGroup("and", (comparison,))

    def _conditions(self, table: Table, depth: int) -> tuple[Json, ComparisonGroup]:
        logic = self.rng.choice(("and", "or"))
        parts = [
            self._conditions(table, depth - 1)
            if depth > 1 and self.rng.random() < 0.3
            else self._existence(table, depth)
            if self.rng.random() < 0.15
            else self._condition(table)
            for _ in range(self.rng.randint(1, 3))
        ]
        group: Json = {"conditions": [written for written, _ in parts]}
        if logic == "or" or self.rng.random() < 0.5:
            group[self._key("logic")] = self._one_of(logic, logic.upper())
        return group, ComparisonGroup(logic, tuple(comparison for _, comparison in parts))

    def _existence(self, table: Table, depth: int) -> tuple[Json, Any]:
        """Return a test for rows with a relation to the table, or to a row it leads to."""
        path, at = self._path(table, 2)
        ways = [
            (other, f"{other.name}.{relation.name}", {t: h for h, t in relation.keys.items()})
            for other in tables().values()
            for relation in other.relations
            if relation.table == at.name
        ]
        ways += [(tables()[r.table], r.name, r.keys) for r in at.relations]
        if not ways:
            return self._condition(table)
        other, name, on = self.rng.choice(ways)
        several = sum(way[0] is other and "." in way[1] for way in ways) > 1
        if "." in name and not several and self.rng.random() < 0.7:
            name = other.name
        negated = self.rng.random() < 0.5
        condition: Json = {
            "field": ".".join(map(self._name, (*path, *name.split(".")))),
            "operator": self._spelled_operator(Operator.NOT_EXISTS if negated else Operator.EXISTS),
        }
        where = None
        if depth > 1 and self.rng.random() < 0.8:
            group, where = self._conditions(other, depth - 1)
            condition |= group
        fields = fields_of(at)
        keys = tuple((FieldReference(path, fields[h], at.name), t) for h, t in on.items())
        return condition, ExistenceReference(other.name, keys, negated, where)

    def _path(self, table: Table, longest: int) -> tuple[tuple[str, ...], Table]:
        """Return a path of relations, mostly the empty one, and the table at its end."""
        path: tuple[str, ...] = ()
        while table.relations and len(path) < longest and self.rng.random() < 0.25:
            hop = self.rng.choice(table.relations)
            path, table = (*path, hop.name), tables()[hop.table]
        return path, table

    def _condition(self, table: Table) -> tuple[Json, Comparison]:
        field = next(iter(self._fields(table, 1).values()))
        if self.rng.random() < 0.25:
            others = [f for f in self._fields(table, 12).values() if _are_comparable(f, field)]
            if others:
                return self._field_comparison(field, self.rng.choice(others))
        operator = self.rng.choice([op for op in Operator if op.fits(field.field.kind)])
        least, most = operator.arity
        number = self.rng.randint(least, min(most, 4))
        values = tuple(self._value(field, operator) for _ in range(number))
        if operator is Operator.BETWEEN:
            values = tuple(sorted(values, key=lambda v: v.casefold() if isinstance(v, str) else v))
        condition = {
            self._key("field"): self._dotted(field),
            self._key("operator"): self._spelled_operator(operator),
        }
        if values or self.rng.random() < 0.5:
            condition[self._key("value")] = self._spelled(field.field, values)
        return condition, Comparison(field, operator.value, values)

    def _field_comparison(
        self, field: FieldReference, other: FieldReference
    ) -> tuple[Json, Comparison]:
        signs = (
            ["=", "!="] if field.field.kind is Kind.BOOLEAN else ["=", "!=", ">", "<", ">=", "<="]
        )
        operator = self.rng.choice(signs)
        condition = {"field": self._dotted(field), "operator": operator}
        name = self._dotted(other)
        condition |= self._one_of(
            {"valueField": name}, {"value": {"field": name}}, {"value": [{"field": name}]}
        )
        return condition, Comparison(field, operator, (), other)

    def _fields(self, table: Table, number: int) -> dict[str, FieldReference]:
        """Return fields of the table and its relations, by their name in the answer."""
        fields: dict[str, FieldReference] = {}
        for _ in range(number):
            path, at = self._path(table, 3)
            field = self.rng.choice([CLUSTER, *at.fields.values()])
            spanned = field.kind is Kind.TIME and self.rng.random() < 0.4
            span = self.rng.choice(list(Span)).value if spanned else ""
            name = f"{span}{'.'.join((*path, field.name))}"
            fields[name] = FieldReference(path, field, at.name, span)
        return fields

    def _value(self, reference: FieldReference, operator: Operator) -> Any:
        """Return a value to compare with, more often than not one that occurs."""
        field = reference.field
        if field.choices and operator.is_equality:
            return self.rng.choice(field.choices)
        if field.kind is Kind.TEXT:
            text = str(self._sample(field, reference))
        elif field.kind is Kind.LIST:
            entries = self._sample(field, reference)
            text = str(self.rng.choice(entries)) if entries else self.rng.choice(TEXTS)
        else:
            return self._sample(field, reference)
        if operator.is_equality or self.rng.random() < 0.5:
            return text
        start = self.rng.randint(0, len(text))
        return text[start : start + 2]

    def _sample(self, field: Field, reference: FieldReference | None = None) -> Any:
        """Return a value of the dataset, or any that the field may hold."""
        value = None
        if reference and self.rng.random() < 0.5:
            rows = self.dataset.rows.get(reference.table, {})
            if field is not CLUSTER and any(rows.values()):
                some = self.rng.choice([cluster for cluster in rows.values() if cluster])
                value = getattr(self.rng.choice(some), field.name)
        while value is None:
            value = random_value(self.rng, field)
        return value

    def _spelled(self, field: Field, values: Sequence[Any]) -> Any:
        """Return the values as models write them: a list, or bare when there is one."""
        spellings = [self._spelling(field, value) for value in values]
        return spellings[0] if len(spellings) == 1 and self.rng.random() < 0.4 else spellings

    def _spelling(self, field: Field, value: Any) -> Any:
        match field.kind:
            case Kind.TEXT | Kind.LIST:
                return self._one_of(value, value.upper() if value.isascii() else value)
            case Kind.BOOLEAN:
                return self._one_of(value, "TRUE" if value else "no", 1 if value else 0)
            case Kind.TIME:
                ago = int((NOW - value) / timedelta(seconds=1))
                zoned = value.astimezone().isoformat()
                epoch = int(value.timestamp())
                forms = [f"{-ago:+}s", epoch, str(epoch), zoned, f"{value:%FT%TZ}"]
                forms += [f"{value:%d.%m.%Y %H:%M:%S}", f"{ago} seconds ago"][: 1 + (ago >= 0)]
                return self._one_of(*forms)
        choices: list[Any] = [value, str(value)]
        if field.unit is Unit.PERCENT:
            choices.append(f"{value} %")
        if field.unit is Unit.BYTES:
            choices += [f"{value >> n}{u}" for u, n in _UNITS.items() if not value % (1 << n)]
        return self._one_of(*choices)

    def _dotted(self, field: FieldReference) -> str:
        # no aliases here: they would name the column of the answer
        dotted = ".".join(self._name(part) for part in (*field.path, field.field.name))
        return f"{self._one_of(field.span, field.span.lower())}({dotted})" if field.span else dotted

    def _spelled_aggregate(self, aggregate: AggregateReference) -> str:
        inner = self._dotted(aggregate.field) if aggregate.field else "*"
        function = aggregate.function
        name = self._one_of("AVG", "average") if function == "AVERAGE" else function
        return f"{name}({'distinct ' if aggregate.distinct else ''}{inner})"

    def _spelled_operator(self, operator: Operator) -> str:
        word = operator.value
        return str(self._one_of(word, word.lower(), word.replace(" ", "_")))

    def _name(self, name: str) -> str:
        camel = "".join(part.capitalize() for part in name.split("_"))
        return str(self._one_of(name, name, name.upper(), camel))

    def _key(self, name: str) -> str:
        snake = {"groupBy": "group_by", "orderBy": "ORDER_BY", "limitPer": "limit_per"}
        return str(self._one_of(name, name, snake.get(name, name.upper())))

    def _maybe_bare(self, entries: list[Any]) -> Any:
        return entries[0] if len(entries) == 1 and self.rng.random() < 0.3 else entries

    def _one_of(self, *choices: Any) -> Any:
        return self.rng.choice(choices)


def _are_comparable(field: FieldReference, other: FieldReference) -> bool:
    def measure(reference: FieldReference) -> Any:
        unit = reference.field.unit
        if reference.field.kind in _NUMBERS:
            return None if unit is Unit.COUNT else unit
        return reference.field.kind

    return field.field.kind is not Kind.LIST and measure(field) == measure(other)
