"""Reads the tables of the checks on one cluster, and says what could not be looked at."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pvemcp_server.access.model import Caller, Resources
from pvemcp_server.clusters import Cluster, InventoryView, Notes, outcome_of
from pvemcp_server.query.sources import reach
from pvemcp_server.settings import Values
from pvemcp_server.tables.fanout import note_offline
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import PVE_ONLY, Cost, LoadRequest, Table, load
from pvemcp_server.tables.storages import primary
from pvemcp_server.toolkit.missing_privileges import rights_of
from pvemcp_server.toolkit.needs import Extent, RequiredPrivilege
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools.attention import reads
from pvemcp_server.tools.attention.model import Check, Evidence, Read, Topic

TopicsOfReads = dict[Read, set[Topic]]
"""Reads with the topics that need them."""

Reasons = dict[str, set[Topic]]
"""Topics by the reason why they were not looked at, or in part."""

_HELD: Final = {Extent.NOWHERE: "lacks", Extent.PARTLY: "has only in part"}
_NOTES: Final = 3  # of tables, for each cluster; the topics that they are about are all named
MOST_REQUESTS: Final = 250
"""Requests to one cluster for one table, beyond which it is read only for a named topic."""


@dataclass
class Reader:
    """Reads the tables that some checks need on one cluster, within what the caller may see.

    What is not read, or in part, becomes a note with its topics: it never looks like nothing to
    report.
    """

    cluster: Cluster
    caller: Caller
    tool: str
    limits: Values
    now: datetime
    request: LoadRequest  # its budget applies to each read
    named: frozenset[Topic]  # that the caller asked for, whatever they cost
    _skipped: Reasons = field(default_factory=lambda: defaultdict(set))
    _partly: Reasons = field(default_factory=lambda: defaultdict(set))
    _incomplete: set[Read] = field(default_factory=set)
    _offline: set[str] = field(default_factory=set)  # nodes whose rows are missing
    _notes: Notes = field(default_factory=Notes)  # of tables

    async def evidence(self, checks: Sequence[Check]) -> Evidence:
        """Return the rows that could be read."""
        rows: dict[Read, Sequence[Any]] = {}
        allowed = self._granted(checks)
        # a cluster that hangs costs this one timeout; the next reads have short ones
        await outcome_of(self.cluster.inventory_view(), f"the inventory of {self.cluster.name}")
        if first := {read: t for read, t in _topics_of(allowed).items() if read is reads.CLUSTERS}:
            rows |= await self._read_all(first)
        if all(row.reachable for row in rows.get(reads.CLUSTERS, ())):
            rest = _topics_of(await self._permitted(allowed))
            rows |= await self._read_all(
                await self._affordable({read: t for read, t in rest.items() if read not in first})
            )
            await self._note_blind_nodes(rows)
        else:
            for each in allowed:
                if each.reads != (reads.CLUSTERS,):
                    self._skipped["it is not reachable"].add(each.topic)
        self._note_left_out(rows)
        incomplete = frozenset(self._incomplete)
        return Evidence(self.cluster.name, self.limits, self.now, rows, incomplete)

    def _granted(self, checks: Iterable[Check]) -> list[Check]:
        """Return the checks about such a cluster whose tables the role covers."""
        granted = []
        for each in (each for each in checks if each.is_about(self.cluster.kind)):
            scopes = {read: self._scope(read.table) for read in each.reads}
            if hidden := [read for read, scope in scopes.items() if not scope]:
                names = " and ".join(dict.fromkeys(name for r in hidden for name in r.table.tools))
                self._skipped[f"{names} not granted"].add(each.topic)
            elif any(self._needs_all(each, r) and not s.everything for r, s in scopes.items()):
                self._skipped["the role covers a part of the cluster"].add(each.topic)
            else:
                granted.append(each)
        return granted

    def _scope(self, table: Table) -> Resources:
        return reach(self.caller, table, self.cluster.name, self.tool)

    @staticmethod
    def _needs_all(check: Check, read: Read) -> bool:
        return check.of_whole_cluster or read.table.covered is of_everything

    async def _permitted(self, checks: Sequence[Check]) -> list[Check]:
        """Return the checks for which the account has privileges; note those that it lacks.

        The inventory is read in any case. Without a privilege, Proxmox may list nothing and not say
        so: what is missing then proves nothing.
        """
        needed = {read: _needs(read.table) for each in checks for read in each.reads}
        every = dict.fromkeys(need for needs in needed.values() for need in needs)
        rights = await rights_of(self.cluster, *every)
        missing = {
            need: f"{self.cluster.account} {_HELD[right.extent]} {right.name} on {need.path}, see "
            "ExplainAccess"
            for need, right in rights.items()
            if right.extent in _HELD
        }
        lacking = {n: why for n, why in missing.items() if rights[n].extent is Extent.NOWHERE}
        permitted = []
        for each in checks:
            lacks = [need for read in each.reads for need in needed[read] if need in lacking]
            blind = any(
                needed[read]
                and not read.table.from_inventory
                and lacking.keys() >= set(needed[read])
                for read in each.reads
            )
            if blind or (lacks and each.of_absence):
                self._skipped[lacking[lacks[0]]].add(each.topic)
                continue
            permitted.append(each)
            for need in (need for read in each.reads for need in needed[read]):
                if need in missing:
                    self._partly[missing[need]].add(each.topic)
        return permitted

    async def _affordable(self, topics_of: TopicsOfReads) -> TopicsOfReads:
        """Leave out reads of too many requests, unless the caller named one of their topics."""
        view = await self.cluster.inventory_view()
        kept: TopicsOfReads = {}
        for read, topics in topics_of.items():
            requests = _requests(read.table, view)
            if requests > MOST_REQUESTS and not topics & self.named:
                self._skipped[f"about {requests} requests; name them in areas"] |= topics
            else:
                kept[read] = topics
        return kept

    async def _read_all(self, topics_of: TopicsOfReads) -> dict[Read, Sequence[Any]]:
        """Read the tables at once; a failure becomes the reason why its topics are missing."""
        answers = await asyncio.gather(
            *(
                outcome_of(self._read(read), f"{read.table.name} of {self.cluster.name}")
                for read in topics_of
            )
        )
        rows: dict[Read, Sequence[Any]] = {}
        for read, answer in zip(topics_of, answers, strict=True):
            if isinstance(answer, Exception):
                reason = (await self.cluster.explain(answer)).removesuffix(".")
                self._skipped[reason] |= topics_of[read]
                continue
            rows[read], notes = answer
            if notes:
                self._incomplete.add(read)
                self._partly["see the other notes"] |= topics_of[read]
                self._notes.add(next(iter(notes)))
        return rows

    async def _read(self, read: Read) -> tuple[Sequence[Any], list[str]]:
        """Return the rows and the notes on what is missing among them."""
        view = replace(self.cluster.within(self._scope(read.table)), notes=Notes())
        narrowed = await read.narrow(view, self.limits, self.now)
        if narrowed is None:
            return [], []
        request = replace(narrowed, columns=frozenset(read.columns), budget=self.request.budget)
        rows = await load(read.table, view, request)
        self._offline.update(*(kind.offline for kind in view.notes.values()))
        gaps = [note for note, kind in view.notes.items() if not (kind.offline or kind.fact)]
        return rows, gaps

    async def _note_blind_nodes(self, rows: Iterable[Read]) -> None:
        """Note nodes without statistics: even what is a template there is not known."""
        blind = (await self.cluster.inventory_view()).nodes_without_statistics
        if blind:
            self.cluster.note_without_statistics(blind)
            self._incomplete |= set(rows)

    def _note_left_out(self, rows: Iterable[Read]) -> None:
        """Note which topics were not looked at, or in part, and why."""
        notes = self.cluster.notes
        left_out = {"Not looked at": self._skipped, "Looked at in part": self._partly}
        for what, reasons in left_out.items():
            for reason, topics in reasons.items():
                names = ", ".join(topic for topic in Topic if topic in topics)
                notes.add(f"{what} on {self.cluster.name}: {names} ({reason}).")
        note_offline(self.cluster, self._offline)
        for note in list(self._notes)[:_NOTES]:
            notes.add(note)
        if (more := len(self._notes) - _NOTES) > 0:
            notes.add(f"{more} more tables of {self.cluster.name} have gaps: query them for why.")
        if any(not self._scope(read.table).everything for read in rows):
            notes.add(
                f"The role of this key covers a part of {self.cluster.name} only; the rest was not "
                "looked at."
            )


def _topics_of(checks: Iterable[Check]) -> TopicsOfReads:
    """Return the reads of some checks with the topics that need them."""
    topics_of: TopicsOfReads = {}
    for each in checks:
        for read in each.reads:
            topics_of.setdefault(read, set()).add(each.topic)
    return topics_of


def _needs(table: Table) -> tuple[RequiredPrivilege, ...]:
    """Return the privileges that the governing tool of a table needs of the account.

    Those are of Proxmox VE; the tables of backup servers note themselves what is not visible.
    """
    governing = tools().get(table.tool)
    return governing.needs if governing and table.kinds == PVE_ONLY else ()


def _requests(table: Table, view: InventoryView) -> int:
    """Return about how many requests a table takes, by what the caller sees of the cluster."""
    match table.cost:
        case Cost.ONE:
            return 1
        case Cost.PER_NODE | Cost.PER_DISK:
            return len(view.nodes)
        case Cost.PER_STORAGE:
            return len(primary(view.storages))
        case Cost.PER_GUEST:
            return len(view.guests)
        case Cost.PER_NAMESPACE:
            return len(view.datastores)
