"""Authentication by API key or access token: from a presented secret to its caller."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from json import dumps
from typing import Final, Protocol

from pvemcp_server.access.grants import grants_to_json
from pvemcp_server.access.model import ANY, Caller, Role
from pvemcp_server.access.roles import role_of
from pvemcp_server.errors import AccessDenied, StateUnavailable, UnknownName
from pvemcp_server.networks import network_of
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.key_format import ACCESS_PREFIX, ID, TOKEN_ID, id_of
from pvemcp_server.store.records import (
    AdminRecord,
    ConnectionRecord,
    KeyRecord,
    TokenKind,
    TokenRecord,
)
from pvemcp_server.store.watch import VersionedCache

MOST_TOKENS: Final = 10_000  # that are cached, expired ones among them
EXPIRED: Final = "expired access token"
"""A refusal that says nothing of an attack: clients refresh their token after it, each hour."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a token of an external authorization server is admitted to, until it expires."""

    token: str  # an id, not the token
    connection_id: str
    scopes: frozenset[str]
    expires: datetime


class IssuerTokens(Protocol):
    """Verifies tokens of an external authorization server; `oauth` implements it."""

    @property
    def is_configured(self) -> bool:
        """Whether there is such a server."""

    async def admit(self, token: str, resource: str) -> Admission:
        """Verify a token; raise AccessDenied if it is not accepted."""

    async def renewed(self, token_id: str, *, expired: bool = False) -> Admission | None:
        """Return what a token that was admitted before is admitted to now; None if to nothing.

        With `expired`, one counts that has run out since.
        """

    def knows(self, token: str) -> Admission | None:
        """Return the admission of a token that is in use; it is no authentication."""


