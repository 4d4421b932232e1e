"""Tables: row classes and their loaders, declared once for tools, queries and documentation."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from inspect import cleandoc
from math import inf
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from proxmox_client.api.resources import GuestResource, StorageResource
from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.tables.reach import Reach


class Unit(StrEnum):
    """What a number or text measures; GetQuerySchema and the documentation say it per field."""

    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes/s"
    PERCENT = "percent 0-100"
    SECONDS = "seconds"
    MIB = "MiB"
    TIME = "ISO 8601 UTC"
    COUNT = "count"


class Kind(StrEnum):
    """The type of a field, as operators and GetQuerySchema know it."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    LIST = "list"


class Cost(StrEnum):
    """How many Proxmox calls loading the table takes, per cluster."""

    ONE = "one call"
    PER_NODE = "one call per node"
    PER_STORAGE = "one call per node and storage"
    PER_GUEST = "one call per guest"


@dataclass(frozen=True, slots=True)
class Col:
    """What a field is, beyond its Python type: `Annotated[int, Col("…", Unit.BYTES)]`.

    `also` are further names that queries know it by. `values` are all that it can be, where
    Proxmox has a closed set of them. `elsewhere` pairs words that people look for here with the
    field that tells them.
    """

    description: str
    unit: Unit | None = None
    also: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()


@dataclass_transform(
    frozen_default=True, kw_only_default=True
)  # msgspec inherits these, mypy doesn't
class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The base of row classes. `minimal` names the fields of detail level Minimal.

    `full` names those of detail level Full; both are in the order of the answer.
    """

    minimal: ClassVar[tuple[str, ...]] = ()
    full: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A column as declared: name, kind, unit, choices and description."""

    name: str
    kind: Kind
    description: str
    unit: Unit | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False
    also: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Relation:
    """A row of another table that belongs to a row of this one, reached by a dotted name.

    `on` pairs a field here with a field there; rows of different clusters never match.
    """

    name: str
    table: str
    on: Mapping[str, str]
    description: str


@dataclass(frozen=True, slots=True)
class Budget:
    """How many Proxmox calls loading may take, and until when (on the monotonic clock)."""

    calls: int = 2000
    until: float = inf


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a reader needs of a table, so that the loader asks Proxmox for no more.

    An empty set asks for all; `columns` is None when all columns are wanted. Text is compared
    without case. `states` rule nothing out: rows must be told apart by them, also where that takes
    further calls. A loader may return more rows than wanted, never fewer, but for `limit`: the
    newest of a list that has no end (tasks), and the budget, which a note then tells.
    """

    columns: frozenset[str] | None = None
    vmids: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()
    storages: frozenset[str] = frozenset()
    status: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()  # of tasks; of content on a storage
    since: datetime | None = None  # for tasks: started then or later
    limit: int | None = None
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        object.__setattr__(self, "vmids", frozenset(self.vmids))
        for name in ("nodes", "storages", "status", "states", "types"):
            object.__setattr__(self, name, frozenset(map(str.casefold, getattr(self, name))))

    def column(self, *names: str) -> bool:
        """Whether any of these columns is wanted."""
        return self.columns is None or not self.columns.isdisjoint(names)

    def vmid(self, vmid: int) -> bool:
        return not self.vmids or vmid in self.vmids

    def node(self, node: str) -> bool:
        return not self.nodes or node.casefold() in self.nodes

    def storage(self, storage: str) -> bool:
        return not self.storages or storage.casefold() in self.storages

    def state(self, status: str) -> bool:
        return not self.status or status.casefold() in self.status

    def type(self, name: str) -> bool:
        return not self.types or name.casefold() in self.types


ALL = LoadRequest()

Loader = Callable[[Cluster, LoadRequest], Awaitable[Sequence[Row]]]
Covered = Callable[[Reach, Any], Row | None]
"""The row as far as the reach covers it; None when it doesn't."""


Placed = GuestResource | StorageResource


def _never(_want: LoadRequest) -> bool:
    return False


LooksFiltered = Callable[[str, Sequence[Any]], bool]
"""Whether an account's rows look as if Proxmox left out what a missing privilege hides."""


