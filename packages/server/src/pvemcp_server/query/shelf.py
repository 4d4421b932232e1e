"""Databases made of snapshots, kept as long as these: the next query finds its rows loaded."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster, Snapshot
from pvemcp_server.query.engine import Database

Keys = Mapping[str, set[tuple[str, ...]]]


@dataclass(frozen=True)
class _Kept:
    snapshots: tuple[Snapshot, ...]
    keys: frozenset[tuple[str, tuple[str, ...]]]
    database: Database


@dataclass(frozen=True)
class Shelf:
    """The place of one database: beside the first of the snapshots it is made of.

    A snapshot is of one cluster, one Proxmox identity and one scope, so what is kept with it is
    for nobody else; and it goes when the snapshot does.
    """

    slot: tuple[str, tuple[str, ...], tuple[str, ...]]
    snapshots: tuple[Snapshot, ...]
    keys: frozenset[tuple[str, tuple[str, ...]]]

    @classmethod
    async def of(cls, views: Sequence[Cluster], keys: Keys) -> Self | None:
        """The place for these tables of these clusters; none when one of them doesn't answer."""
        answers = await asyncio.gather(*(view.snapshot() for view in views), return_exceptions=True)
        if not answers or any(isinstance(one, ProxmoxError | TimeoutError) for one in answers):
            return None
        snapshots = tuple(one for one in answers if isinstance(one, Snapshot))
        if len(snapshots) < len(answers):
            raise next(one for one in answers if isinstance(one, BaseException))
        joined = frozenset((name, key) for name, some in keys.items() for key in some)
        slot = ("database", tuple(sorted(keys)), tuple(view.name for view in views))
        return cls(slot, snapshots, joined)

    @property
    def database(self) -> Database | None:
        """What is kept there, if it was made of just these snapshots."""
        kept: _Kept | None = self.snapshots[0].derived.get(self.slot)
        if kept is None or not self.keys <= kept.keys:
            return None
        same = all(a is b for a, b in zip(kept.snapshots, self.snapshots, strict=True))
        return kept.database if same else None

    def keep(self, database: Database) -> None:
        self.snapshots[0].derived[self.slot] = _Kept(self.snapshots, self.keys, database)
