"""Encrypts what must be kept secret, under keys that the master key wraps.

The database holds data keys, each encrypted by the master key, so a copy of the database alone
opens nothing and a new master key only re-wraps a handful of rows. A sealed value begins with the
id of its data key; its associated data are table, row and column, so it opens nowhere else.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import ConfigError
from pvemcp_server.store import schema
from pvemcp_server.store.audit_log import seal_empty
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.master_key import KEY_BYTES

ID_BYTES = 4
NONCE_BYTES = 12


class Purpose(StrEnum):
    SECRETS = "secrets"  # what is encrypted at rest; rotated by making a newer one
    PEPPER = "pepper"  # keys the digests of API keys; old ones stay until their keys are gone
    DERIVE = "derive"  # the root of derived keys: audit chain, CSRF, request state


ROTATED = (Purpose.SECRETS, Purpose.PEPPER)


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    id: int
    purpose: Purpose
    material: bytes


class Vault:
    """Seals and opens values; made by `open`, which needs the right master key."""

    def __init__(self, database: Database, master: bytes, keys: Sequence[DataKey]) -> None:
        self._database = database
        self._master = master
        self._keys = {key.id: key for key in keys}

    @classmethod
    async def open(cls, database: Database, master: bytes) -> "Vault":
        """Reads the data keys; in an empty database makes them and seals the audit's end."""
        async with database.writing() as connection:
            # replicas that start together: the second one waits here and then finds the keys
            await connection.execute(select(schema.versions).with_for_update())
            keys = await cls.read(connection, master)
            if keys:
                return cls(database, master, keys)
            made = [await _create(connection, master, purpose) for purpose in Purpose]
            vault = cls(database, master, made)
            await seal_empty(connection, vault.derive("audit"))
        return vault

    @staticmethod
    async def read(connection: AsyncConnection, master: bytes) -> list[DataKey]:
        """The data keys; raises ConfigError when the master key is not theirs."""
        table = schema.vault_keys
        found = []
        for row in await connection.execute(select(table.c.id, table.c.purpose, table.c.wrapped)):
            place = _place("vault_keys", row.id, row.purpose)
            nonce, rest = row.wrapped[:NONCE_BYTES], row.wrapped[NONCE_BYTES:]
            try:
                material = AESGCM(master).decrypt(nonce, rest, place)
            except InvalidTag:
                raise ConfigError(
                    "The master key is not the one of this database: put your copy back."
                ) from None
            found.append(DataKey(row.id, Purpose(row.purpose), material))
        return found

    @staticmethod
    async def is_empty(database: Database) -> bool:
        async with database.reading() as connection:
            count = select(func.count()).select_from(schema.vault_keys)
            return not await connection.scalar(count)

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, the same in every process and after restarts."""
        root = min(key.id for key in self._keys.values() if key.purpose is Purpose.DERIVE)
        return hmac.digest(self._keys[root].material, f"pvemcp:{purpose}".encode(), hashlib.sha256)

    @property
    def pepper(self) -> DataKey:
        """The pepper for new API keys."""
        return self._newest(Purpose.PEPPER)

    async def pepper_of(self, data_key: int) -> bytes:
        return (await self._key(data_key)).material

    def seal(self, plain: str, table: str, row: int | str, column: str) -> bytes:
        """Encrypts a text for one place in the database."""
        key = self._newest(Purpose.SECRETS)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(key.material).encrypt(nonce, plain.encode(), _place(table, row, column))
        return key.id.to_bytes(ID_BYTES, "big") + nonce + sealed

    async def open_sealed(self, sealed: bytes, table: str, row: int | str, column: str) -> str:
        """Decrypts what `seal` made for the same place."""
        key = await self._key(int.from_bytes(sealed[:ID_BYTES], "big"))
        nonce, rest = sealed[ID_BYTES : ID_BYTES + NONCE_BYTES], sealed[ID_BYTES + NONCE_BYTES :]
        try:
            return AESGCM(key.material).decrypt(nonce, rest, _place(table, row, column)).decode()
        except InvalidTag:
            raise ConfigError(f"The {column} of {table} {row} cannot be decrypted.") from None

    async def rotate(self) -> int:
        """Makes new data keys and re-encrypts every secret; answers how many there were.

        Old data keys stay: another process may just be sealing with one. API keys keep the pepper
        they were made with until they are regenerated.
        """
        async with self._database.writing() as connection:
            made = [await _create(connection, self._master, purpose) for purpose in ROTATED]
            self._keys.update({key.id: key for key in made})
            return await self._reseal(connection, schema.identities, schema.identities.c.secret)

    async def change_master(self, new: bytes) -> None:
        """Wraps every data key with a new master key."""
        table = schema.vault_keys
        async with self._database.writing() as connection:
            for key in await self.read(connection, self._master):
                wrapped = _wrap(new, key.id, key.purpose, key.material)
                await connection.execute(
                    table.update().where(table.c.id == key.id).values(wrapped=wrapped)
                )
        self._master = new

    async def _reseal(
        self, connection: AsyncConnection, table: Table, column: Column[bytes]
    ) -> int:
        # locked: a secret changed meanwhile by another process must not be overwritten
        query = select(table.c.id, column).with_for_update()
        rows = (await connection.execute(query)).all()
        for row_id, sealed in rows:
            plain = await self.open_sealed(sealed, table.name, row_id, column.name)
            again = self.seal(plain, table.name, row_id, column.name)
            await connection.execute(
                table.update().where(table.c.id == row_id).values({column.name: again})
            )
        return len(rows)

    async def _key(self, data_key: int) -> DataKey:
        """The data key with this id, which another process may have made since we looked."""
        if data_key not in self._keys:
            async with self._database.reading() as connection:
                self._keys = {key.id: key for key in await self.read(connection, self._master)}
        try:
            return self._keys[data_key]
        except KeyError:
            raise ConfigError(f"The database has no data key {data_key}.") from None

    def _newest(self, purpose: Purpose) -> DataKey:
        return self._keys[max(key.id for key in self._keys.values() if key.purpose is purpose)]


def _place(table: str, row: int | str, column: str) -> bytes:
    return f"pvemcp:{table}:{row}:{column}".encode()


def _wrap(master: bytes, key_id: int, purpose: Purpose, material: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master).encrypt(nonce, material, _place("vault_keys", key_id, purpose))


async def _create(connection: AsyncConnection, master: bytes, purpose: Purpose) -> DataKey:
    table = schema.vault_keys
    highest = await connection.scalar(select(func.max(table.c.id)))
    key = DataKey((highest or 0) + 1, purpose, secrets.token_bytes(KEY_BYTES))
    wrapped = _wrap(master, key.id, purpose, key.material)
    await connection.execute(
        insert(table).values(id=key.id, purpose=purpose, wrapped=wrapped, created=utc_now())
    )
    return key
