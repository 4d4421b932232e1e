"""An inventory that is fetched once for all processes, and rows that many accounts share."""

import zlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Final, Self, TypeVar

import anyio
import msgspec

from proxmox_client.api.backup_server import DatastoreUsage
from proxmox_client.api.resources import (
    LxcResource,
    NodeResource,
    PoolResource,
    QemuResource,
    StorageResource,
)
from pvemcp_server import __version__
from pvemcp_server.clusters.cluster import offload
from pvemcp_server.clusters.inventory import InventoryView
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store.records import ClusterRecord, IdentityRecord
from pvemcp_server.store.shared_inventories import SharedInventories

WAIT_SECONDS: Final = 4.0  # for another process that fetches; then this one asks as well
LOOK_SECONDS: Final = 0.5  # between looks whether it is alive
GENERATION_SECONDS: Final = 10.0  # of statistics, which pvestatd renews so often
T = TypeVar("T")


class Published(msgspec.Struct, frozen=True, array_like=True):
    """An InventoryView as other processes read it; its rows are those of Proxmox."""

    taken_at: datetime
    guests: tuple[QemuResource | LxcResource, ...]
    nodes: tuple[NodeResource, ...]
    storages: tuple[StorageResource, ...]
    pools: tuple[PoolResource, ...]
    malformed: tuple[str, ...]
    datastores: tuple[DatastoreUsage, ...]

    @classmethod
    def of(cls, view: InventoryView) -> Self:
        return cls(*(getattr(view, name) for name in cls.__struct_fields__))

    def view(self, taken: float) -> InventoryView:
        """Return the view; `taken` is on the monotonic clock of this process."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return InventoryView(taken=taken, **values)

    def packed(self) -> bytes:
        return zlib.compress(msgspec.msgpack.encode(self), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        return msgspec.msgpack.decode(zlib.decompress(data), type=cls)


@dataclass(frozen=True)
class SharedInventory:
    """The inventory of one identity in all processes: the holder of its lease fetches it.

    The others wait for what it publishes. They take over when it ends or is killed, and ask Proxmox
    themselves, without the lease, when it takes longer than WAIT_SECONDS, or the database does not
    answer.
    """

    shared: SharedInventories
    identity_id: int
    context: str  # what a published one belongs to, and the version that writes and reads it

    @classmethod
    def of(
        cls,
        shared: SharedInventories,
        record: ClusterRecord,
        identity: IdentityRecord,
        secret_digest: bytes,
    ) -> Self:
        digest = secret_digest.hex()
        parts = (__version__, identity.id, identity.token_id, digest, record.destination)
        return cls(shared, identity.id, f"pvemcp:inventories:{':'.join(map(str, parts))}")

    async def view(
        self, fetch: Callable[[float], Awaitable[InventoryView]], sent: float, oldest: float
    ) -> InventoryView:
        """Return a view that was taken after `oldest`: a published one, or else by `fetch`."""
        if not self.shared.are_used:
            return await fetch(sent)
        is_ours = True  # the lease, perhaps: also after a cancellation, or when its answer was lost
        try:
            found = None
            with suppress(StateUnavailable):
                found, is_ours = await self._found(oldest)
            if found is not None:
                return found
            view = await fetch(sent)
            with suppress(StateUnavailable):
                packed = await offload(len(view.guests), Published.of(view).packed)
                await self.shared.publish(self.identity_id, self.context, packed, view.taken)
                is_ours = False
            return view
        finally:
            if is_ours:
                with suppress(StateUnavailable), anyio.move_on_after(WAIT_SECONDS, shield=True):
                    await self.shared.release(self.identity_id)

    async def _found(self, oldest: float) -> tuple[InventoryView | None, bool]:
        """Return a published view, or None when it has to be fetched; and if the lease is ours.

        One that cannot be opened, as of a token that was replaced, is no reason to wait.
        """
        ends, is_readable = monotonic() + WAIT_SECONDS, True
        while True:
            async with self.shared.awaiting(self.identity_id) as ended:
                young = monotonic() - oldest if is_readable else 0.0
                lease = await self.shared.lease(self.identity_id, young)
                if monotonic() - lease.age > oldest:
                    found = await self._read(oldest)
                    if found is not None:
                        return found, lease.is_ours
                    if is_readable and not lease.is_ours:
                        is_readable = False
                        continue
                if lease.is_ours or monotonic() >= ends:
                    return None, lease.is_ours
                with anyio.move_on_after(min(LOOK_SECONDS, ends - monotonic())):
                    await ended.wait()

    async def _read(self, oldest: float) -> InventoryView | None:
        read = await self.shared.read(self.identity_id, self.context)
        if read is None or read[1] <= oldest:
            return None
        packed, taken = read
        published = await offload(len(packed) // 100, lambda: Published.unpacked(packed))
        return published.view(taken)


@dataclass
class RowPool:
    """Rows of one cluster that several accounts see: equal ones are kept once.

    Two generations of statistics are kept; a row that is older is shared by those that have it.
    """

    _rows: dict[object, object] = field(default_factory=dict)
    _older: dict[object, object] = field(default_factory=dict)
    _since: float = field(default_factory=monotonic)

    def shared(self, rows: Iterable[T]) -> tuple[T, ...]:
        """Return the rows, with those of the pool in place of equal ones."""
        if monotonic() - self._since >= GENERATION_SECONDS:
            self._rows, self._older, self._since = {}, self._rows, monotonic()
        return tuple(self._rows.setdefault(row, self._older.get(row, row)) for row in rows)  # type: ignore[misc]  # equal rows are of one type
