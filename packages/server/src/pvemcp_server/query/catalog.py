"""The tables that a caller may query, with fields and relations looked up by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from pvemcp_server.errors import BadArgument, folded, nearest
from pvemcp_server.query.names import unknown_name
from pvemcp_server.query.operators import Span
from pvemcp_server.tables.registry import CLUSTER_FIELD, Relation, Table
from pvemcp_server.tables.rows import Field, Kind

CLUSTER: Final = Field(CLUSTER_FIELD, Kind.TEXT, "Cluster the row is from", nullable=False)
MAX_HOPS: Final = 3  # relations in one dotted name
_SUGGESTED: Final = 3
_SAME: Final = 0.85  # likeness of a table's own name, from which it precedes related fields
_STARTS: Final = frozenset(
    f"{word}{end}" for word in ("started", "booted") for end in ("", "at", "on", "time")
) | {"start", "starttime", "laststart", "laststarted", "boottime", "lastboot", "lastbooted"}

Path = tuple[str, ...]
"""The names of the relations that lead from the queried table to another one."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field at the end of a path; `name` is its name in the answer.

    A time may be rounded down to the start of a span, and a list may stand for each of its entries,
    of which the row then has one.
    """

    path: Path
    table: str
    field: Field
    name: str
    span: Span | None = None
    is_entry: bool = False


@cache
def fields_of(table: Table) -> Mapping[str, Field]:
    """Return the table's fields, the cluster first."""
    return {CLUSTER.name: CLUSTER, **table.fields}


@cache
def _fields_by_folded_name(table: Table) -> Mapping[str, tuple[str, Field]]:
    """Map folded names and aliases to the name as declared and its field."""
    names = (
        (name, field)
        for field in fields_of(table).values()
        for name in (field.name, *field.aliases)
    )
    return {folded(name): (name, field) for name, field in names}


def _longer_names(table: Table, name: str) -> list[str]:
    """Return the table's first fields that begin with this word: cpu_usage for `cpu`."""
    begins = [n for n in fields_of(table) if folded(n.partition("_")[0]) == folded(name)]
    return begins[:_SUGGESTED]


def _of_start(table: Table, name: str) -> list[str]:
    """Return uptime for the time at which something was started, which Proxmox does not report."""
    return ["uptime"] if folded(name) in _STARTS and "uptime" in table.fields else []


def _spans_of_times(table: Table, name: str) -> list[str]:
    """Return the times of the table rounded to the span that has this name: DAY(start_time)."""
    times = [field.name for field in table.fields.values() if field.kind is Kind.TIME]
    span = name.upper()
    return [f"{span}({time})" for time in times[:_SUGGESTED]] if span in tuple(Span) else []


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)


