"""Databases made of snapshots, kept as long as these: the next query finds its rows loaded."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from weakref import ref

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.query.engine import Database
from pvemcp_server.query.pushdown import RequiredColumns


@dataclass(frozen=True)
class _Kept:
    snapshots: tuple[
        ref[InventoryView], ...
    ]  # weak: it is kept with one of them, and goes with that
    needed: Mapping[str, RequiredColumns]
    database: Database


@dataclass(frozen=True)
class DatabaseCache:
    """The place of one database: beside the first of the snapshots it is made of.

    A snapshot is of one cluster, one Proxmox identity and one scope, so what is kept with it is
    for nobody else; and it goes when the snapshot does.
    """

    slot: tuple[str, tuple[str, ...], tuple[str, ...]]
    snapshots: tuple[InventoryView, ...]

    @classmethod
    async def of(cls, views: Sequence[Cluster], tables: Iterable[str]) -> Self | None:
        """The place for these tables of these clusters; none when one of them doesn't answer."""
        answers = await asyncio.gather(
            *(view.inventory_view() for view in views), return_exceptions=True
        )
        if not answers or any(isinstance(one, ProxmoxError | TimeoutError) for one in answers):
            return None
        snapshots = tuple(one for one in answers if isinstance(one, InventoryView))
        if len(snapshots) < len(answers):
            raise next(one for one in answers if isinstance(one, BaseException))
        slot = ("database", tuple(sorted(tables)), tuple(view.name for view in views))
        return cls(slot, snapshots)

    def database(self, needed: Mapping[str, RequiredColumns]) -> Database | None:
        """What is kept there, if it was made of just these snapshots and has all that is needed."""
        kept = self._kept
        fits = kept and all(need <= kept.needed[name] for name, need in needed.items())
        return kept.database if kept and fits else None

    def with_kept(self, needed: Mapping[str, RequiredColumns]) -> Mapping[str, RequiredColumns]:
        """What is needed and what was needed before: so that both find it next time."""
        kept = self._kept
        return {n: need | kept.needed[n] for n, need in needed.items()} if kept else needed

    def keep(self, needed: Mapping[str, RequiredColumns], database: Database) -> None:
        self.snapshots[0].derived[self.slot] = _Kept(
            tuple(map(ref, self.snapshots)), needed, database
        )

    @property
    def _kept(self) -> _Kept | None:
        kept: _Kept | None = self.snapshots[0].derived.get(self.slot)
        if kept is None:
            return None
        same = all(a() is b for a, b in zip(kept.snapshots, self.snapshots, strict=True))
        return kept if same else None
