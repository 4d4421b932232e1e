"""Brings the rows a plan needs into a database: few calls, all clusters at once, one budget."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import starmap
from operator import attrgetter
from typing import Any

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.query import pushdown
from pvemcp_server.query.cache import DatabaseCache
from pvemcp_server.query.catalog import CLUSTER, Catalog, fields_of
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.engine import Database
from pvemcp_server.query.names import shown
from pvemcp_server.query.plan import Plan
from pvemcp_server.query.pushdown import Reduction, RequiredColumns
from pvemcp_server.query.sources import Sources
from pvemcp_server.tables.load import load, placed, say_last_known
from pvemcp_server.tables.registry import Budget, LoadRequest, Row, Table

Loaded = Mapping[str, Sequence[Row]]
"""Rows by cluster."""

Keys = Mapping[str, Mapping[str, LoadRequest]]
"""What is wanted of costly tables, by table and cluster."""


@dataclass
class Loading:
    """The rows of one query, table by table."""

    sources: Sources
    catalog: Catalog
    plan: Plan
    budget: Budget
    _views: dict[str, dict[str, Cluster]] = field(default_factory=dict)
    _notes: dict[str, Notes] = field(default_factory=dict)  # by the table they are about

    async def database(self) -> Database:
        """A locked database with all that the plan reads."""
        needed = pushdown.needs(self.plan, self.catalog)
        self._say_unknown_clusters()
        made = await self._made(needed)
        await self._say_last_known(needed)
        self._say_notes()
        return made

    def _say_unknown_clusters(self) -> None:
        """A name that no cluster has would be answered with nothing, as if there were nothing."""
        named = pushdown.clusters(self.plan) or frozenset()
        known = sorted(one.name for one in self.sources.clusters)
        for name in sorted(named - {one.casefold() for one in known}):
            self.sources.notes.add(
                f"No cluster {shown(name)} is asked; asked are {', '.join(known)}."
            )

    def _say_notes(self) -> None:
        """What is true of some of the tables only names these."""
        tables: dict[str, list[str]] = {}
        for table, notes in self._notes.items():
            for note in notes:
                tables.setdefault(note, []).append(table)
        for note, about in tables.items():
            every = len(about) == len(self._notes)
            self.sources.notes.add(note if every else f"{', '.join(about)}: {note}")

    async def _made(self, needed: Mapping[str, RequiredColumns]) -> Database:
        if self._is_of_snapshots(needed):
            return await self._kept(needed)
        first = pushdown.reduction(self.plan, self.catalog)
        rows: dict[str, Loaded] = {}
        keys: Keys = {}
        if first:
            before = self._before(first, needed)
            rows = await self._read(before, {})
            keys = await asyncio.to_thread(_wanted, first, before, rows, self.catalog)
        rest = {n: need for n, need in needed.items() if n not in rows or n in keys}
        rows |= await self._read(rest, keys)
        return await asyncio.to_thread(filled, self.catalog, needed, rows)

    async def _say_last_known(self, names: Iterable[str]) -> None:
        """Note which offline nodes the tables have rows of, also when these were kept."""
        named = [self.catalog.tables[name] for name in names]
        asked = [
            (one, view) for one in named if one.last_known for view in self._of(one.name).values()
        ]
        wanted = pushdown.want(self.plan)

        async def say(table: Table, view: Cluster) -> None:
            with suppress(ProxmoxError, TimeoutError):  # said where its rows are read
                nodes = placed(table, await view.inventory_view())
                if not nodes:
                    await self.sources.say_why_empty(view, table)
                await say_last_known(view, set(filter(wanted.node, nodes)))

        await asyncio.gather(*starmap(say, asked))

    async def _kept(self, needed: Mapping[str, RequiredColumns]) -> Database:
        """A database that was made of the same snapshots before, or a new one."""
        views = [view for name in needed for view in self._of(name).values()]
        shelf = await DatabaseCache.of(views, needed)
        if shelf and (known := shelf.database(needed)):
            return known
        needed = shelf.with_kept(needed) if shelf else needed
        every = {name: dict.fromkeys(self._of(name), LoadRequest()) for name in needed}
        rows = await self._read(needed, every)  # nothing ruled out: other queries will find it
        made = await asyncio.to_thread(filled, self.catalog, needed, rows)
        if shelf:
            shelf.keep(needed, made)
        return made

    def _is_of_snapshots(self, needed: Mapping[str, RequiredColumns]) -> bool:
        """Whether the inventories hold all that is asked."""
        known = [(self.catalog.tables[name], need) for name, need in needed.items()]
        return all(
            table.of_inventory
            and table.extra.isdisjoint(need.columns)
            and not table.beyond(LoadRequest(states=pushdown.states(self.plan, table)))
            for table, need in known
        )

    def _before(
        self, first: Reduction, needed: Mapping[str, RequiredColumns]
    ) -> dict[str, RequiredColumns]:
        """What the first query reads; the queried table at once with all that is cheap of it."""
        base = self.plan.table
        before = pushdown.needs(first.plan, self.catalog)
        before[base.name].columns |= needed[base.name].columns - base.extra
        return before

    async def _read(self, needed: Mapping[str, RequiredColumns], keys: Keys) -> dict[str, Loaded]:
        names = list(needed)
        found = await asyncio.gather(
            *(self._read_table(self.catalog.tables[n], needed[n], keys.get(n)) for n in names)
        )
        return dict(zip(names, found, strict=True))

    async def _read_table(
        self, table: Table, need: RequiredColumns, keys: Mapping[str, LoadRequest] | None
    ) -> Loaded:
        """Its rows of every cluster; one that fails is noted, but not if nothing else is left."""
        views = self._of(table.name)
        asked = {name: view for name, view in views.items() if keys is None or name in keys}
        wants = {name: self._want(table, need, (keys or {}).get(name)) for name in asked}
        answers = await asyncio.gather(
            *(load(table, view, wants[name]) for name, view in asked.items()),
            return_exceptions=True,
        )
        found = dict(zip(asked, answers, strict=True))
        failed = {name: one for name, one in found.items() if isinstance(one, BaseException)}
        await self._note(table, asked, failed)
        if table is self.plan.table and failed and len(failed) == len(asked):
            raise next(iter(failed.values()))
        told = {name: one for name, one in found.items() if not isinstance(one, BaseException)}
        if table is self.plan.table and not table.last_known:
            empty = (asked[name] for name, rows in told.items() if not rows)
            await asyncio.gather(*(self.sources.say_why_empty(one, table) for one in empty))
        return told

    def _want(self, table: Table, need: RequiredColumns, key: LoadRequest | None) -> LoadRequest:
        narrowed = key or (pushdown.want(self.plan) if table is self.plan.table else LoadRequest())
        columns = frozenset(need.columns - {CLUSTER.name})
        states = pushdown.states(self.plan, table)
        return replace(narrowed, columns=columns, states=states, budget=self.budget)

    async def _note(
        self, table: Table, asked: Mapping[str, Cluster], failed: Mapping[str, BaseException]
    ) -> None:
        for name, error in failed.items():
            if not isinstance(error, ProxmoxError | TimeoutError):
                raise error
            self.sources.notes.add(
                f"Missing: {table.name} of {name}. {await asked[name].explain(error)}"
            )

    def _of(self, name: str) -> Mapping[str, Cluster]:
        """The clusters to ask for a table; the same views during one query."""
        if name not in self._views:
            left = pushdown.clusters(self.plan)
            views = self.sources.views(self.catalog.tables[name])
            notes = self._notes[name] = Notes()
            self._views[name] = {
                cluster: replace(view, notes=notes)
                for cluster, view in views.items()
                if left is None or cluster.casefold() in left
            }
        return self._views[name]


def filled(
    catalog: Catalog, needed: Mapping[str, RequiredColumns], rows: Mapping[str, Loaded]
) -> Database:
    """A locked database of these rows, with the columns that are needed."""
    database = Database()
    for name, need in needed.items():
        known = fields_of(catalog.tables[name])
        fields = [known[one] for one in known if one in need.columns | {CLUSTER.name}]
        cells = [_cells(one.name, rows.get(name, {})) for one in fields]
        database.fill(name, fields, cells, sorted(need.keys))
    database.lock()
    return database


def _cells(column: str, rows: Loaded) -> list[Any]:
    """The values of a column, cluster after cluster."""
    if column == CLUSTER.name:
        return [name for name, some in rows.items() for _ in some]
    get = attrgetter(column)
    return [cell for some in rows.values() for cell in map(get, some)]


def _wanted(
    first: Reduction,
    before: Mapping[str, RequiredColumns],
    rows: Mapping[str, Loaded],
    catalog: Catalog,
) -> Keys:
    """Ask the first query, and make of its answer what is wanted of the costly tables."""
    answer = filled(catalog, before, rows).ask(compile_plan(first.plan, catalog))
    return {table: _wants(answer, places) for table, places in first.keys.items()}


def _wants(answer: list[tuple[Any, ...]], places: Mapping[str, int]) -> dict[str, LoadRequest]:
    found: dict[str, dict[str, Any]] = {}
    for row in answer:
        sets = found.setdefault(row[0], {name: set() for name in places})
        for name, place in places.items():
            if row[place] is not None:
                sets[name].add(row[place])
    return {cluster: LoadRequest(**sets) for cluster, sets in found.items() if all(sets.values())}
