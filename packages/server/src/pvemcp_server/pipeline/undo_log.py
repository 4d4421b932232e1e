"""The last writes of each key that can be undone, in the store."""

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

    async def add(self, key_id: str, cluster: str, done: str, undo: Undo) -> None:
        """Keep how a write is undone."""
        await self.repository.keep(key_id, cluster=cluster, done=done, undo=asdict(undo))

    async def last(self, key_id: str, cluster: str | None, vmid: int | None) -> KeptUndo | None:
        """Return the last one of the key, of a cluster or guest if one is named."""
        for record in await self.repository.of_key(key_id):
            undo = _UNDO.validate_python(record.undo)
            of_guest = vmid is None or vmid in undo.call.vmids
            if of_guest and (cluster is None or cluster == record.cluster):
                return KeptUndo(record.id, record.cluster, record.done, undo)
        return None

    async def remove(self, kept: KeptUndo) -> None:
        """Drop one that was carried out."""
        await self.repository.remove(kept.id)
