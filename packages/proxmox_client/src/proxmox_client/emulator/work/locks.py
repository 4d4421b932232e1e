"""A guest is locked while something is at work on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxmox_client.emulator.state.guest import Guest


@asynccontextmanager
async def locked(guest: Guest, lock: str) -> AsyncIterator[None]:
    """Hold a lock on a guest, whatever comes of the work."""
    guest.require_unlocked()
    guest.config["lock"] = lock
    guest.touch()
    try:
        yield
    finally:
        guest.config.pop("lock", None)
        guest.touch()
