"""Connections: what a user has consented to for one client, with API tokens of their own.

The tokens are made with the user's ticket at their sign-in. Proxmox lets no token list or remove
the tokens of its user. So an ended connection leaves its token behind where no account of the
cluster may remove it: until it expires, or until the user signs in again.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Final

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from proxmox_client import Client, Forbidden, NewToken, NotFound, ProxmoxError, deadline
from pvemcp_server.access.authentication import digest_of
from pvemcp_server.access.model import ANY, READS, Role
from pvemcp_server.clusters import Clusters, explain, reason_of
from pvemcp_server.clusters.acl import OWN_TOKEN_PREFIX
from pvemcp_server.errors import AccessDenied, BadArgument, CallError, ServerError, counted
from pvemcp_server.oauth.person import Account, Person
from pvemcp_server.oauth.scopes import included
from pvemcp_server.store import Store
from pvemcp_server.store.background import ticks
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import new_id, new_secret
from pvemcp_server.store.records import ConnectionRecord, IdentityRecord, KeyRecord
from pvemcp_server.store.watch import Topic, bump

TOKEN_SECONDS: Final = 15
REMEMBERED: Final = timedelta(days=180)  # a consent, after which the page is whole again
NEW: Final = timedelta(minutes=10)  # a token this young may belong to a consent in progress
MOST_OF_CLIENT: Final = 10  # connections of a user with a client: a program's computers
UNUSED: Final = timedelta(minutes=1)  # after a consent, its code is issued
LONGEST_NAME: Final = 64
MOST_OF_USER: Final = 50  # connections: each has sessions, streams and approvals of its own
CLEANED_SECONDS: Final = 60
MOST_LEFT: Final = 10_000  # tokens that a process remembers to be strays
_MARK: Final = re.compile(r"\[([0-9a-f]{12}) (\d{4}-\d\d-\d\dT\d\d:\d\d)Z\]\Z")
_UNUSABLE: Final = re.compile(r"[^\w .@+-]+")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientName:
    """A client as the consent page shows it: its id, its name, and its name with its host."""

    id: str
    name: str
    shown: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user consents to. `clusters` holds ANY or names; all are theirs with accounts."""

    role: Role
    scopes: tuple[str, ...]
    expires: datetime
    clusters: tuple[str, ...] = (ANY,)
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class LeftToken:
    """A Proxmox token that could not be removed; it is worth nothing here any more."""

    cluster: str
    token_id: str

    @property
    def line(self) -> str:
        """The command that removes it, for a shell on a node."""
        userid, _, name = self.token_id.partition("!")
        return f"pveum user token remove {quote(userid)} {quote(name)}"


@dataclass(frozen=True, slots=True)
class _MadeToken:
    """A token that was just made for a user."""

    account: Account
    token: NewToken = field(repr=False)

    @property
    def name(self) -> str:
        return self.token.token_id.partition("!")[2]


