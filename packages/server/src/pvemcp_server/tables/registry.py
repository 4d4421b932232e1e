"""Tables: declared once for tools, queries and documentation, and loaded within a scope."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from inspect import cleandoc
from math import inf
from typing import Any, Final, TypeVar, get_args, get_type_hints

from proxmox_client import tolerate_malformed
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from pvemcp_server.clusters import Cluster, InventoryView, offload
from pvemcp_server.clusters.cluster import MANY
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.reach import Reach, of_everything
from pvemcp_server.tables.rows import Field, Row, fields_of

MOST_CALLS: Final = 2_000
"""Proxmox calls of one tool call to all clusters: about 20 s of a busy process."""
_LONGEST_WAIT: Final = 5.0  # seconds for what other clusters leave of their shares
CLUSTER_FIELD: Final = "cluster"  # each row of a query has it
PVE_ONLY: Final = frozenset({ClusterKind.PVE})
PBS_ONLY: Final = frozenset({ClusterKind.PBS})
EVERY_KIND: Final = frozenset(ClusterKind)
_NODES: Final = 20  # that a note names
_LAST_KNOWN = "rows there show the last known values."
_LAST_KNOWN_EXCEPT = "rows there show the last known values, or that the state is unknown."
_NEVER_KNOWN = "state and use of the rows there are unknown, and so is what is empty in them."

log = logging.getLogger(__name__)


class Cost(StrEnum):
    """The number of Proxmox calls that loading a table takes, per cluster."""

    ONE = "one call"
    PER_NODE = "one call per node"
    PER_STORAGE = "one call per node and storage"
    PER_DISK = "one call per node and physical disk"
    PER_GUEST = "one call per guest"
    PER_NAMESPACE = "one call per datastore and namespace"


@dataclass(frozen=True, eq=False)
class Relation:
    """A to-one relation: at most one row of another table, reached by a dotted name.

    `on` pairs a field here with a field there; rows of different clusters never match, unless it
    pairs a field here with the cluster there.
    """

    name: str
    table: str
    on: Mapping[str, str]
    description: str

    @property
    def crosses_clusters(self) -> bool:
        return CLUSTER_FIELD in self.on.values()

    @property
    def keys(self) -> dict[str, str]:
        """The pairs of fields that are equal, with those that hold the clusters."""
        own = {} if self.crosses_clusters else {CLUSTER_FIELD: CLUSTER_FIELD}
        return {**own, **self.on}


@dataclass(eq=False)
class Shares:
    """The Proxmox calls of one tool call, for all its tables, shared fairly among its clusters.

    While tables are loaded, each of their clusters has a share that no other one uses up. What is
    left of it when a cluster has all its rows is for those that need more.
    """

    left: int = MOST_CALLS
    _reserved: dict[str, int] = field(default_factory=dict)  # by cluster that loads
    _loading: Counter[str] = field(default_factory=Counter)  # tables
    _waiting: set[str] = field(default_factory=set)  # clusters that have used up their share
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, clusters: Iterable[str]) -> None:
        """Divide the calls that are left among clusters that begin to load.

        A cluster is named once for each of its tables; call `end` for each of them.
        """
        self._loading.update(list(clusters))  # a mapping would be counts
        share = self.left // max(1, len(self._loading))
        self._reserved = dict.fromkeys(self._loading, share)

    def end(self, cluster: str) -> None:
        """Give back what is left of the cluster's share, when it has loaded all its tables."""
        self._loading[cluster] -= 1
        if self._loading[cluster] <= 0:
            del self._loading[cluster]
            self._reserved.pop(cluster, None)
        self._note_change()

    async def take(self, cluster: str, keys: int, per_key: int = 1) -> int:
        """Take calls for at most so many keys; return for how many there are any.

        If only shares of clusters that still load are left, wait a few seconds for their ends. When
        all clusters wait, nothing comes any more.
        """
        taken = self._take(cluster, keys, per_key)
        if taken or not keys or self.left < per_key:
            return taken
        self._waiting.add(cluster)
        self._note_change()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_WAIT):
                    while not taken and self._loading.keys() - self._waiting:
                        await self._changed.wait()
                        taken = self._take(cluster, keys, per_key)
        finally:
            self._waiting.discard(cluster)
        return taken

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _take(self, cluster: str, keys: int, per_key: int) -> int:
        own = self._reserved.get(cluster, 0)
        others = sum(self._reserved.values()) - own
        taken = min(keys, (self.left - others) // per_key)
        if own:
            self._reserved[cluster] = max(0, own - taken * per_key)
        self.left -= taken * per_key
        return taken


@dataclass(frozen=True, slots=True)
class Budget:
    """The number of Proxmox calls that loading may take, and its end on the monotonic clock.

    `calls` are those for one table of one cluster; `shares` those of the whole tool call.
    """

    calls: int = MOST_CALLS
    until: float = inf
    shares: Shares | None = None
    per_key: int = 1  # calls that a key takes

    async def take(self, cluster: str, keys: int) -> int:
        """Take calls for at most so many keys from the shares; return for how many."""
        return await self.shares.take(cluster, keys, self.per_key) if self.shares else keys


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """The part of a table that a reader needs, pushed down so that Proxmox is asked for no more.

    An empty set means all, and so does `columns=None`. Text is compared without case. `states`
    doesn't filter: rows have to show these states correctly, even if that takes further calls. A
    loader may return more rows than requested, never fewer, with three exceptions: `limit` (the
    newest of tasks, which have no end), the budget, whose end it notes, and `frames`, whose default
    it notes.
    """

    columns: frozenset[str] | None = None
    vmids: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()
    storages: frozenset[str] = frozenset()
    status: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()  # of tasks; of content on a storage; kinds of changes
    frames: frozenset[str] = frozenset()  # time frames of metrics; empty means their default
    since: datetime | None = None  # for tasks and changes: started then or later
    until: datetime | None = None  # for them: started then or earlier; the date of a forecast
    limit: int | None = None
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        object.__setattr__(self, "vmids", frozenset(self.vmids))
        for name in ("nodes", "storages", "status", "states", "types", "frames"):
            object.__setattr__(self, name, frozenset(map(str.casefold, getattr(self, name))))

    @property
    def is_whole(self) -> bool:
        """Whether it asks for all rows of the table, without any narrowing."""
        sets = (self.vmids, self.nodes, self.storages, self.status, self.types)
        return not any((*sets, self.since, self.until))

    def wants_column(self, *names: str) -> bool:
        """Return whether any of these columns is needed."""
        return self.columns is None or not self.columns.isdisjoint(names)

    def wants_vmid(self, vmid: int) -> bool:
        return not self.vmids or vmid in self.vmids

    def wants_node(self, node: str) -> bool:
        return not self.nodes or node.casefold() in self.nodes

    def wants_storage(self, storage: str) -> bool:
        return not self.storages or storage.casefold() in self.storages

    def wants_status(self, status: str) -> bool:
        return not self.status or status.casefold() in self.status

    def wants_type(self, name: str) -> bool:
        return not self.types or name.casefold() in self.types


ALL = LoadRequest()

Loader = Callable[[Cluster, LoadRequest], Awaitable[Sequence[Row]]]
Covered = Callable[[Reach, Any], Row | None]
"""Returns the row, or the part of it, that a caller may see; None for nothing."""

Resource = GuestResource | NodeResource | StorageResource

Item = TypeVar("Item")
Made = TypeVar("Made")


async def made(
    cluster: Cluster,
    items: Iterable[Item],
    make: Callable[[Item], Iterable[Made]],
    size: int | None = None,
) -> list[Made]:
    """Return the rows that `make` makes of each item; those of many are made beside other calls.

    `size` says how much work they are where an item is more than one row's. An item that cannot be
    converted costs its own rows, and becomes a note. The first one is logged: a host can send
    hundreds of thousands of them.
    """
    every = list(items)

    def rows() -> list[Made]:
        made_rows: list[Made] = []
        failed = 0
        for item in every:
            try:
                made_rows += make(item)
            except Exception:
                if not failed:
                    log.exception("A row of %s cannot be made", cluster.name)
                failed += 1
        if failed:
            log.error("%d rows of %s cannot be made", failed, cluster.name)
            cluster.notes.add(
                f"Missing from {cluster.name}: {cluster.counted(failed, 'row')}, because the "
                "server failed there; its log says more."
            )
        return made_rows

    is_much = (len(every) if size is None else size) > MANY
    return await asyncio.to_thread(rows) if is_much else rows()


COMMON_PUSHDOWN: Mapping[str, str] = {"vmid": "vmids", "node": "nodes", "storage": "storages"}
"""The push-down of most loaders: from a field of the row to a field of LoadRequest."""


def _never(_request: LoadRequest) -> bool:
    return False


LooksFiltered = Callable[[str, Sequence[Any]], bool]
"""Takes the account and its rows."""

Overlaps = Callable[[Mapping[str, Sequence[Any]]], Iterable[str]]
"""Takes the rows by cluster; returns notes about those that several clusters list."""


def _no_rows(_account: str, rows: Sequence[Any]) -> bool:
    return not rows


def never_filtered(_account: str, _rows: Sequence[Any]) -> bool:
    """Return False: Proxmox refuses to list these rows at all, or their loader notes it."""
    return False


@dataclass(frozen=True)
class Across:
    """A column that is filled with what other clusters say, and the table whose grants allow that.

    `fill` takes the rows of a cluster, that cluster, and those on which the table may be read.
    """

    column: str
    table: str
    fill: Callable[[Sequence[Any], Cluster, Sequence[Cluster]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, eq=False)
class Table:
    """A row class with its loader, its cost, and the tool whose grants govern its rows."""

    name: str
    row: type[Row]
    load: Loader
    cost: Cost
    tool: str  # a caller reads the rows that this tool would show
    covered: Covered
    joined: tuple[str, ...] = ()
    """Further tools whose answers the rows combine: they bound the rows as well."""
    relations: tuple[Relation, ...] = ()
    description: str = ""
    from_inventory: bool = False
    """Whether rows come from the inventory alone, except for the `extra` columns."""
    exceeds_inventory: Callable[[LoadRequest], bool] = _never
    """Whether a request still needs calls, though the rows come from the inventory."""
    extra: frozenset[str] = frozenset()
    """Columns that take further calls."""
    pushdown: Mapping[str, str] = field(default_factory=dict)
    """Fields whose conditions narrow a request, with the field of LoadRequest."""
    last_known: Callable[[InventoryView], Iterable[Resource]] | None = None
    """Resources that Proxmox still lists for nodes that are offline or without statistics."""
    looks_filtered: LooksFiltered = _no_rows
    """Returns whether an account's rows look as if a missing privilege hid others."""
    overlaps: Overlaps | None = None
    """Returns notes about the same thing in the rows of several clusters."""
    primary_field: str = ""
    """The field that is true on one of several rows about the same shared thing."""
    rare: bool = False
    """Whether the overview of all tables leaves its fields out, because few questions need it."""
    kinds: frozenset[ClusterKind] = PVE_ONLY
    """The kinds of clusters that have these rows; others are not asked."""
    across: "Across | None" = None
    """A column that only other clusters know; it is empty where a query does not ask them."""

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools whose grants bound the rows."""
        return (self.tool, *self.joined)

    @cached_property
    def fields(self) -> dict[str, Field]:
        return fields_of(self.row)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why fields may be unknown, by name."""
        gaps = ((name, field.gap) for name, field in self.fields.items())
        return {name: gap.reason for name, gap in gaps if gap and gap.reason}


_TABLES: dict[str, Table] = {}


def table(
    name: str,
    *,
    tool: str,
    cost: Cost,
    covered: Covered,
    joined: Iterable[str] = (),
    relations: Iterable[Relation] = (),
    from_inventory: bool = False,
    exceeds_inventory: Callable[[LoadRequest], bool] = _never,
    extra: Iterable[str] = (),
    pushdown: Mapping[str, str] = COMMON_PUSHDOWN,
    last_known: Callable[[InventoryView], Iterable[Resource]] | None = None,
    looks_filtered: LooksFiltered = _no_rows,
    overlaps: Overlaps | None = None,
    primary_field: str = "",
    rare: bool = False,
    kinds: frozenset[ClusterKind] = PVE_ONLY,
    across: "Across | None" = None,
) -> Callable[[Callable[[Cluster, LoadRequest], Awaitable[Sequence[Any]]]], Table]:
    """Declare a table by decorating its loader.

    The item type of the loader's list is the row class, its docstring the table's description:

        class Pool(Row):
            minimal: ClassVar[tuple[str, ...]] = ("poolid", "guest_count")

            poolid: Annotated[str, Col("Name", aliases=("name", "pool"))]
            guest_count: Annotated[int, Col("Guests in it", Unit.COUNT)]


        @table("pools", tool="ListPools", cost=Cost.ONE, covered=covered_pool)
        async def pools(cluster: Cluster, request: LoadRequest) -> list[Pool]:
            "Resource pools and their guests."
            return [to_row(pool) for pool in await cluster.pve.pools()]

    Table explains the other arguments. Schema, documentation, push-down and access derive from
    the declaration; `tables/__init__.py` imports its module.
    """

    def declare(load: Callable[[Cluster, LoadRequest], Awaitable[Sequence[Any]]]) -> Table:
        row = get_args(get_type_hints(load)["return"])[0]
        declared = Table(
            name=name,
            row=row,
            load=load,
            cost=cost,
            tool=tool,
            covered=covered,
            joined=tuple(joined),
            relations=tuple(relations),
            description=cleandoc(load.__doc__ or ""),
            from_inventory=from_inventory,
            exceeds_inventory=exceeds_inventory,
            extra=frozenset(extra),
            pushdown=pushdown,
            last_known=last_known,
            looks_filtered=looks_filtered,
            overlaps=overlaps,
            primary_field=primary_field,
            rare=rare,
            kinds=kinds,
            across=across,
        )
        _TABLES[name] = declared
        return declared

    return declare


def tables() -> Mapping[str, Table]:
    """Return all declared tables by name."""
    return _TABLES


async def load(table: Table, cluster: Cluster, request: LoadRequest = ALL) -> Sequence[Any]:
    """Load the rows of a table, or the parts of them, that `cluster.scope` covers.

    Tools and queries get rows in no other way. Rows that show no single resource are not even
    asked for when the scope is a part of the cluster.
    """
    if table.covered is of_everything and not cluster.scope.everything:
        return []
    with cluster.short_deadline(), tolerate_malformed() as left_out:
        rows = await table.load(cluster, request)
    if left_out:
        cluster.note_malformed(left_out)
    if cluster.scope.everything:
        return rows
    reach = await Reach.of(cluster)
    return await offload(
        len(rows), lambda: [part for row in rows if (part := table.covered(reach, row)) is not None]
    )


async def note_node_states(table: Table, cluster: Cluster, request: LoadRequest = ALL) -> bool:
    """Note which nodes of a table's rows are offline or without statistics.

    They count also if a filter leaves none of their rows: it may have compared an old or unknown
    state. For five minutes Proxmox repeats what a node last reported; then only what is configured.
    Return whether there are any rows to speak of.
    """
    view = await cluster.inventory_view()
    slot = ("states of", table.name)
    if slot not in view.derived:
        by_node: dict[str, set[str]] = {}
        for row in table.last_known(view) if table.last_known else ():
            by_node.setdefault(row.node, set()).add(row.status)
        view.derived[slot] = by_node
    states: Mapping[str, AbstractSet[str]] = view.derived[slot]
    whole = await cluster.inventory.view()
    silent = states.keys() & (whole.offline_nodes | whole.nodes_without_statistics)
    requested = set(filter(request.wants_node, silent))
    nodes_by_words: dict[str, list[str]] = {}
    for node in sorted(requested & whole.offline_nodes):
        if states[node] == {"offline"}:
            continue  # the row says so itself
        known, unknown = states[node] - {"unknown"}, "unknown" in states[node]
        words = (_LAST_KNOWN_EXCEPT if unknown else _LAST_KNOWN) if known else _NEVER_KNOWN
        nodes_by_words.setdefault(words, []).append(node)
    for words, nodes in nodes_by_words.items():
        more = f" and {len(nodes) - _NODES} more" if len(nodes) > _NODES else ""
        named = ", ".join(nodes[:_NODES])
        cluster.notes.add(f"Offline on {cluster.name}: {named}{more}; {words}")
    if without_statistics := requested & whole.nodes_without_statistics:
        cluster.note_without_statistics(without_statistics)
    return bool(states)
