"""Envelope encryption of secrets: the master key encrypts data keys, and these encrypt values.

The database holds the encrypted data keys, so a copy of the database alone reveals nothing, and a
new master key only re-encrypts a few rows. An encrypted value begins with the id of its data key.
Its associated data are table, row and column, so it cannot be moved to another row, and what it is
`bound` to: the secret of a Proxmox token to the hosts that it was given for.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Table, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import ConfigError, Undecryptable
from pvemcp_server.store import records
from pvemcp_server.store.audit_log import lock_marks, seal_empty, seal_marks
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.master_key import KEY_BYTES
from pvemcp_server.store.open_approvals import void_open
from pvemcp_server.store.watch import Topic, bump

ID_BYTES = 4
NONCE_BYTES = 12


class Purpose(StrEnum):
    """The use of a data key."""

    SECRETS = "secrets"  # encrypts values; the newest one is used
    PEPPER = "pepper"  # keys the digests of API keys; old ones stay for their keys
    DERIVE = "derive"  # a root of derived keys; the newest one is used, old ones verify the audit


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    """A key that the vault keeps encrypted in the database."""

    id: int
    purpose: Purpose
    material: bytes


class Vault:
    """The data keys, decrypted; `open` needs the right master key."""

    def __init__(self, database: Database, master: bytes, keys: Sequence[DataKey]) -> None:
        self._database = database
        self._master = master
        self._keys = {key.id: key for key in keys}

    @classmethod
    async def open(cls, database: Database, master: bytes) -> "Vault":
        """Read the data keys; in an empty database create them and the audit's head mark.

        Raise ConfigError for the wrong master key.
        """
        async with database.writing() as connection:
            # of processes that start together, the second one waits here and then reads the keys
            await connection.execute(select(records.versions).with_for_update())
            keys = await cls.read(connection, master)
            if keys:
                return cls(database, master, keys)
            made = [await _create(connection, master, purpose) for purpose in Purpose]
            vault = cls(database, master, made)
            await seal_empty(connection, vault)
        return vault

    @staticmethod
    async def read(connection: AsyncConnection, master: bytes) -> list[DataKey]:
        """Read and decrypt the data keys; raise ConfigError for the wrong master key."""
        table = records.vault_keys
        keys = []
        for row in await connection.execute(select(table.c.id, table.c.purpose, table.c.wrapped)):
            context = _context("vault_keys", row.id, row.purpose)
            nonce, rest = row.wrapped[:NONCE_BYTES], row.wrapped[NONCE_BYTES:]
            try:
                material = AESGCM(master).decrypt(nonce, rest, context)
            except (InvalidTag, TypeError, ValueError):  # also of a row that was changed
                raise ConfigError(
                    "The master key does not belong to this database: put your copy back."
                ) from None
            keys.append(DataKey(row.id, Purpose(row.purpose), material))
        return keys

    @staticmethod
    async def is_empty(database: Database) -> bool:
        """Return whether the database has no data keys yet."""
        async with database.reading() as connection:
            count = select(func.count()).select_from(records.vault_keys)
            return not await connection.scalar(count)

    def derive(self, purpose: str) -> bytes:
        """Derive a key of 32 bytes for one purpose, the same in every process until a rotation.

        Do not keep it: a rotation renews it while the process runs.
        """
        return _derive(self._newest(Purpose.DERIVE), purpose)

    @property
    def root(self) -> int:
        """The id of the newest root of derived keys."""
        return self._newest(Purpose.DERIVE).id

    async def audit_key(self, root: int) -> bytes | None:
        """Return the key of the audit chain under this root; None when there is no such root."""
        try:
            key = await self._key(root)
        except ConfigError:
            return None
        return _derive(key, "audit") if key.purpose is Purpose.DERIVE else None

    async def reload(self) -> None:
        """Read the data keys again, after another process has added some."""
        async with self._database.reading() as connection:
            self._keys = {key.id: key for key in await self.read(connection, self._master)}

    @property
    def master(self) -> bytes:
        """The master key, which also signs backups."""
        return self._master

    @property
    def pepper(self) -> DataKey:
        """The pepper of new API keys."""
        return self._newest(Purpose.PEPPER)

    async def pepper_of(self, data_key: int) -> bytes:
        """Return the pepper with this id."""
        return (await self._key(data_key)).material

    def encrypt(
        self, plain: str, table: str, row: int | str, column: str, *, bound: str = ""
    ) -> bytes:
        """Encrypt a text for one row and column; only the same `bound` decrypts it again."""
        key = self._newest(Purpose.SECRETS)
        nonce = secrets.token_bytes(NONCE_BYTES)
        context = _context(table, row, column, bound)
        encrypted = AESGCM(key.material).encrypt(nonce, plain.encode(), context)
        return key.id.to_bytes(ID_BYTES, "big") + nonce + encrypted

    async def decrypt(
        self, encrypted: bytes, table: str, row: int | str, column: str, *, bound: str = ""
    ) -> str:
        """Decrypt a value of the same row, column and `bound`; raise Undecryptable otherwise."""
        key = await self._key(int.from_bytes(encrypted[:ID_BYTES], "big"))
        nonce_end = ID_BYTES + NONCE_BYTES
        nonce, rest = encrypted[ID_BYTES:nonce_end], encrypted[nonce_end:]
        context = _context(table, row, column, bound)
        try:
            return AESGCM(key.material).decrypt(nonce, rest, context).decode()
        except InvalidTag:
            raise Undecryptable(f"The {column} of {table} {row} cannot be decrypted.") from None

    async def rotate(self) -> int:
        """Create new data keys and re-encrypt every secret; return the number of secrets.

        Old data keys stay: another process may be encrypting with one at this moment, API keys keep
        their pepper until they are regenerated, and rows of the audit the key of their time.
        Sessions of administrators end, and open approvals become void.
        """
        async with self._database.writing() as connection:
            count = await self._renew(connection, self._master)
        await self.reload()
        return count

    async def change_master(self, new: bytes) -> None:
        """Encrypt every data key again, with a new master key, and rotate the data keys."""
        table = records.vault_keys
        async with self._database.writing() as connection:
            for key in await self.read(connection, self._master):
                wrapped = _wrap(new, key.id, key.purpose, key.material)
                await connection.execute(
                    table.update().where(table.c.id == key.id).values(wrapped=wrapped)
                )
            await self._renew(connection, new)
        self._master = new
        await self.reload()

    async def _renew(self, connection: AsyncConnection, master: bytes) -> int:
        """Create a data key of each purpose, and use the new ones for everything that is stored.

        The vault itself is not changed, so that a transaction that fails leaves it unchanged.
        """
        await bump(connection, Topic.SECRETS)  # first, as a lock against another rotation
        current = Vault(self._database, self._master, await self.read(connection, master))
        marks = await lock_marks(connection, current)
        made = [await _create(connection, master, purpose) for purpose in Purpose]
        renewed = Vault(self._database, self._master, [*current._keys.values(), *made])
        await seal_marks(connection, renewed, marks)
        # their digests have the old key
        await connection.execute(records.sessions.delete())
        await connection.execute(records.person_sessions.delete())
        await connection.execute(records.inventories.delete())
        await void_open(connection, true())
        tokens = await renewed._reencrypt_tokens(connection)
        factors = await renewed._reencrypt_factors(connection)
        return tokens + factors + await renewed._reencrypt_webhooks(connection)

    async def _reencrypt_tokens(self, connection: AsyncConnection) -> int:
        table = records.identities
        # locked, so that a secret that another process changes now is not overwritten
        query = select(table.c.id, table.c.cluster_id, table.c.secret).with_for_update()
        rows = (await connection.execute(query)).all()
        clusters = (await connection.execute(select(records.clusters))).mappings()
        bounds = {row["id"]: records.ClusterRecord(**row).destination for row in clusters}
        for row in rows:
            bound = bounds[row.cluster_id]
            await self._reencrypt(connection, table, "secret", row.id, row.secret, bound)
        return len(rows)

    async def _reencrypt_factors(self, connection: AsyncConnection) -> int:
        table = records.second_factors
        rows = (await connection.execute(select(table).with_for_update())).mappings().all()
        for row in rows:
            values = {name: value for name, value in row.items() if name != "secret"}
            bound = records.SecondFactorRecord(**values).owner
            await self._reencrypt(connection, table, "secret", row["id"], row["secret"], bound)
        return len(rows)

    async def _reencrypt_webhooks(self, connection: AsyncConnection) -> int:
        table = records.webhooks
        rows = (await connection.execute(select(table).with_for_update())).all()
        for row in rows:
            await self._reencrypt(connection, table, "sealed", row.id, row.sealed)
        return len(rows)

    async def _reencrypt(
        self,
        connection: AsyncConnection,
        table: Table,
        column: str,
        row: int,
        encrypted: bytes,
        bound: str = "",
    ) -> None:
        place = (table.name, row, column)
        plain = await self.decrypt(encrypted, *place, bound=bound)
        new = self.encrypt(plain, *place, bound=bound)
        await connection.execute(table.update().where(table.c.id == row).values({column: new}))

    async def _key(self, data_key: int) -> DataKey:
        """Return the data key with this id; read again one that another process has added."""
        if data_key not in self._keys:
            await self.reload()
        try:
            return self._keys[data_key]
        except KeyError:
            raise ConfigError(f"The database has no data key {data_key}.") from None

    def _newest(self, purpose: Purpose) -> DataKey:
        return self._keys[max(key.id for key in self._keys.values() if key.purpose is purpose)]


def _derive(root: DataKey, purpose: str) -> bytes:
    return hmac.digest(root.material, f"pvemcp:{purpose}".encode(), hashlib.sha256)


def _context(table: str, row: int | str, column: str, bound: str = "") -> bytes:
    return f"pvemcp:{table}:{row}:{column}:{bound}".encode()


def _wrap(master: bytes, key_id: int, purpose: Purpose, material: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master).encrypt(nonce, material, _context("vault_keys", key_id, purpose))


async def _create(connection: AsyncConnection, master: bytes, purpose: Purpose) -> DataKey:
    table = records.vault_keys
    highest = await connection.scalar(select(func.max(table.c.id)))
    key = DataKey((highest or 0) + 1, purpose, secrets.token_bytes(KEY_BYTES))
    wrapped = _wrap(master, key.id, purpose, key.material)
    await connection.execute(
        insert(table).values(id=key.id, purpose=purpose, wrapped=wrapped, created=utc_now())
    )
    return key