class Connections:
    """Makes, lists and ends connections."""

    def __init__(
        self,
        store: Store,
        clusters: Clusters,
        base_url: str,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._clusters = clusters
        self._base_url = base_url
        self._clock = clock
        self._left: set[LeftToken] = set()  # of this process: strays at once, however new

    async def of(
        self, subject: str, client_id: str | None = None
    ) -> list[tuple[ConnectionRecord, KeyRecord]]:
        """List the connections of a user, or with one client, the newest first, with their keys."""
        equals = {"subject": subject} | ({"client_id": client_id} if client_id else {})
        found = []
        for record in await self._store.connections.all(**equals):
            key = await self._store.keys.find(id=record.id)
            if key is not None:
                found.append((record, key))
        return sorted(found, key=lambda each: each[0].created, reverse=True)

    async def surplus(self, connection: ConnectionRecord) -> list[ConnectionRecord]:
        """Return the connections of its user and client beyond MOST_OF_CLIENT.

        They are those that were not used for the longest time, and never `connection` itself.
        """
        others = [
            (key.last_used or record.created, record)
            for record, key in await self.of(connection.subject, connection.client_id)
            if record.id != connection.id
        ]
        others.sort(key=lambda each: each[0], reverse=True)
        return [record for _, record in others[MOST_OF_CLIENT - 1 :]]

    async def connect(self, person: Person, client: ClientName, choice: Choice) -> ConnectionRecord:
        """Make a connection of a user and a client, and return it.

        It never changes, and its tokens are for this consent and these accounts only. Earlier
        connections stay, such as those of the same program on other computers: see `surplus`.

        With Proxmox accounts each chosen cluster gets a new token of the user first. If one cannot
        be made, raise CallError: then nothing is changed, and no token is left.
        """
        accounts = _chosen(person, choice)
        made: list[_MadeToken] = []
        try:
            for account in accounts:
                token = await self._make_token(account, client, choice)
                made.append(_MadeToken(account, token))
            record = await self._store_connection(person, client, choice, made)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(self._remove(each.account, [each.name]) for each in made))
            raise
        return record

    async def end(
        self, connection_id: str, person: Person | None = None, *, forget: bool = False
    ) -> list[LeftToken]:
        """End a connection at once, in every process; return the Proxmox tokens that are left.

        The tokens are removed with the ticket of the user, if `person` is given, or by the default
        account of the cluster, where that may. With `forget`, the consent for the client is not
        remembered any more. A user of an external issuer, whose tokens go on, is refused with every
        client until `allow`.
        """
        record = await self._store.connections.find(id=connection_id)
        if record is not None and record.is_external:
            await self._enable(record.subject, enabled=False)
            return []
        if record is not None and forget:
            await self._store.consents.forget(record.subject, record.client_id)
        return await self._remove_connection(connection_id, person)

    async def allow(self, subject: str) -> None:
        """Admit a user of an external issuer again whose connections were ended."""
        await self._enable(subject, enabled=True)

    async def follow_issuer(
        self,
        person: Person,
        client: ClientName,
        *,
        role_id: int,
        clusters: Iterable[str],
        scopes: Iterable[str],
        expires: datetime,
    ) -> ConnectionRecord:
        """Make the connection of a user of an external issuer, or bring it up to date.

        Of concurrent requests, also of other processes, one makes it. Raise AccessDenied for a user
        whose connections an administrator has ended.
        """
        store, subject = self._store, person.subject
        values = {"role_id": role_id, "clusters": sorted(clusters), "expires": expires}
        async with store.database.writing() as connection:
            await bump(connection, Topic.ACCESS)  # concurrent requests wait here
            others = await store.connections.all_in(connection, subject=subject)
            for each in others:
                key = await store.keys.find_in(connection, id=each.id)
                if key is not None and not key.enabled:
                    raise AccessDenied("connection that an administrator has ended", key_id=each.id)
            record = next((each for each in others if each.client_id == client.id), None)
            if record is None and len(others) >= MOST_OF_USER:
                raise AccessDenied("a user with too many clients")
            if record is None:
                key_id = await self._add_key(connection, person, client, {"tools": [ANY], **values})
                return await store.connections.add_in(
                    connection,
                    id=key_id,
                    subject=subject,
                    admin_id=None,
                    client_id=client.id,
                    client_name=client.shown,
                    scopes=list(scopes),
                    read_only=False,
                    created=self._clock(),
                )
            await store.keys.change_in(connection, record.id, **values)
            widest = list(included({*record.scopes, *scopes}))
            await store.connections.change_in(connection, record.id, scopes=widest)
            return record

    async def _enable(self, subject: str, *, enabled: bool) -> None:
        store = self._store
        async with store.database.writing() as connection:
            await bump(connection, Topic.ACCESS)
            for each in await store.connections.all_in(connection, subject=subject):
                await store.keys.change_in(connection, each.id, enabled=enabled)
        await store.watch.poll()

    async def _remove_connection(
        self, connection_id: str, person: Person | None = None
    ) -> list[LeftToken]:
        store = self._store
        identities = await store.identities.all(connection_id=connection_id)
        async with store.database.writing() as connection:
            for identity in identities:
                await store.identities.remove_in(connection, identity.id)
            await store.keys.remove_in(connection, connection_id)
        await store.watch.poll()
        return await self._remove_tokens(identities, person)

    async def run_housekeeping(self, stop: anyio.Event) -> None:
        """Remove what has expired, every minute."""
        async for _ in ticks(stop, CLEANED_SECONDS):
            if stop.is_set():
                return
            try:
                await self.remove_expired()
            except Exception:
                log.warning("Expired connections could not be removed", exc_info=True)

    async def remove_expired(self) -> None:
        """End connections that cannot be used any more, and delete expired sessions of users."""
        now = self._clock()
        await self._store.person_sessions.remove_expired(now)  # first: a silent cluster takes time
        await self._store.consents.remove_expired(now)
        for connection_id in await self._store.connections.finished(now, made_before=now - UNUSED):
            await self._remove_connection(connection_id)

    async def _make_token(self, account: Account, client: ClientName, choice: Choice) -> NewToken:
        name = account.place.name
        record, api = await self._clusters.for_user(name, account.ticket)
        account.place.check(record)
        comment = f"{client.shown}, connected by pvemcp at {self._base_url} {self._mark(account)}"
        try:
            with deadline(TOKEN_SECONDS):
                return await api.access.create_token(
                    account.userid,
                    f"{OWN_TOKEN_PREFIX}{new_id()}",
                    comment=comment,
                    expire=int(choice.expires.timestamp()),
                    privsep=False,
                )
        except Forbidden as error:
            raise CallError(
                f"{account.userid} may not make API tokens on {name} ({reason_of(error)}).",
                hint=f"Leave {name} out, sign in with another account or as an administrator of "
                "this server, or ask an administrator for an API key.",
            ) from error
        except ProxmoxError as error:
            raise CallError(
                f"No API token was made on {name}: {explain(error, account.userid)}"
            ) from error

    async def _store_connection(
        self, person: Person, client: ClientName, choice: Choice, made: Iterable[_MadeToken]
    ) -> ConnectionRecord:
        """Write key, connection, identities and bindings at once."""
        store = self._store
        key_values = {
            "role_id": choice.role.id,
            "clusters": sorted(choice.clusters),
            "tools": [READS] if choice.read_only else [ANY],
            "expires": choice.expires,
        }
        async with store.database.writing() as connection:
            await bump(connection, Topic.CLUSTERS, Topic.ACCESS)  # concurrent consents wait here
            held = await store.connections.all_in(connection, subject=person.subject)
            if len(held) >= MOST_OF_USER:
                raise CallError(
                    f"You have {MOST_OF_USER} connections already.", hint="End one of them first."
                )
            record = await store.connections.add_in(
                connection,
                id=await self._add_key(connection, person, client, key_values),
                subject=person.subject,
                admin_id=person.admin_id,
                client_id=client.id,
                client_name=client.shown,
                scopes=list(choice.scopes),
                read_only=choice.read_only,
                created=self._clock(),
            )
            for each in made:
                await self._add_identity(connection, record.id, each)
            await store.consents.put_in(
                connection,
                person.subject,
                client.id,
                most=MOST_OF_USER,
                admin_id=person.admin_id,
                role_id=choice.role.id,
                scopes=list(choice.scopes),
                clusters=sorted(choice.clusters),
                read_only=choice.read_only,
                created=self._clock(),
                expires=self._clock() + REMEMBERED,
            )
        await store.watch.poll()
        return record

    async def _add_identity(
        self, connection: AsyncConnection, connection_id: str, made: _MadeToken
    ) -> None:
        """Add a token as the connection's identity on its cluster."""
        cluster_id = made.account.place.id
        identity = await self._store.identities.add_in(
            connection,
            cluster_id=cluster_id,
            connection_id=connection_id,
            name=f"connection {connection_id}",
            token_id=made.token.token_id,
            secret=made.token.secret,
        )
        await self._store.bindings.add_in(
            connection,
            cluster_id=cluster_id,
            identity_id=identity.id,
            key_id=connection_id,
            role_id=None,
        )

    async def _add_key(
        self,
        connection: AsyncConnection,
        person: Person,
        client: ClientName,
        values: Mapping[str, object],
    ) -> str:
        """Insert the key row of a connection, whose secret is forgotten, and return its id."""
        key_id, pepper = new_id(), self._store.vault.pepper
        await self._store.keys.add_in(
            connection,
            id=key_id,
            name=await self._free_name(connection, f"{person.name} via {client.name}"),
            person=person.name,
            digest=digest_of(new_secret(key_id), pepper.material),
            pepper=pepper.id,
            toolsets=[],
            allow_from=[],
            enabled=True,
            created=self._clock(),
            **values,
        )
        return key_id

    async def _free_name(self, connection: AsyncConnection, text: str) -> str:
        """Return the text as a name that no key has."""
        name = " ".join(_UNUSABLE.sub(" ", text).split())[:LONGEST_NAME].rstrip(" .-")
        free, count = name, 1
        while await self._store.keys.find_in(connection, name=free):
            count += 1
            free = f"{name[: LONGEST_NAME - 1 - len(str(count))]} {count}"
        return free

    async def remove_strays(self, account: Account) -> None:
        """Remove the tokens that ended connections have left, with the ticket of a new sign-in."""
        try:
            with deadline(TOKEN_SECONDS):
                api = await self._api(account)
                tokens = await api.access.tokens(account.userid)
                used = {each.token_id for each in await self._store.identities.all()}
                strays = [
                    token.token_id
                    for token in tokens
                    if f"{account.userid}!{token.token_id}" not in used
                    and self._is_stray(account, token.token_id, token.comment or "")
                ]
                if removed := await self._remove(account, strays):
                    text = counted(removed, "stray token")
                    log.info("Removed %s of %s", text, account.userid)
                self._left -= {_left_token(account, name) for name in strays}
        except (ProxmoxError, ServerError) as error:
            log.info("The tokens of %s cannot be read: %s", account.userid, error)

    def _is_stray(self, account: Account, name: str, comment: str) -> bool:
        """Return whether this server made the token, and has ended it, or not made it just now."""
        mark = _MARK.search(comment)
        if not name.startswith(OWN_TOKEN_PREFIX) or mark is None or mark[1] != self._tag(account):
            return False
        if _left_token(account, name) in self._left:
            return True
        made = datetime.fromisoformat(mark[2]).replace(tzinfo=UTC)
        return abs(self._clock() - made) > NEW

    def _mark(self, account: Account) -> str:
        """Return the end of a token's comment, by which this server knows it again."""
        return f"[{self._tag(account)} {self._clock():%Y-%m-%dT%H:%M}Z]"

    def _tag(self, account: Account) -> str:
        key = self._store.vault.derive("tokens of users")
        return hmac.digest(key, account.userid.encode(), "sha256").hex()[:12]

    async def _remove_tokens(
        self, identities: Iterable[IdentityRecord], person: Person | None
    ) -> list[LeftToken]:
        """Remove tokens at Proxmox; return those that no account could remove."""
        clusters = {record.id: record.name for record in await self._store.clusters.all()}
        accounts = {
            (account.place.id, account.userid): account
            for account in (person.accounts.values() if person else ())
        }

        async def remove(identity: IdentityRecord) -> LeftToken | None:
            userid, _, name = identity.token_id.partition("!")
            cluster = clusters.get(identity.cluster_id)
            account = accounts.get((identity.cluster_id, userid))
            if cluster is None or (account and await self._remove(account, [name])):
                return None
            if await self._remove_by_default(cluster, userid, name):
                return None
            return LeftToken(cluster, identity.token_id)

        left = [each for each in await asyncio.gather(*map(remove, identities)) if each]
        if len(self._left) < MOST_LEFT:
            self._left.update(left)
        return left

    async def _remove(self, account: Account, names: Iterable[str]) -> int:
        """Remove tokens with the user's own ticket, as far as that is possible; return how many."""
        removed = 0
        for name in names:
            try:
                with deadline(TOKEN_SECONDS):
                    api = await self._api(account)
                    removed += await _delete(api, account.userid, name)
            except (ProxmoxError, ServerError) as error:
                log.info("The token %s of %s stays: %s", name, account.userid, error)
        return removed

    async def _remove_by_default(self, cluster: str, userid: str, name: str) -> bool:
        """Remove a token with the cluster's default account; return whether that worked."""
        try:
            with deadline(TOKEN_SECONDS):
                client = (await self._clusters.connection(cluster)).client
                return isinstance(client, Client) and await _delete(client, userid, name)
        except (ProxmoxError, ServerError):
            return False  # it lacks User.Modify, as it should, or the cluster does not answer

    async def _api(self, account: Account) -> Client:
        record, client = await self._clusters.for_user(account.place.name, account.ticket)
        account.place.check(record)
        return client


def _left_token(account: Account, name: str) -> LeftToken:
    return LeftToken(account.place.name, f"{account.userid}!{name}")


async def _delete(client: Client, userid: str, name: str) -> bool:
    """Delete a token; a missing one is as good as deleted."""
    with suppress(NotFound):
        await client.access.delete_token(userid, name)
    return True


def _chosen(person: Person, choice: Choice) -> list[Account]:
    """Return the accounts of the chosen clusters; raise BadArgument if there is none."""
    if person.admin_id is not None:
        return []
    unknown = set(choice.clusters) - person.accounts.keys()
    if unknown or not choice.clusters:
        raise BadArgument("clusters", "choose one or more of those that you are signed in on.")
    return [person.accounts[name] for name in sorted(choice.clusters)]
