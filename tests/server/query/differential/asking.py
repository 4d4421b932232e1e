"""Random valid queries: each as a model might write it, and what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from pvemcp_server.query.catalog import CLUSTER
from pvemcp_server.query.operators import Function, Operator
from pvemcp_server.tables.registry import Field, Kind, Table, Unit, tables

from .meaning import Cell, Comparison, Joint, Meaning, Total
from .worlds import NOW, TEXTS, World, cell

_COUNTED = {
    Function.COUNT: set(Kind),
    Function.SUM: {Kind.INTEGER, Kind.NUMBER},
    Function.AVERAGE: {Kind.INTEGER, Kind.NUMBER},
    Function.MIN: {Kind.INTEGER, Kind.NUMBER, Kind.TIME},
    Function.MAX: {Kind.INTEGER, Kind.NUMBER, Kind.TIME},
}
_UNITS = {"KiB": 10, "MiB": 20, "GiB": 30, "G": 30, "TiB": 40}


@dataclass
class Asker:
    """Makes queries about a world."""

    rng: Random
    world: World

    def query(self) -> tuple[dict[str, Any], Meaning]:
        """A query as written, and what it means."""
        table = tables()[self.rng.choice(sorted(tables()))]
        asked: dict[str, Any] = {self._key("from"): self._name(table.name)}
        meaning = Meaning(table.name)
        if self.rng.random() < 0.75:
            asked[self._key("where")], meaning.where = self._tree(table, 3)
        (self._grouped if self.rng.random() < 0.4 else self._rows)(table, asked, meaning)
        if self.rng.random() < 0.5:
            meaning.limit = self.rng.randint(1, 12)
            asked["limit"] = self._one_of(meaning.limit, str(meaning.limit))
        if self.rng.random() < 0.2:
            meaning.offset = asked["offset"] = self.rng.randint(0, 5)
        return asked, meaning

    def _rows(self, table: Table, asked: dict[str, Any], meaning: Meaning) -> None:
        cells = self._cells(table, self.rng.randint(1, 4))
        meaning.outputs = list(cells.items())
        asked["select"] = self._listed([self._dotted(one) for one in cells.values()])
        meaning.distinct = self.rng.random() < 0.2
        if meaning.distinct:
            asked[self._key("distinct")] = self._one_of(True, "true")
        sortable = self._cells(table, 2) if not meaning.distinct else cells
        picked = [one for one in sortable.values() if one.field.kind is not Kind.LIST]
        self._ordered([(self._dotted(one), one) for one in picked], asked, meaning)

    def _grouped(self, table: Table, asked: dict[str, Any], meaning: Meaning) -> None:
        keys = {
            name: one
            for name, one in self._cells(table, self.rng.randint(0, 2)).items()
            if one.field.kind is not Kind.LIST
        }
        totals = {f"n{n}": self._total(table) for n in range(self.rng.randint(1, 3))}
        meaning.grouped, meaning.group_by = True, list(keys.values())
        meaning.outputs = [*keys.items(), *totals.items()]
        asked["select"] = [self._dotted(one) for one in keys.values()] + [
            f"{self._written(one)} {self._one_of('as', 'AS')} {name}"
            for name, one in totals.items()
        ]
        if keys:
            asked[self._key("groupBy")] = self._listed([self._dotted(one) for one in keys.values()])
            if self.rng.random() < 0.5:
                asked[self._key("having")], meaning.having = self._having(totals)
        named = [(self._dotted(one), one) for one in keys.values()]
        named += [(self._one_of(name, self._written(one)), one) for name, one in totals.items()]
        self._ordered(named, asked, meaning)

    def _ordered(
        self, named: Sequence[tuple[str, Any]], asked: dict[str, Any], meaning: Meaning
    ) -> None:
        if not named or self.rng.random() < 0.3:
            return
        chosen = self.rng.sample(named, self.rng.randint(1, min(2, len(named))))
        entries = []
        for name, one in chosen:
            descending = self.rng.random() < 0.5
            meaning.order_by.append((one, descending))
            word = self._one_of(*(("desc", "DESC") if descending else ("asc", "Ascending")))
            entries.append(self._one_of({"field": name, "direction": word}, f"{name} {word}"))
        asked[self._key("orderBy")] = self._listed(entries)

    def _total(self, table: Table) -> Total:
        function = self.rng.choice(list(Function))
        if function is Function.COUNT and self.rng.random() < 0.3:
            return Total("COUNT", None)
        fitting = [
            one for one in self._cells(table, 12).values() if one.field.kind in _COUNTED[function]
        ]
        if not fitting:
            return Total("COUNT", None)
        one = self.rng.choice(fitting)
        distinct = function is Function.COUNT and one.field.kind is not Kind.LIST
        return Total(function.value, one, distinct and self.rng.random() < 0.5)

    def _having(self, totals: Mapping[str, Total]) -> tuple[Any, Joint]:
        name, one = self.rng.choice(sorted(totals.items()))
        as_field = Field("total", one.kind, "")
        value = self._sample(as_field) if one.kind is Kind.TIME else self.rng.randint(0, 6)
        operator = self.rng.choice([">", "<", ">=", "<=", "!=", "IS NULL", "IS NOT NULL"])
        values = () if "NULL" in operator else (value,)
        subject = self._one_of(name, self._written(one))
        asked = {"field": subject, "operator": operator, "value": self._spelled(as_field, values)}
        return {"conditions": [asked]}, Joint("and", (Comparison(one, operator, values),))

    def _tree(self, table: Table, depth: int) -> tuple[Any, Joint]:
        logic = self.rng.choice(("and", "or"))
        both = [
            self._tree(table, depth - 1)
            if depth > 1 and self.rng.random() < 0.3
            else self._comparison(table)
            for _ in range(self.rng.randint(1, 3))
        ]
        asked = {"conditions": [one for one, _ in both]}
        if logic == "or" or self.rng.random() < 0.5:
            asked[self._key("logic")] = self._one_of(logic, logic.upper())
        return asked, Joint(logic, tuple(one for _, one in both))

    def _comparison(self, table: Table) -> tuple[Any, Comparison]:
        one = next(iter(self._cells(table, 1).values()))
        operator = self.rng.choice([op for op in Operator if op.fits(one.field.kind)])
        least, most = operator.values
        number = self.rng.randint(least, min(most, 4))
        values = tuple(self._value(one, operator) for _ in range(number))
        if operator is Operator.BETWEEN:
            values = tuple(sorted(values, key=_compared))
        asked = {
            self._key("field"): self._dotted(one),
            self._key("operator"): self._operator(operator),
        }
        if values or self.rng.random() < 0.5:
            asked[self._key("value")] = self._spelled(one.field, values)
        return asked, Comparison(one, operator.value, values)

    def _cells(self, table: Table, number: int) -> dict[str, Cell]:
        """Fields of the table and of those it leads to, by the name in the answer."""
        found: dict[str, Cell] = {}
        for _ in range(number):
            path: tuple[str, ...] = ()
            at = table
            while at.relations and len(path) < 3 and self.rng.random() < 0.25:
                hop = self.rng.choice(at.relations)
                path, at = (*path, hop.name), tables()[hop.table]
            field = self.rng.choice([CLUSTER, *at.fields.values()])
            found[".".join((*path, field.name))] = Cell(path, field, at.name)
        return found

    def _value(self, one: Cell, operator: Operator) -> Any:
        """A value to compare with, more often than not one that occurs."""
        field = one.field
        if field.choices and operator.whole:
            return self.rng.choice(field.choices)
        if field.kind not in (Kind.TEXT, Kind.LIST):
            return self._sample(field, one)
        text = str(self._sample(field, one)) if field.kind is Kind.TEXT else self._entry(one)
        if operator.whole or self.rng.random() < 0.5:
            return text
        start = self.rng.randint(0, len(text))
        return text[start : start + 2]

    def _sample(self, field: Field, one: Cell | None = None) -> Any:
        """A value of the world, or any that the field may hold."""
        value = self._seen(one) if one and self.rng.random() < 0.5 else None
        while value is None:
            value = cell(self.rng, field)
        return value

    def _seen(self, one: Cell) -> Any:
        rows = self.world.rows.get(one.table, {})
        if one.field is CLUSTER or not any(rows.values()):
            return None
        some = self.rng.choice([known for known in rows.values() if known])
        return getattr(self.rng.choice(some), one.field.name)

    def _entry(self, one: Cell) -> str:
        entries = self._sample(one.field, one)
        return str(self.rng.choice(entries)) if entries else self.rng.choice(TEXTS)

    def _spelled(self, field: Field, values: Sequence[Any]) -> Any:
        """The values as somebody might write them: a list, or bare when there is one."""
        written = [self._spelling(field, one) for one in values]
        return written[0] if len(written) == 1 and self.rng.random() < 0.4 else written

    def _spelling(self, field: Field, value: Any) -> Any:
        match field.kind:
            case Kind.TEXT | Kind.LIST:
                return self._one_of(value, value.upper() if value.isascii() else value)
            case Kind.BOOLEAN:
                return self._one_of(value, "TRUE" if value else "no", 1 if value else 0)
            case Kind.TIME:
                ago = int((NOW - value) / timedelta(seconds=1))
                zoned = value.astimezone().isoformat()
                return self._one_of(f"{-ago:+}s", int(value.timestamp()), zoned, f"{value:%FT%TZ}")
        choices: list[Any] = [value, str(value)]
        if field.unit is Unit.PERCENT:
            choices.append(f"{value} %")
        if field.unit is Unit.BYTES:
            choices += [f"{value >> n}{u}" for u, n in _UNITS.items() if not value % (1 << n)]
        return self._one_of(*choices)

    def _dotted(self, one: Cell) -> str:
        # the table's further names would give the answer's column that name
        return ".".join(self._name(part) for part in (*one.path, one.field.name))

    def _written(self, one: Total) -> str:
        inner = self._dotted(one.cell) if one.cell else "*"
        name = self._one_of("AVG", "average") if one.function == "AVERAGE" else one.function
        return f"{name}({'distinct ' if one.distinct else ''}{inner})"

    def _operator(self, operator: Operator) -> str:
        word = operator.value
        return str(self._one_of(word, word.lower(), word.replace(" ", "_")))

    def _name(self, name: str) -> str:
        camel = "".join(part.capitalize() for part in name.split("_"))
        return str(self._one_of(name, name, name.upper(), camel))

    def _key(self, name: str) -> str:
        snake = {"groupBy": "group_by", "orderBy": "ORDER_BY"}
        return str(self._one_of(name, name, snake.get(name, name.upper())))

    def _listed(self, entries: list[Any]) -> Any:
        return entries[0] if len(entries) == 1 and self.rng.random() < 0.3 else entries

    def _one_of(self, *choices: Any) -> Any:
        return self.rng.choice(choices)


def _compared(value: Any) -> Any:
    """A value as it is put in order."""
    return value.casefold() if isinstance(value, str) else value
