"""What a caller can query: the tables they may see, with fields and relations, by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from pvemcp_server.errors import BadArgument
from pvemcp_server.query.names import plain, unknown
from pvemcp_server.tables.registry import Field, Kind, Relation, Table

CLUSTER: Final = Field("cluster", Kind.TEXT, "Cluster the row is from", nullable=False)
MOST_HOPS: Final = 3  # relations in one dotted name

Path = tuple[str, ...]
"""The names of the relations that lead from the queried table to another one."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field at the end of a path; `name` is how the answer calls it."""

    path: Path
    table: str
    field: Field
    name: str


@cache
def fields_of(table: Table) -> Mapping[str, Field]:
    """The table's fields, the cluster first."""
    return {CLUSTER.name: CLUSTER, **table.fields}


@cache
def _by_plain(table: Table) -> Mapping[str, tuple[str, Field]]:
    """Fields with the name that was meant, their own or a further one, by plain name."""
    names = ((name, one) for one in fields_of(table).values() for name in (one.name, *one.also))
    return {plain(name): (name, one) for name, one in names}


@dataclass(frozen=True)
class Catalog:
    """The tables that a caller may see; others don't exist for them."""

    tables: Mapping[str, Table]

    @cached_property
    def _tables_by_plain(self) -> Mapping[str, Table]:
        return {plain(name): table for name, table in self.tables.items()}

    def table(self, name: str, at: str) -> Table:
        """The table of that name; its singular is understood too."""
        found = self._find(name)
        if found is None:
            raise unknown(at, "table", name, self.tables)
        return found

    def _find(self, name: str) -> Table | None:
        known = self._tables_by_plain
        return known.get(plain(name)) or known.get(f"{plain(name)}s")

    def relations(self, table: Table) -> dict[str, Relation]:
        """The table's relations to tables that are visible too."""
        return {one.name: one for one in table.relations if one.table in self.tables}

    def column(self, table: Table, name: str, at: str) -> Column:
        """The field of that dotted name."""
        *hops, last = self._parts(table, name)
        if len(hops) > MOST_HOPS:
            raise BadArgument(at, f"at most {MOST_HOPS} relations in one name.")
        path: Path = ()
        for hop in hops:
            relation = self._relation(table, hop, at)
            table, path = self.tables[relation.table], (*path, relation.name)
        found = _by_plain(table).get(plain(last))
        if found is None:
            also = (one for field in table.fields.values() for one in field.also)
            same = [".".join((*path, one)) for one in self._in_related(table, last)]
            raise unknown(at, f"field of {table.name}", last, self._names(table), also, same)
        return Column(path, table.name, found[1], ".".join((*path, found[0])))

    def has(self, table: Table, name: str) -> bool:
        """Whether the table itself has a field of that name."""
        return plain(name) in _by_plain(table)

    def follow(self, table: Table, path: Path) -> Table:
        """The table at the end of a path."""
        for hop in path:
            table = self.tables[self.relations(table)[hop].table]
        return table

    def _parts(self, table: Table, name: str) -> list[str]:
        parts = [part.strip() for part in name.split(".")]
        redundant = len(parts) > 1 and plain(parts[0]) == plain(table.name)
        return parts[1:] if redundant else parts

    def _relation(self, table: Table, name: str, at: str) -> Relation:
        known = self.relations(table)
        found = {plain(one): relation for one, relation in known.items()}.get(plain(name))
        if found is None:
            self._refuse_many(table, name, at)
            raise unknown(at, f"relation of {table.name}", name, known)
        return found

    def _refuse_many(self, table: Table, name: str, at: str) -> None:
        """Of a table that leads here, any number of rows may belong to one of these."""
        other = self._find(name)
        back = (
            [one.name for one in self.relations(other).values() if one.table == table.name]
            if other
            else []
        )
        if other and back:
            raise BadArgument(
                at,
                f"one row of {table.name} can have many {other.name}.",
                hint=f"Ask from {other.name}, each of which leads here by {back[0]}.",
            )

    def _in_related(self, table: Table, name: str) -> Iterable[str]:
        """Where one relation leads to a field of that name."""
        for one in self.relations(table).values():
            if found := _by_plain(self.tables[one.table]).get(plain(name)):
                yield f"{one.name}.{found[0]}"

    def _names(self, table: Table) -> Iterable[str]:
        return (*fields_of(table), *(f"{one}.…" for one in self.relations(table)))