@dataclass(frozen=True)
class Catalog:
    """The tables that a caller may see; any other table is an unknown name."""

    tables: Mapping[str, Table]

    @cached_property
    def _by_folded_name(self) -> Mapping[str, Table]:
        return {folded(name): table for name, table in self.tables.items()}

    def table(self, name: str, at: str) -> Table:
        """Look up a table by its name or the singular of it; raise BadArgument."""
        table = self._find(name)
        if table is None:
            raise unknown_name(at, "table", name, self.tables)
        return table

    def relations(self, table: Table) -> dict[str, Relation]:
        """Return the table's relations to other visible tables."""
        return {
            relation.name: relation for relation in table.relations if relation.table in self.tables
        }

    def column(self, table: Table, name: str, at: str) -> Column:
        """Look up a field by its dotted name; raise BadArgument."""
        *hops, last = (part.strip() for part in name.split("."))
        if hops and folded(hops[0]) == folded(table.name):
            hops = hops[1:]
        if len(hops) > MAX_HOPS:
            raise BadArgument(at, f"at most {MAX_HOPS} relations in one name.")
        path: Path = ()
        for hop in hops:
            relation = self._relation(table, hop, at)
            table, path = self.tables[relation.table], (*path, relation.name)
        match = _fields_by_folded_name(table).get(folded(last))
        if match is None:
            known = (*fields_of(table), *(f"{hop}.…" for hop in self.relations(table)))
            aliases = (alias for field in table.fields.values() for alias in field.aliases)
            places = (
                *nearest(last, fields_of(table), likeness=_SAME),
                *_of_start(table, last),
                *_longer_names(table, last),
                *_spans_of_times(table, last),
                *self._related_fields(table, last),
            )
            suggestions = [".".join((*path, dotted)) for dotted in dict.fromkeys(places)]
            raise unknown_name(at, f"field of {table.name}", last, known, aliases, suggestions)
        declared, field = match
        return Column(path, table.name, field, ".".join((*path, declared)))

    def related_rows(
        self, table: Table, name: str, at: str
    ) -> tuple[Table, tuple[tuple[Column, Column], ...]]:
        """Look up rows to test for: a relation, or a table that has a relation to this one.

        The name is dotted: relations that lead to another row first, then the table, then its
        relation where several lead here ("replications.source_node"). Return the table and the
        pairs of columns that are equal here and there; raise BadArgument.
        """
        start = table
        path: Path = ()
        *hops, last = (part.strip() for part in name.split("."))
        if hops and folded(hops[0]) == folded(table.name):
            hops = hops[1:]
        while hops and (relation := self._relation_named(table, hops[0])):
            table, path, hops = self.tables[relation.table], (*path, relation.name), hops[1:]
        if len(path) > MAX_HOPS:
            raise BadArgument(at, f"at most {MAX_HOPS} relations in one name.")
        other = self._find(hops[0] if hops else last)
        back = self._back(other, table) if other else {}
        if not hops and (relation := self._relation_named(table, last)):
            other, on = self.tables[relation.table], relation.keys
        elif len(hops) < 2 and other and back:
            if hops:
                back = {n: on for n, on in back.items() if folded(n) == folded(last)} or back
            if len(back) > 1:
                fact = f"{other.name} belong to {table.name} in several ways."
                prefix = ".".join((*path, other.name))
                raise BadArgument(at, fact, hint=f"Use {_or(f'{prefix}.{n}' for n in back)}.")
            [on] = back.values()
        elif not hops and other and (relation := self._relation_to(table, other)):
            on = relation.keys
        else:
            raise self._no_related_rows(start, name, at)
        return other, tuple(
            (
                Column(path, table.name, fields_of(table)[here], ".".join((*path, here))),
                Column((), other.name, fields_of(other)[there], there),
            )
            for here, there in on.items()
        )

    def _no_related_rows(self, table: Table, name: str, at: str) -> BadArgument:
        """Build the error for rows that don't belong to the table's."""
        if self.has_field(table, name):
            return BadArgument(at, f"{name} is a field.", hint="Use IS NULL or IS NOT NULL.")
        other = self._find(name.rpartition(".")[2])
        near = [
            f"{relation.name}.{other.name}"
            for relation in self.relations(table).values()
            if other and self._back(other, self.tables[relation.table])
        ]
        many = [each.name for each in self.tables.values() if self._back(each, table)]
        known = [*many, *self.relations(table)]
        return unknown_name(at, f"rows that belong to {table.name}:", name, known, suggestions=near)

    def _back(self, other: Table, table: Table) -> dict[str, dict[str, str]]:
        """Return the relations that lead from the other table to this one, read backwards."""
        return {
            relation.name: {there: here for here, there in relation.keys.items()}
            for relation in self.relations(other).values()
            if relation.table == table.name
        }

    def _relation_named(self, table: Table, name: str) -> Relation | None:
        relations = self.relations(table).values()
        return next((each for each in relations if folded(each.name) == folded(name)), None)

    def _relation_to(self, table: Table, other: Table) -> Relation | None:
        relations = self.relations(table).values()
        return next((each for each in relations if each.table == other.name), None)

    def has_field(self, table: Table, name: str) -> bool:
        """Return whether the table itself has a field of that name."""
        return folded(name) in _fields_by_folded_name(table)

    def is_field(self, table: Table, name: str) -> bool:
        """Return whether the dotted name is that of a field."""
        try:
            self.column(table, name, "")
        except BadArgument:
            return False
        return True

    def follow(self, table: Table, path: Path) -> Table:
        """Return the table at the end of a path."""
        for hop in path:
            table = self.tables[self.relations(table)[hop].table]
        return table

    def _find(self, name: str) -> Table | None:
        return self._by_folded_name.get(folded(name)) or self._by_folded_name.get(
            f"{folded(name)}s"
        )

    def _relation(self, table: Table, name: str, at: str) -> Relation:
        relation = self._relation_named(table, name)
        if relation is None:
            self._refuse_to_many(table, name, at)
            raise unknown_name(at, f"relation of {table.name}", name, self.relations(table))
        return relation

    def _refuse_to_many(self, table: Table, name: str, at: str) -> None:
        """Raise BadArgument when the name is a table with a relation to this one.

        Many of its rows may belong to one row here, so the query has to start there.
        """
        other = self._find(name)
        if other is None:
            return
        for relation in self.relations(other).values():
            if relation.table == table.name:
                raise BadArgument(
                    at,
                    f"one row of {table.name} can have many {other.name}.",
                    hint=f"Ask from {other.name}, each of which leads here by {relation.name}; or "
                    f'test for them in where: {{"field": "{other.name}", "operator": "NOT EXISTS", '
                    '"conditions": [{"field": …}]}.',
                )

    def _related_fields(self, table: Table, name: str) -> Iterable[str]:
        """Find fields of that name one relation away."""
        for relation in self.relations(table).values():
            if match := _fields_by_folded_name(self.tables[relation.table]).get(folded(name)):
                yield f"{relation.name}.{match[0]}"
