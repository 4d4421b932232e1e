"""Lets the holder of a valid API key in, quickly, and nobody else."""

import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from json import dumps

from pvemcp_server.access.grants import grants_to_json
from pvemcp_server.access.keys import digest_of
from pvemcp_server.access.limits import Rate, network_of
from pvemcp_server.access.model import Caller, Role
from pvemcp_server.access.roles import role_of
from pvemcp_server.errors import AccessDenied, TooManyFailures, UnknownName
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import id_of, stated_id
from pvemcp_server.store.records import KeyRecord

FAILURES_PER_MINUTE = 20
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pass:
    """All that is needed to judge a key, read once and forgotten at the next change."""

    key: KeyRecord
    allow_from: tuple[IPv4Network | IPv6Network, ...]
    pepper: bytes
    caller: Caller

    def caller_at(self, address: str) -> Caller:
        """The caller; the same object as last time while it stays where it is."""
        if self.caller.address != address:
            self.caller = replace(self.caller, address=address)
        return self.caller


@dataclass(slots=True)
class _Refusals:
    """Refusals for one reason: a notice for each address would let strangers fill the table."""

    times: int = 0
    source: str = ""

    def count(self, source: str) -> None:
        self.times += 1
        self.source = source


class KeyAuthenticator:
    """Turns a presented secret into a Caller; remembers keys until anything of access changes."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._passes: dict[str, _Pass] = {}
        self._generation = 0
        self._failures = Rate(clock=monotonic)
        self._used: dict[str, tuple[datetime, str]] = {}
        self._refused: dict[str, _Refusals] = {}
        store.watch.on_change(Topic.ACCESS, self._forget)

    async def authenticate(self, secret: str, address: str) -> Caller:
        """The caller who holds this secret; raises AccessDenied, whatever is wrong."""
        await self._store.watch.fresh()
        known = self._passes.get(stated_id(secret))
        if known is None:
            key_id = id_of(secret)
            if self._failures.left(network_of(address), FAILURES_PER_MINUTE) < 1:
                raise TooManyFailures("too many failed attempts from this address")
            known = await self._load(key_id) if key_id else None
        try:
            return self._admit(known, secret, address)
        except AccessDenied as denied:
            source = network_of(address)
            if secret:  # a visitor without any key is nothing to warn of
                self._refused.setdefault(denied.reason, _Refusals()).count(source)
            if not self._failures.take(source, FAILURES_PER_MINUTE):
                raise TooManyFailures("too many failed attempts from this address") from denied
            raise

    async def caller(self, key_id: str, address: str = "") -> Caller:
        """The caller a key would become: for previews of what it may do."""
        found = await self._load(key_id)
        if found is None:
            raise UnknownName("key", key_id, [])
        return found.caller_at(address)

    async def flush(self) -> None:
        """Writes down uses and refusals gathered since the last time."""
        used, self._used = self._used, {}
        refused, self._refused = self._refused, {}
        if used:
            await self._store.keys.note_uses(used)
        for reason, seen in refused.items():
            message = f"A key was refused: {reason}, last from {seen.source}."
            await self._store.notices.tell("key-refused", reason, message, seen.times)

    def _admit(self, known: _Pass | None, secret: str, address: str) -> Caller:
        if known is None:
            raise AccessDenied(_why_unknown(secret))
        key = known.key
        if not hmac.compare_digest(digest_of(secret, known.pepper), key.digest):
            raise AccessDenied("wrong secret", key_id=key.id)
        if not key.enabled:
            raise AccessDenied("disabled key", key_id=key.id)
        now = self._clock()
        if key.expires is not None and key.expires <= now:
            raise AccessDenied("expired key", key_id=key.id)
        if known.allow_from and not _is_within(address, known.allow_from):
            raise AccessDenied("address not allowed", key_id=key.id)
        self._used[key.id] = (now, address)
        return known.caller_at(address)

    async def _load(self, key_id: str) -> _Pass | None:
        store, generation = self._store, self._generation
        key = await store.keys.find(id=key_id)
        record = await store.roles.find(id=key.role_id) if key else None
        if key is None or record is None:
            return None
        role = role_of(record)
        identities = await store.bindings.of_caller(key.id, role.id)
        found = _Pass(
            key=key,
            allow_from=tuple(ip_network(text) for text in key.allow_from),
            pepper=await store.vault.pepper_of(key.pepper),
            caller=_caller(key, role, identities),
        )
        # what was read before a change that we have heard of meanwhile is not kept
        if generation == self._generation:
            self._passes[key_id] = found
        return found

    async def _forget(self) -> None:
        self._generation += 1
        self._passes.clear()


def _why_unknown(secret: str) -> str:
    if not secret:
        return "no key"
    return "malformed key" if id_of(secret) is None else "unknown key"


def _caller(key: KeyRecord, role: Role, identities: dict[str, int]) -> Caller:
    return Caller(
        key_id=key.id,
        key_name=key.name,
        role=role,
        clusters=frozenset(key.clusters),
        toolset=frozenset(key.toolset),
        identities=identities,
        output_format=key.output_format,
        version=_version(key, role, identities),
    )


def _version(key: KeyRecord, role: Role, identities: dict[str, int]) -> str:
    """The same in every process for the same rights: a digest of them."""
    rights = (
        key.id,
        key.name,
        key.clusters,
        key.toolset,
        key.output_format,
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