def _no_rows(_account: str, rows: Sequence[Any]) -> bool:
    return not rows


def never_filtered(_account: str, _rows: Sequence[Any]) -> bool:
    """Return False: without the privilege, Proxmox refuses to list these rows at all."""
    return False


@dataclass(frozen=True, eq=False)
class Table:
    """A row class, its loader, what it costs and which tool's grants bound it."""

    name: str
    row: type[Row]
    load: Loader
    cost: Cost
    tool: str  # a caller reads of this table what this tool would show them
    covered: Covered
    relations: tuple[Relation, ...] = ()
    description: str = ""
    of_inventory: bool = False  # rows come from the inventory alone, but for the `extra` columns
    beyond: Callable[[LoadRequest], bool] = (
        _never  # whether a LoadRequest asks for more than the inventory has
    )
    extra: frozenset[str] = frozenset()  # columns that take further calls
    pushed: Mapping[str, str] = field(
        default_factory=dict
    )  # fields by which LoadRequest narrows it
    last_known: Callable[[InventoryView], Iterable[Placed]] | None = None
    """What Proxmox goes on telling of nodes that are offline, as they said it last."""
    looks_filtered: LooksFiltered = _no_rows
    once: str = ""
    """The field that is true on one of the rows that several nodes have of the same thing."""

    @cached_property
    def fields(self) -> dict[str, Field]:
        return fields_of(self.row)


NARROWED: Mapping[str, str] = {"vmid": "vmids", "node": "nodes", "storage": "storages"}
"""What most loaders understand: a field of the row, and what of LoadRequest it is."""

_TABLES: dict[str, Table] = {}


def table(
    name: str,
    *,
    tool: str,
    cost: Cost,
    covered: Covered,
    relations: Iterable[Relation] = (),
    of_inventory: bool = False,
    beyond: Callable[[LoadRequest], bool] = _never,
    extra: Iterable[str] = (),
    pushed: Mapping[str, str] = NARROWED,
    last_known: Callable[[InventoryView], Iterable[Placed]] | None = None,
    looks_filtered: LooksFiltered = _no_rows,
    once: str = "",
) -> Callable[[Callable[[Cluster, LoadRequest], Awaitable[Sequence[Any]]]], Table]:
    """Declare a table: its loader is decorated, its row class is the loader's list item type."""

    def declare(load: Callable[[Cluster, LoadRequest], Awaitable[Sequence[Any]]]) -> Table:
        row = get_args(get_type_hints(load)["return"])[0]
        declared = Table(
            name=name,
            row=row,
            load=load,
            cost=cost,
            tool=tool,
            covered=covered,
            relations=tuple(relations),
            description=cleandoc(load.__doc__ or ""),
            of_inventory=of_inventory,
            beyond=beyond,
            extra=frozenset(extra),
            pushed=pushed,
            last_known=last_known,
            looks_filtered=looks_filtered,
            once=once,
        )
        _TABLES[name] = declared
        return declared

    return declare


def tables() -> Mapping[str, Table]:
    """All declared tables by name."""
    return _TABLES


def fields_of(row: type[Row]) -> dict[str, Field]:
    """The columns of a row class, in order of declaration."""
    hints = get_type_hints(row, include_extras=True)
    return {name: _field(name, hints[name]) for name in row.__struct_fields__}


_KINDS: dict[Any, Kind] = {
    str: Kind.TEXT,
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    datetime: Kind.TIME,
}


def _field(name: str, hint: Any) -> Field:
    plain, col = _split(hint)
    variants = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    nullable = type(None) in variants
    kind, choices = _kind(next(one for one in variants if one is not type(None)))
    choices = col.values or choices
    return Field(name, kind, col.description, col.unit, choices, nullable, col.also, col.elsewhere)


def _split(hint: Any) -> tuple[Any, Col]:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{hint}: annotate the field with Col(description)")
    plain, *extras = get_args(hint)
    return plain, next(one for one in extras if isinstance(one, Col))


def _kind(plain: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(plain) is Literal:
        return Kind.TEXT, get_args(plain)
    if get_origin(plain) in (list, tuple, dict) or plain in (list, tuple, dict):
        return Kind.LIST, ()
    return _KINDS[plain], ()
