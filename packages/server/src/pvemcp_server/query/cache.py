"""Cache of databases loaded from the inventory: the next query finds its rows loaded."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from weakref import ref

from pvemcp_server.clusters import Cluster, InventoryView, outcome_of
from pvemcp_server.query.engine import Database
from pvemcp_server.query.pushdown import RequiredColumns

CACHED_PAGES: Final = 32_768  # of 4 KiB, in all cached databases; one key has up to half of them


@dataclass(frozen=True)
class _Entry:
    views: tuple[ref[InventoryView], ...]  # weak: the entry lives as long as its first view
    columns: Mapping[str, RequiredColumns]
    database: Database


@dataclass(frozen=True)
class DatabaseCache:
    """One slot of the cache: the database of some tables, each made of its inventory views.

    A view belongs to one cluster, one Proxmox account and one scope. A caller may have different
    scopes for two tables, so the slot names the table and the cluster of each view: two callers
    whose scopes are the same ones, but for the other table, must not share a database.

    The entry is stored in the `derived` mapping of the first view. When an inventory is renewed,
    its old view is dropped, and the database with it; if only another view was renewed, the
    identity check in `_entry` rejects the entry. So there is no expiry here.
    """

    slot: tuple[str, tuple[tuple[str, str], ...]]  # table and cluster of each view
    views: tuple[InventoryView, ...]

    @classmethod
    async def open(cls, clusters: Mapping[str, Mapping[str, Cluster]]) -> Self | None:
        """Return the slot for these clusters by table; None when one does not answer."""
        read = {
            (table, name): c for table, by_name in clusters.items() for name, c in by_name.items()
        }
        places = sorted(read)  # whatever the order of the query's tables
        answers = await asyncio.gather(
            *(outcome_of(read[at].inventory_view(), f"cluster {at[1]}") for at in places)
        )
        views = tuple(answer for answer in answers if isinstance(answer, InventoryView))
        if not views or len(views) < len(answers):
            return None
        return cls(("database", tuple(places)), views)

    def get(self, required: Mapping[str, RequiredColumns]) -> Database | None:
        """Return the cached database if it has all the required columns."""
        entry = self._entry
        fits = entry and all(need <= entry.columns[name] for name, need in required.items())
        return entry.database if entry and fits else None

    def with_cached(self, required: Mapping[str, RequiredColumns]) -> Mapping[str, RequiredColumns]:
        """Add the columns of the cached database, so that both queries hit the next one."""
        entry = self._entry
        if entry is None:
            return required
        return {name: need | entry.columns[name] for name, need in required.items()}

    def put(self, columns: Mapping[str, RequiredColumns], database: Database) -> None:
        """Store a database with these columns in place of the cached one, if there is room.

        Without, the next query loads its rows again: what queries cached makes no other one fail.
        """
        self.views[0].derived.pop(self.slot, None)
        cached = [other for other in Database.open() if other.is_cached]
        own = sum(other.pages for other in cached if other.owner == database.owner)
        total = sum(other.pages for other in cached)
        if own + database.pages > CACHED_PAGES // 2 or total + database.pages > CACHED_PAGES:
            return
        database.is_cached = True
        entry = _Entry(tuple(map(ref, self.views)), columns, database)
        self.views[0].derived[self.slot] = entry

    @property
    def _entry(self) -> _Entry | None:
        entry: _Entry | None = self.views[0].derived.get(self.slot)
        if entry is None:
            return None
        same = all(a() is b for a, b in zip(entry.views, self.views, strict=True))
        return entry if same else None
