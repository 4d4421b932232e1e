"""Inventories that one process fetches from Proxmox and publishes for all, sealed per identity."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_bytes
from time import monotonic
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pvemcp_server.store.fleet import CHANNEL, IS_LIVE, NOW, Fleet
from pvemcp_server.store.vault import NONCE_BYTES, Vault

MOST_BYTES: Final = 8 << 20  # of a sealed inventory; a larger one is fetched by each process
MESSAGE: Final = "inventory"

# ahead of the clock, it was set back since: such a one would stay current until then
_IS_PAST: Final = f"taken <= {NOW}"
_LEASE: Final = f"""
INSERT INTO inventories AS i (identity_id, holder, taken)
SELECT id, $2::text, 0 FROM identities WHERE id = $1
ON CONFLICT (identity_id) DO UPDATE SET holder = CASE
    WHEN i.taken > {NOW} - $3::float8 AND i.{_IS_PAST} THEN i.holder
    WHEN EXISTS (SELECT FROM processes WHERE id = i.holder AND id <> $2 AND {IS_LIVE}) THEN i.holder
    ELSE $2 END
RETURNING holder = $2 AS is_ours,
    CASE WHEN {_IS_PAST} THEN {NOW} - taken ELSE 'Infinity' END AS age
"""  # noqa: S608 - constants of this module and of `fleet`
_READ: Final = f"""
SELECT sealed, {NOW} - taken AS age FROM inventories
WHERE identity_id = $1 AND sealed IS NOT NULL AND {_IS_PAST}"""  # noqa: S608 - the same
_IS_NEWER: Final = f"(taken < {NOW} - $4::float8 OR NOT {_IS_PAST})"
_PUBLISH: Final = f"""
UPDATE inventories SET
    holder = CASE WHEN holder = $2 OR {_IS_NEWER} THEN NULL ELSE holder END,
    sealed = CASE WHEN {_IS_NEWER} THEN $3::bytea ELSE sealed END,
    taken = CASE WHEN {_IS_NEWER} THEN {NOW} - $4 ELSE taken END
WHERE identity_id = $1
RETURNING pg_notify({CHANNEL}, '{MESSAGE} ' || identity_id)"""  # noqa: S608 - the same
_RELEASE: Final = f"""
UPDATE inventories SET holder = NULL WHERE identity_id = $1 AND holder = $2
RETURNING pg_notify({CHANNEL}, '{MESSAGE} ' || identity_id)"""  # noqa: S608 - the same


class Lease(NamedTuple):
    """Who fetches an inventory: this process if `is_ours`; `age` of the published one, seconds."""

    is_ours: bool
    age: float


class SharedInventories:
    """Published inventories and the leases to fetch them, by identity.

    Nothing waits for a connection that is lost: Proxmox is asked instead.

    Rows of one account must not reach another: an inventory is encrypted for its identity as it
    was configured when it was fetched (`context`). So a row that is moved in the database, or one
    of a token that has been replaced, cannot be opened.
    """

    def __init__(self, fleet: Fleet, vault: Vault) -> None:
        self._fleet = fleet
        self._vault = vault
        self._published: dict[int, asyncio.Event] = {}
        fleet.on_message(MESSAGE, self._wake)

    @property
    def are_used(self) -> bool:
        """Whether another process can make use of what this one fetches."""
        return self._fleet.takes_part and bool(self._fleet.others)

    async def lease(self, identity_id: int, oldest: float) -> Lease:
        """Take the lease, unless another process has it or one is published that is young enough.

        `oldest` is in seconds. Raise StateUnavailable, as all methods do.
        """
        rows = await self._fleet.fetch_now(_LEASE, identity_id, self._fleet.id, oldest)
        # without a row the identity was removed; calls that have begun may go on
        return Lease(bool(rows[0]["is_ours"]), rows[0]["age"]) if rows else Lease(True, oldest + 1)

    async def read(self, identity_id: int, context: str) -> tuple[bytes, float] | None:
        """Return the published inventory and when it was taken, on our monotonic clock.

        None if there is none, or if it was sealed for another configuration.
        """
        began = monotonic()
        rows = await self._fleet.fetch_now(_READ, identity_id)
        if not rows:
            return None
        sealed: bytes = rows[0]["sealed"]
        try:
            plain = self._cipher().decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()
            )
        except InvalidTag:
            return None
        return plain, began - rows[0]["age"]

    async def publish(self, identity_id: int, context: str, plain: bytes, taken: float) -> None:
        """Publish an inventory, unless a newer one is there, and end the lease.

        Also that of another process, which was slower, or could not end it: no process waits for
        it again.
        """
        nonce = token_bytes(NONCE_BYTES)
        sealed = nonce + self._cipher().encrypt(nonce, plain, context.encode())
        if len(sealed) > MOST_BYTES:
            await self.release(identity_id)
            return
        age = monotonic() - taken
        await self._fleet.fetch_now(_PUBLISH, identity_id, self._fleet.id, sealed, age)

    async def release(self, identity_id: int) -> None:
        """End the lease without an inventory."""
        await self._fleet.fetch_now(_RELEASE, identity_id, self._fleet.id)

    @asynccontextmanager
    async def awaiting(self, identity_id: int) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set when a lease of the inventory ends from now on."""
        event = self._published.setdefault(identity_id, asyncio.Event())
        try:
            yield event
        finally:
            if self._published.get(identity_id) is event:
                del self._published[identity_id]

    def _wake(self, text: str) -> None:
        if event := self._published.pop(int(text), None):
            event.set()

    def _cipher(self) -> AESGCM:
        return AESGCM(self._vault.derive("inventories"))
