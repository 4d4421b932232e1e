"""The lock of a guest, held by a task."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxmox_client.emulator.state.guest import Guest


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