@dataclass(slots=True)
class _LoadedKey:
    """A key with its role, identities and pepper, as cached until access changes.

    `admin` is whose account a connection uses, for as long as it may sign in.
    """

    key: KeyRecord
    allow_from: tuple[IPv4Network | IPv6Network, ...]
    pepper: bytes
    caller: Caller
    admin: AdminRecord | None = None

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
class _LoadedToken:
    """An access token with its pepper, as cached until access changes."""

    token: TokenRecord
    pepper: bytes
    caller: Caller | None = None  # of the last request

    def caller_at(self, loaded: _LoadedKey, address: str) -> Caller:
        """Return the connection's caller; the same object while address and key stay the same."""
        if self.caller is None or self.caller.address != address:
            scopes = frozenset(self.token.scopes)
            self.caller = replace(
                loaded.caller, address=address, scopes=scopes, token=self.token.id
            )
        return self.caller

    def refusal(self, resource: str, now: datetime) -> str:
        """Return why the holder of the secret is refused; empty when admitted."""
        if self.token.expires <= now:
            return EXPIRED
        if self.token.resource != resource:
            return "access token for another endpoint"
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

    Keys and access tokens are cached until anything of Topic.ACCESS changes. Authentication polls
    for changes before it uses the cache, so a revoked one is refused within a second in every
    process, and every one is refused (StateUnavailable) while the database does not answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        admits: Callable[[AdminRecord], bool] = lambda admin: admin.enabled,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._admits = admits
        self._clock = clock
        self._issuer: IssuerTokens | None = None
        self._of_issuer: VersionedCache[str, Caller] = VersionedCache()
        self._loaded: VersionedCache[str, _LoadedKey] = VersionedCache()
        self._tokens: VersionedCache[str, _LoadedToken] = VersionedCache()
        self._used: dict[str, tuple[datetime, str]] = {}
        self._refused: dict[str, _Refusals] = {}
        store.watch.on_change(Topic.ACCESS, self._clear)

    def accept(self, issuer: IssuerTokens) -> None:
        """Accept the tokens of an external authorization server too, while it is configured."""
        self._issuer = issuer

    async def authenticate(self, secret: str, address: str) -> Caller:
        """Return the caller with this API key; raise AccessDenied if it is not accepted.

        No counter is read before the comparison, so a valid key never depends on what others do.
        The gate limits the failures of an address.
        """
        await self._store.watch.poll_if_due()
        loaded = self._loaded.get(secret[ID])  # unchecked: the digest is compared below
        if loaded is None and (key_id := id_of(secret)):
            try:
                loaded = await self._load(key_id)
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
            self._count_refusal(reason, address)
        raise AccessDenied(reason, key_id=loaded.key.id if loaded else None)

    async def authenticate_token(self, token: str, address: str, resource: str) -> Caller:
        """Return the caller with this access token; raise AccessDenied if it is not accepted.

        It is accepted at `resource` only, the endpoint that it was issued for.
        """
        await self._store.watch.poll_if_due()
        try:
            if self._issuer and self._issuer.is_configured and is_jwt(token):
                return await self._of_external(self._issuer, token, address, resource)
            return await self._of_token(token, address, resource)
        except DatabaseFailed as failed:  # since the poll
            raise StateUnavailable("The token cannot be read from the database.") from failed

    async def _of_token(self, secret: str, address: str, resource: str) -> Caller:
        """Return the caller of a connection; raise AccessDenied if the token is not accepted."""
        held = self._tokens.get(secret[TOKEN_ID])  # unchecked: the digest is compared below
        if held is None:
            token_id = id_of(secret, ACCESS_PREFIX)
            held = await self._load_token(token_id) if token_id else None
        if held is None:
            reason = "unknown access token"
            self._count_refusal(reason, address)
            raise AccessDenied(reason)
        key_id, now = held.token.connection_id, self._clock()
        if not hmac.compare_digest(digest_of(secret, held.pepper), held.token.digest):
            reason = "wrong secret of an access token"
            self._count_refusal(reason, address)
            raise AccessDenied(reason)
        loaded = self._loaded.get(key_id) or await self._load(key_id)
        reason = held.refusal(resource, now)
        reason = reason or (self._refusal(loaded, address, now) if loaded else "ended connection")
        if loaded is None or reason:
            raise AccessDenied(reason, key_id=key_id)
        self._used[key_id] = (now, address)
        return held.caller_at(loaded, address)

    async def _of_external(
        self, issuer: IssuerTokens, token: str, address: str, resource: str
    ) -> Caller:
        """Return the caller of a connection, by a token of the external authorization server."""
        if len(self._of_issuer.values()) >= MOST_TOKENS:
            self._of_issuer.clear()
        version = self._of_issuer.version
        admission = await issuer.admit(token, resource)
        key_id = admission.connection_id
        loaded = self._loaded.get(key_id) or await self._load(key_id)
        now = self._clock()
        reason = self._refusal(loaded, address, now) if loaded else "ended connection"
        if loaded is None or reason:
            raise AccessDenied(reason, key_id=key_id)
        self._used[key_id] = (now, address)
        caller = self._of_issuer.get(admission.token)
        if caller is None or caller.address != address:
            scopes, token_id = admission.scopes, admission.token
            caller = replace(loaded.caller, address=address, scopes=scopes, token=token_id)
            self._of_issuer.put(token_id, caller, version)
        return caller

    def _refusal(self, loaded: _LoadedKey, address: str, now: datetime) -> str:
        """Return why a caller is refused; empty when admitted."""
        if loaded.admin is not None and not self._admits(loaded.admin):
            return "connection of an administrator who may not sign in"
        return loaded.refusal(address, now)

    def _count_refusal(self, reason: str, address: str) -> None:
        refusals = self._refused.setdefault(reason, _Refusals())
        refusals.count += 1
        refusals.last_address = network_of(address)

    def knows(self, secret: str, address: str) -> bool:
        """Return whether a key or token with this secret is in use: loaded, without a request.

        It is no authentication; a key that was just changed is unknown until it is used again. One
        that is disabled, expired or not allowed from the address is loaded too, and not in use.
        """
        if self._issuer and is_jwt(secret) and (admission := self._issuer.knows(secret)):
            connection = self._loaded.get(admission.connection_id)
            return connection is not None and not self._refusal(connection, address, self._clock())
        held = self._tokens.get(secret[TOKEN_ID])
        loaded = self._loaded.get(held.token.connection_id if held else secret[ID])
        if loaded is None:
            return False
        pepper = held.pepper if held else loaded.pepper
        digest = held.token.digest if held else loaded.key.digest
        now = self._clock()
        return (
            hmac.compare_digest(digest_of(secret, pepper), digest)
            and not (held and held.token.expires <= now)
            and not self._refusal(loaded, address, now)
        )

    async def caller(self, key_id: str, address: str = "") -> Caller:
        """Return the caller of a key without its secret, to preview its permissions."""
        loaded = await self._load(key_id)
        if loaded is None:
            raise UnknownName("key", key_id, [])
        return loaded.caller_at(address)

    async def still_admits(self, caller: Caller, *, expired: bool = False) -> bool:
        """Return whether a request like the one that authenticated this caller would be admitted.

        By the same rules: its secret, its address, and the state of its key. For streams, which
        stay open after their request was admitted. With `expired`, an access token counts that has
        run out since, but none that was ended: for a call that began before.
        """
        await self._store.watch.poll_if_due()
        now = self._clock()
        if caller.is_external:
            issuer = self._issuer
            if issuer is None or await issuer.renewed(caller.token, expired=expired) is None:
                return False
        elif caller.token:
            held = self._tokens.get(caller.token) or await self._load_token(caller.token)
            if held is None or (held.token.expires <= now and not expired):
                return False
        loaded = self._loaded.get(caller.key_id) or await self._load(caller.key_id)
        return (
            loaded is not None
            and hmac.compare_digest(loaded.key.digest, caller.digest)
            and not self._refusal(loaded, caller.address, now)
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
        connection = await store.connections.find(id=key.id) if key.person else None
        if key.person and connection is None:  # removed since the key was read
            return None
        admin_id = connection.admin_id if connection else None
        admin = await store.admins.find(id=admin_id) if admin_id is not None else None
        own = connection is not None and connection.has_own_accounts
        identities = await store.bindings.of_caller(key.id, None if own else role.id)
        caller = _caller(key, role, identities, connection)
        loaded = _LoadedKey(
            key=key,
            allow_from=tuple(ip_network(text) for text in key.allow_from),
            pepper=await store.vault.pepper_of(key.pepper),
            caller=caller,
            admin=admin,
        )
        self._loaded.put(key_id, loaded, version)
        return loaded

    async def _load_token(self, token_id: str) -> _LoadedToken | None:
        if len(self._tokens.values()) >= MOST_TOKENS:  # each hour brings new ones
            self._tokens.clear()
        version = self._tokens.version  # read before the row, as VersionedCache asks for
        token = await self._store.tokens.find(id=token_id, kind=TokenKind.ACCESS)
        if token is None:
            return None
        held = _LoadedToken(token, await self._store.vault.pepper_of(token.pepper))
        self._tokens.put(token_id, held, version)
        return held

    async def _clear(self) -> None:
        self._loaded.clear()
        self._tokens.clear()
        self._of_issuer.clear()


def is_jwt(secret: str) -> bool:
    """Return whether a secret has the form of a signed JSON Web Token; no key of ours has."""
    return secret.count(".") == 2


def digest_of(secret: str, pepper: bytes) -> bytes:
    """Return the stored form of a key: 256 random bits need no slow hash, only a keyed one."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def _caller(
    key: KeyRecord, role: Role, identities: dict[str, int], connection: ConnectionRecord | None
) -> Caller:
    """Return the caller of a key.

    A connection with accounts of its own reaches the clusters of these and no other one: never
    those on which it would use the server's own token.
    """
    clusters = frozenset(key.clusters)
    if connection is not None and connection.has_own_accounts:
        clusters = frozenset(identities) if ANY in clusters else clusters & identities.keys()
    return Caller(
        key_id=key.id,
        key_name=key.name,
        role=role,
        clusters=clusters,
        tools=frozenset(key.tools),
        toolsets=frozenset(key.toolsets),
        identities=identities,
        output_format=key.output_format,
        unattended=key.unattended,
        digest=key.digest,
        person=key.person or "",
        client=f"{connection.subject}\n{connection.client_id}" if connection else "",
        version=_version(key, role, identities, clusters),
        holder=connection.subject if connection else key.id,
    )


def _version(
    key: KeyRecord, role: Role, identities: dict[str, int], clusters: frozenset[str]
) -> str:
    """Return a digest of the caller's permissions, the same in every process."""
    rights = (
        key.id,
        key.name,
        sorted(clusters),
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
