"""The last writes of each key, and how they are undone, in the store."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Final

from pydantic import TypeAdapter

from pvemcp_server.store.undo_repository import UndoRepository
from pvemcp_server.toolkit.undo import KeptUndo, Undo

_UNDO: Final[TypeAdapter[Undo]] = TypeAdapter(Undo)


@dataclass(frozen=True, slots=True)
class StoredUndos:
    """An UndoLog for all processes."""

    repository: UndoRepository

    async def add(
        self, key_id: str, cluster: str, done: str, vmids: Collection[int], undo: Undo | None
    ) -> None:
        """Keep a write on these guests, and how it is undone."""
        values = None if undo is None else asdict(undo)
        await self.repository.keep(
            key_id, cluster=cluster, done=done, vmids=sorted(vmids), undo=values
        )

    async def last(self, key_id: str, cluster: str | None, vmid: int | None) -> KeptUndo | None:
        """Return the last one of the key, of a cluster or guest if one is named."""
        newer = ""
        for record in await self.repository.of_key(key_id):
            of_guest = vmid is None or vmid in record.vmids
            if of_guest and (cluster is None or cluster == record.cluster):
                if record.undo is not None:
                    undo = _UNDO.validate_python(record.undo)
                    return KeptUndo(record.id, record.cluster, record.done, undo, newer)
                newer = newer or record.done
        return None

    async def remove(self, kept: KeptUndo) -> None:
        """Drop one that was carried out."""
        await self.repository.remove(kept.id)
