"""Authentication by API key: from a presented secret to its caller."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from json import dumps

from pvemcp_server.access.grants import grants_to_json
from pvemcp_server.access.limits import network_of
from pvemcp_server.access.model import Caller, Role
from pvemcp_server.access.roles import role_of
from pvemcp_server.errors import AccessDenied, StateUnavailable, UnknownName
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.key_format import ID, id_of
from pvemcp_server.store.records import KeyRecord
from pvemcp_server.store.watch import VersionedCache


@dataclass(slots=True)
class _LoadedKey:
    """A key with its role, identities and pepper, as cached until access changes."""

    key: KeyRecord
    allow_from: tuple[IPv4Network | IPv6Network, ...]
    pepper: bytes
    caller: Caller

    def caller_at(self, address: str) -> Caller:
        """Return the caller; the same object as long as its address stays the same."""
        if self.caller.address != address:
            self.caller = replace(self.caller, address=address)
        return self.caller

    def refusal(self, address: str, now: datetime) -> str:
        """Return why the holder of the secret is refused; empty when admitted."""
        if not self.key.enabled:
            return "disabled key"
        if self.key.expires is not None and self.key.expires <= now:
            return "expired key"
        if self.allow_from and not _is_within(address, self.allow_from):
            return "address not allowed"
        return ""


@dataclass(slots=True)
class _Refusals:
    """The refusals for one reason.

    One notice for each reason, not for each address: attackers must not fill the table.
    """

    count: int = 0
    last_address: str = ""


class KeyAuthenticator:
    """Turns a presented secret into a Caller.

    Keys are cached until anything of Topic.ACCESS changes. `authenticate` polls for changes before
    it uses the cache, so a revoked key is refused within a second in every process, and every key
    is refused (StateUnavailable) while the database does not answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._clock = clock
        self._loaded: VersionedCache[str, _LoadedKey] = VersionedCache()
        self._used: dict[str, tuple[datetime, str]] = {}
        self._refused: dict[str, _Refusals] = {}
        store.watch.on_change(Topic.ACCESS, self._clear)

    async def authenticate(self, secret: str, address: str) -> Caller:
        """Return the caller with this secret; raise AccessDenied if the key is not accepted.

        No counter is read before the comparison, so a valid key never depends on what others do.
        The gate limits the failures of an address.
        """
        await self._store.watch.poll_if_due()
        loaded = self._loaded.get(secret[ID])  # unchecked: the digest is compared below
        if loaded is None:
            key_id = id_of(secret)
            try:
                loaded = await self._load(key_id) if key_id else None
            except DatabaseFailed as failed:  # since the poll
                raise StateUnavailable("The key cannot be read from the database.") from failed
        now = self._clock()
        if not secret:
            reason = "no key"
        elif loaded is None:
            reason = "malformed key" if id_of(secret) is None else "unknown key"
        elif not hmac.compare_digest(digest_of(secret, loaded.pepper), loaded.key.digest):
            reason = "wrong secret"
        else:
            reason = loaded.refusal(address, now)
        if loaded is not None and not reason:
            self._used[loaded.key.id] = (now, address)
            return loaded.caller_at(address)
        if secret:  # a request without a key is nothing to warn of
            refusals = self._refused.setdefault(reason, _Refusals())
            refusals.count += 1
            refusals.last_address = network_of(address)
        raise AccessDenied(reason, key_id=loaded.key.id if loaded else None)

    def knows(self, secret: str, address: str) -> bool:
        """Return whether a key with this secret is in use: one that is loaded, without a request.

        It is no authentication; a key that was just changed is unknown until it is used again. One
        that is disabled, expired or not allowed from the address is loaded too, and not in use.
        """
        loaded = self._loaded.get(secret[ID])
        return (
            loaded is not None
            and hmac.compare_digest(digest_of(secret, loaded.pepper), loaded.key.digest)
            and not loaded.refusal(address, self._clock())
        )

    async def caller(self, key_id: str, address: str = "") -> Caller:
        """Return the caller of a key without its secret, to preview its permissions."""
        loaded = await self._load(key_id)
        if loaded is None:
            raise UnknownName("key", key_id, [])
        return loaded.caller_at(address)

    async def still_admits(self, caller: Caller) -> bool:
        """Return whether a request like the one that authenticated this caller would be admitted.

        By the same rules: its secret, its address, and the state of its key. For streams, which
        stay open after their request was admitted.
        """
        await self._store.watch.poll_if_due()
        loaded = self._loaded.get(caller.key_id) or await self._load(caller.key_id)
        return (
            loaded is not None
            and hmac.compare_digest(loaded.key.digest, caller.digest)
            and not loaded.refusal(caller.address, self._clock())
        )

    async def flush(self) -> None:
        """Store the uses and refusals since the last flush."""
        used, self._used = self._used, {}
        refused, self._refused = self._refused, {}
        if used:
            await self._store.keys.record_uses(used)
        for reason, refusals in refused.items():
            message = f"A key was refused: {reason}, last from {refusals.last_address}."
            await self._store.notices.record("key-refused", reason, message, refusals.count)

    async def _load(self, key_id: str) -> _LoadedKey | None:
        store, version = self._store, self._loaded.version
        key = await store.keys.find(id=key_id)
        record = await store.roles.find(id=key.role_id) if key else None
        if key is None or record is None:
            return None
        role = role_of(record)
        identities = await store.bindings.of_caller(key.id, role.id)
        loaded = _LoadedKey(
            key=key,
            allow_from=tuple(ip_network(text) for text in key.allow_from),
            pepper=await store.vault.pepper_of(key.pepper),
            caller=_caller(key, role, identities),
        )
        self._loaded.put(key_id, loaded, version)
        return loaded

    async def _clear(self) -> None:
        self._loaded.clear()


def digest_of(secret: str, pepper: bytes) -> bytes:
    """Return the stored form of a key: 256 random bits need no slow hash, only a keyed one."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def _caller(key: KeyRecord, role: Role, identities: dict[str, int]) -> Caller:
    return Caller(
        key_id=key.id,
        key_name=key.name,
        role=role,
        clusters=frozenset(key.clusters),
        tools=frozenset(key.tools),
        toolsets=frozenset(key.toolsets),
        identities=identities,
        output_format=key.output_format,
        unattended=key.unattended,
        digest=key.digest,
        version=_version(key, role, identities),
    )


def _version(key: KeyRecord, role: Role, identities: dict[str, int]) -> str:
    """Return a digest of the caller's permissions, the same in every process."""
    rights = (
        key.id,
        key.name,
        key.clusters,
        key.tools,
        key.toolsets,
        key.output_format,
        key.unattended,
        role.name,
        grants_to_json(role.grants),
        sorted(identities.items()),
    )
    return sha256(dumps(rights).encode()).hexdigest()[:16]


def _is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
