"""Loads the rows of a plan into a database: few calls, all clusters at once, within one budget."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.clusters import Cluster, Notes, outcome_of
from pvemcp_server.query import pushdown
from pvemcp_server.query.cache import DatabaseCache
from pvemcp_server.query.catalog import CLUSTER, Catalog, fields_of
from pvemcp_server.query.compiler import compile_plan
from pvemcp_server.query.engine import Database
from pvemcp_server.query.names import abbreviated
from pvemcp_server.query.plan import Existence, QueryPlan, existences, scopes
from pvemcp_server.query.pushdown import Reduction, RequiredColumns
from pvemcp_server.query.sources import Sources
from pvemcp_server.tables.registry import (
    ALL,
    Budget,
    LoadRequest,
    Table,
    load,
    note_node_states,
)
from pvemcp_server.tables.rows import Row

RowsByCluster = Mapping[str, Sequence[Row]]

Requests = Mapping[str, Mapping[str, LoadRequest]]
"""Load requests of costly tables, by table and cluster."""


@dataclass
class Loader:
    """Loads the rows of one query, table by table."""

    sources: Sources
    catalog: Catalog
    plan: QueryPlan
    budget: Budget
    _views: dict[str, dict[str, Cluster]] = field(default_factory=dict)
    _notes: dict[str, Notes] = field(default_factory=dict)  # by the table they are about
    _failed: set[str] = field(default_factory=set)  # tables without the rows of some cluster

    async def database(self) -> Database:
        """Return a locked database with all columns that the plan reads."""
        self.sources.require_kind(self.plan.table)
        required = pushdown.required_columns(self.plan, self.catalog)
        self._note_unknown_clusters()
        if self._is_in_inventory(required):
            database = await self._cached(required)
        else:
            database = await self._loaded(required)
        await self._note_offline_nodes(required)
        self._pass_notes_on()
        self._note_incomplete_tests()
        return database

    @cached_property
    def _requests(self) -> Mapping[str, LoadRequest]:
        return pushdown.load_requests(self.plan, self.catalog)

    @cached_property
    def _tests(self) -> list[Existence]:
        """The existence tests of the plan, also nested ones."""
        return [test for scope in scopes(self.plan) for test in existences(scope.where)]

    @cached_property
    def _tested(self) -> frozenset[str]:
        return frozenset(test.plan.table.name for test in self._tests)

    def _note_incomplete_tests(self) -> None:
        """Note which tests were decided by a part of the rows: their result may be wrong."""
        for test in self._tests:
            name = test.plan.table.name
            views = self._clusters(name).values()
            parts = [view.name for view in views if not view.scope.everything]
            reasons = []
            if parts:
                reasons.append(f"the role of this key covers a part of {', '.join(parts)} only")
            if self._notes[name] or name in self._failed or self._is_partial(test.plan.table):
                reasons.append("some are missing or unknown, see the other notes")
            if reasons:
                operator = "NOT EXISTS" if test.negated else "EXISTS"
                effect = "has rows that do have some" if test.negated else "lacks rows"
                self.sources.notes.add(
                    f"{operator} {name} was decided by the {name} that can be read "
                    f"({'; '.join(reasons)}): perhaps this answer {effect}."
                )

    def _is_partial(self, table: Table) -> bool:
        """Return whether the table is not read on every cluster that has such rows."""
        of_kind = {cluster.name for cluster in self.sources.of_kind(table)}
        if not table.kinds.isdisjoint(self.plan.table.kinds):
            of_kind &= self._asked
        return not of_kind or len(self._clusters(table.name)) < len(of_kind)

    def _note_unknown_clusters(self) -> None:
        """Note conditions on unknown clusters: their empty answer would look like no rows."""
        named = pushdown.cluster_names(self.plan) or frozenset()
        known = sorted(cluster.name for cluster in self.sources.clusters)
        for name in sorted(named - {cluster.casefold() for cluster in known}):
            self.sources.notes.add(
                f"No cluster {abbreviated(name)} is asked; asked are {', '.join(known)}."
            )

    def _is_in_inventory(self, required: Mapping[str, RequiredColumns]) -> bool:
        """Return whether the inventories hold everything that the plan reads."""
        for name, need in required.items():
            table = self.catalog.tables[name]
            states = LoadRequest(states=pushdown.named_states(self.plan, table))
            if not table.from_inventory or table.exceeds_inventory(states):
                return False
            if not table.extra.isdisjoint(need.columns):
                return False
        return True

    async def _cached(self, required: Mapping[str, RequiredColumns]) -> Database:
        """Return the database of these inventory views from the cache, or load it."""
        cache = await DatabaseCache.open({name: self._clusters(name) for name in required})
        if cache and (database := cache.get(required)):
            return database
        required = cache.with_cached(required) if cache else required
        # whole tables, without push-down: later queries have other conditions
        every = {name: dict.fromkeys(self._clusters(name), LoadRequest()) for name in required}
        rows = await self._read(required, every)
        database = await self._built(required, rows)
        if cache and not any(self._notes.values()):  # those of missing rows would get lost
            cache.put(required, database)
        return database

    async def _loaded(self, required: Mapping[str, RequiredColumns]) -> Database:
        """Load cheap tables first, then costly ones for the rows that are left."""
        rows: dict[str, RowsByCluster] = {}
        requests: Requests = {}
        if first := pushdown.reduction(self.plan, self.catalog):
            before = pushdown.required_columns(first.plan, self.catalog)
            for name, need in before.items():  # read once, so with all cheap columns
                need.columns |= required[name].columns - self.catalog.tables[name].extra
            rows = await self._read(before, {})
            reduced = partial(self._reduced, first, before, rows)
            requests = await in_key_thread(self.sources.caller.holder, reduced)
        rest = {
            n: need
            for n, need in required.items()
            if n not in rows or n in requests or not need.columns <= before[n].columns
        }
        rows |= await self._read(rest, requests)
        return await self._built(required, rows)

    async def _built(
        self, required: Mapping[str, RequiredColumns], rows: Mapping[str, RowsByCluster]
    ) -> Database:
        return await in_key_thread(self.sources.caller.holder, partial(self._build, required, rows))

    def _build(
        self, required: Mapping[str, RequiredColumns], rows: Mapping[str, RowsByCluster]
    ) -> Database:
        return build_database(self.catalog, required, rows, self.sources.caller.holder)

    def _reduced(
        self,
        first: Reduction,
        before: Mapping[str, RequiredColumns],
        rows: Mapping[str, RowsByCluster],
    ) -> Requests:
        """Run the first query and return the requests for the costly tables."""
        database = self._build(before, rows)
        answer = database.execute(compile_plan(first.plan, self.catalog))
        return {
            table: _requests(answer, places, self._requests.get(table, ALL))
            for table, places in first.keys.items()
        }

    async def _note_offline_nodes(self, names: Iterable[str]) -> None:
        """Note which offline nodes the tables have rows of, also when these were cached."""
        own = pushdown.load_request(self.plan)

        async def note(table: Table, view: Cluster) -> None:
            request = self._requests.get(table.name, ALL) if table.name in self._tested else own
            if not await note_node_states(table, view, request):
                await self.sources.note_why_empty(view, table)

        tables = (self.catalog.tables[name] for name in names)
        pairs = [
            (table, view)
            for table in tables
            if table.last_known
            for view in self._clusters(table.name).values()
        ]
        # a failure is noted where the rows are read
        await asyncio.gather(
            *(outcome_of(note(table, view), f"states of {view.name}") for table, view in pairs)
        )

    def _pass_notes_on(self) -> None:
        """Add the tables' notes to the call's; one that isn't about all tables names its own."""
        tables: dict[str, list[str]] = {}
        for table, notes in self._notes.items():
            notes.fold_cuts()
            for note in notes:
                tables.setdefault(note, []).append(table)
        for note, about in tables.items():
            every = len(about) == len(self._notes)
            self.sources.notes.add(note if every else f"{', '.join(about)}: {note}")

    async def _read(
        self, required: Mapping[str, RequiredColumns], requests: Requests
    ) -> dict[str, RowsByCluster]:
        names = list(required)
        if self.budget.shares:
            pairs = [
                cluster for name in names for cluster in self._chosen(name, requests.get(name))
            ]
            self.budget.shares.begin(pairs)
        answers = await asyncio.gather(
            *(
                self._read_table(self.catalog.tables[name], required[name], requests.get(name))
                for name in names
            )
        )
        return {
            name: await self._across(self.catalog.tables[name], required[name], rows)
            for name, rows in zip(names, answers, strict=True)
        }

    async def _read_table(
        self, table: Table, need: RequiredColumns, requests: Mapping[str, LoadRequest] | None
    ) -> RowsByCluster:
        """Read a table's rows of every cluster, or of those with a request.

        A cluster that fails becomes a note; if all fail for a table that decides which rows there
        are, the first error is raised.
        """
        clusters = self._chosen(table.name, requests)
        answers = await asyncio.gather(
            *(
                outcome_of(
                    self._load(table, view, self._request(table, need, (requests or {}).get(name))),
                    f"{table.name} of {name}",
                )
                for name, view in clusters.items()
            )
        )
        rows: dict[str, Sequence[Row]] = {}
        failures: list[Exception] = []
        for (name, view), answer in zip(clusters.items(), answers, strict=True):
            if isinstance(answer, Exception):
                failures.append(answer)
                reason = await view.explain(answer)
                self.sources.notes.add(f"Missing: {table.name} of {name}. {reason}")
                self._failed.add(table.name)
            else:
                rows[name] = answer
        for note in table.overlaps(rows) if table.overlaps else ():
            self.sources.notes.add(note)
        if table is not self.plan.table and table.name not in self._tested:
            return rows
        if failures and not rows:
            raise failures[0]
        for name, some in rows.items():
            if not some and self._request(table, need, (requests or {}).get(name)).is_whole:
                clusters[name].note_narrow_scope(table.name.replace("_", " "))
        if not table.last_known:  # for those, _note_offline_nodes looks for the reason
            empty = (clusters[name] for name, some in rows.items() if not some)
            await asyncio.gather(
                *(
                    outcome_of(self.sources.note_why_empty(view, table), f"rights on {view.name}")
                    for view in empty
                )
            )
        return rows

    async def _load(self, table: Table, view: Cluster, request: LoadRequest) -> Sequence[Row]:
        """Return the rows of a cluster; then others may use the rest of its share of the calls."""
        try:
            return await load(table, view, request)
        finally:
            if self.budget.shares:
                self.budget.shares.end(view.name)

    async def _across(
        self, table: Table, need: RequiredColumns, rows: RowsByCluster
    ) -> RowsByCluster:
        """Return the rows, if the plan reads it with the column that other clusters know."""
        across = table.across
        known_by = self.catalog.tables.get(across.table) if across else None
        if across is None or across.column not in need.columns or known_by is None:
            return rows
        clusters = {cluster.name: cluster for cluster in self.sources.clusters}
        known = self.sources.readable(known_by)
        filled = await asyncio.gather(
            *(across.fill(some, clusters[name], known) for name, some in rows.items())
        )
        return dict(zip(rows, filled, strict=True))

    def _request(
        self, table: Table, need: RequiredColumns, reduced: LoadRequest | None
    ) -> LoadRequest:
        """Return the request for a table: what its conditions and the first query leave of it."""
        return replace(
            reduced or self._requests.get(table.name, ALL),
            columns=frozenset(need.columns - {CLUSTER.name}),
            states=pushdown.named_states(self.plan, table),
            budget=self.budget,
        )

    def _chosen(
        self, name: str, requests: Mapping[str, LoadRequest] | None
    ) -> Mapping[str, Cluster]:
        """Return the clusters to read a table from: all, or those with a request."""
        clusters = self._clusters(name)
        if requests is None:
            return clusters
        return {name: view for name, view in clusters.items() if name in requests}

    def _clusters(self, name: str) -> Mapping[str, Cluster]:
        """Return the clusters to read a table from; the same views during one query."""
        if name not in self._views:
            table = self.catalog.tables[name]
            views = self.sources.views(table)
            notes = self._notes[name] = Notes()
            self._views[name] = {
                cluster: replace(view, notes=notes)
                for cluster, view in views.items()
                if cluster in self._asked or table.kinds.isdisjoint(self.plan.table.kinds)
            }
        return self._views[name]

    @cached_property
    def _asked(self) -> frozenset[str]:
        """The names of the clusters that the conditions leave."""
        left = pushdown.cluster_names(self.plan)
        names = (cluster.name for cluster in self.sources.clusters)
        return frozenset(name for name in names if left is None or name.casefold() in left)


