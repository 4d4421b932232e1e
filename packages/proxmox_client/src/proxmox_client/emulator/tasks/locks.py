"""The lock of a guest, held by a task."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest


def unwritable(guest: Guest, state: ClusterState) -> str:
    """Return the error of writing a guest's configuration without quorum."""
    file = f"/etc/pve/nodes/{guest.node}/{guest.kind.folder}/{guest.vmid}.conf"
    return f"unable to open file '{file}.tmp.{state.next_pid()}' - Permission denied"


@asynccontextmanager
async def locked(guest: Guest, lock: str) -> AsyncIterator[None]:
    """Hold a guest's lock until the end of the block; raise ApiError if it is locked."""
    guest.require_unlocked()
    guest.config["lock"] = lock
    guest.touch()
    try:
        yield
    finally:
        guest.config.pop("lock", None)
        guest.touch()