def build_database(
    catalog: Catalog,
    required: Mapping[str, RequiredColumns],
    rows: Mapping[str, RowsByCluster],
    owner: str = "",
) -> Database:
    """Return a locked database of these rows, with the required columns."""
    database = Database(owner)
    for name, need in required.items():
        declared = fields_of(catalog.tables[name])
        fields = [declared[field] for field in declared if field in need.columns | {CLUSTER.name}]
        cells = [_cells(field.name, rows.get(name, {})) for field in fields]
        database.fill(name, fields, cells, sorted(need.join_keys), need.entries)
    database.lock()
    return database


def _cells(column: str, rows: RowsByCluster) -> list[Any]:
    """Return the values of a column, cluster after cluster."""
    if column == CLUSTER.name:
        return [name for name, some in rows.items() for _ in some]
    get = attrgetter(column)
    return [cell for some in rows.values() for cell in map(get, some)]


def _requests(
    answer: list[tuple[Any, ...]], places: Mapping[str, int], own: LoadRequest
) -> dict[str, LoadRequest]:
    """Narrow a table's request to the values of each key, by cluster.

    A cluster without values needs no rows.
    """
    values: dict[str, dict[str, Any]] = {}
    for cluster, *_ in answer:
        values.setdefault(cluster, {name: set() for name in places})
    for row in answer:
        for name, place in places.items():
            if row[place] is not None:
                values[row[0]][name].add(row[place])
    return {name: replace(own, **sets) for name, sets in values.items() if all(sets.values())}
