"""Connections: what users have consented to for their AI clients; list and end them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from pvemcp_server.access.fields import Fields
from pvemcp_server.admin.audit import turn_of_read
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Column, Command, Result, Route, Subject
from pvemcp_server.admin.permission import EVERYONE, ISSUERS, OWNERS
from pvemcp_server.errors import BadArgument, UnknownName

subject = Subject("Connections", {"connections": "List and end the connections of users."})
ConnectionName = Annotated[str, Field(description="Id or name of the connection")]


class Account(BaseModel):
    """The Proxmox API token of the user that a connection calls a cluster with."""

    cluster: str
    token_id: str


class Connection(BaseModel):
    """A connection of a user, without its tokens. `calls` counts those in the audit."""

    id: str
    name: str
    is_ended: bool = Field(
        description="Whether it is refused until it is allowed again: of an external issuer's user"
    )
    user: str
    subject: str = Field(description="Who signed in, with where: unlike the name it is unique")
    client: str = Field(description="As it calls itself, with its host")
    client_id: str
    role: str
    clusters: list[str]
    scopes: list[str]
    read_only: bool
    accounts: list[Account]
    created: datetime
    expires: datetime | None
    last_used: datetime | None
    last_address: str | None
    calls: int


class Ended(Fields):
    """Whose connections to end: of a user, of a client, or of a user with a client."""

    user: str | None = Field(default=None, description="Name or subject of the user")
    client: str | None = Field(default=None, description="Name or id of the client")


class LeftProxmoxToken(BaseModel):
    """An API token that is left on a cluster until it expires; its secret is destroyed here."""

    cluster: str
    token_id: str
    command: str = Field(description="What removes it, in a shell on a node")


class EndedConnections(BaseModel):
    """The names of connections that were ended, and the Proxmox API tokens that are left."""

    ended: list[str]
    left: list[LeftProxmoxToken]


def _ended_text(result: Result) -> str:
    ended: EndedConnections = result.answer
    lines = [f"Ended {name}." for name in ended.ended] or ["No connection was ended."]
    if ended.left:
        lines.append("Left until they expire, without use to this server; remove them on a node:")
    return "\n".join([*lines, *(f"  {each.cluster}: {each.command}" for each in ended.left)])


@subject.operation(
    "connections.list",
    Route("GET", "/connections"),
    Command(
        "connections list",
        columns=(
            *("id", "user", "client", "role", Column("clusters", ", ".join)),
            *("calls", "created", "last_used", "last_address", "expires"),
        ),
    ),
    may=EVERYONE,
)
async def list_connections(context: AdminContext) -> list[Connection]:
    """List the connections of all users, those of one user beside each other."""
    connections = await known_connections(context)
    async with turn_of_read(context):
        return await _with_calls(context, connections)


async def known_connections(context: AdminContext) -> list[Connection]:
    """List the connections of all users with no calls: to count these takes a turn."""
    store = context.services.store
    roles = {role.id: role.name for role in await store.roles.all()}
    clusters = {cluster.id: cluster.name for cluster in await store.clusters.all()}
    keys = {key.id: key for key in await store.keys.all() if key.person is not None}
    records = [each for each in await store.connections.all() if each.id in keys]
    accounts: dict[str, list[Account]] = {each.id: [] for each in records}
    for identity in await store.identities.all():
        if identity.connection_id in accounts and identity.cluster_id in clusters:
            account = Account(cluster=clusters[identity.cluster_id], token_id=identity.token_id)
            accounts[identity.connection_id].append(account)
    connections = [
        Connection(
            id=record.id,
            name=key.name,
            is_ended=not key.enabled,
            user=key.person or "",
            subject=record.subject,
            client=record.client_name,
            client_id=record.client_id,
            role=roles.get(key.role_id, ""),
            clusters=key.clusters,
            scopes=record.scopes,
            read_only=record.read_only,
            accounts=sorted(accounts[record.id], key=lambda each: each.cluster),
            created=record.created,
            expires=key.expires,
            last_used=key.last_used,
            last_address=key.last_address,
            calls=0,
        )
        for record in records
        for key in [keys[record.id]]
    ]
    return sorted(connections, key=lambda each: (each.user, each.subject, each.client, each.id))


async def _with_calls(context: AdminContext, connections: Sequence[Connection]) -> list[Connection]:
    calls = await context.services.audit.calls_of_keys([each.id for each in connections])
    return [each.model_copy(update={"calls": calls.get(each.id, 0)}) for each in connections]


@subject.operation(
    "connections.end",
    Route("POST", "/connections/{connection}/end"),
    Command("connections end", text=_ended_text),
    may=ISSUERS,
)
async def end_connection(context: AdminContext, connection: ConnectionName) -> EndedConnections:
    """End a connection; it is refused at once, and its Proxmox tokens are of no use any more.

    A user of the external authorization server has tokens that go on: they are refused with every
    client, until they are allowed again.
    """
    known = await known_connections(context)
    return await _end(context, "connections.end", known, _named(known, connection))


@subject.operation(
    "connections.end_all",
    Route("POST", "/connections/end"),
    Command("connections end-all", text=_ended_text),
    may=ISSUERS,
)
async def end_connections(context: AdminContext, which: Ended) -> EndedConnections:
    """End all connections of a user, of a client, or of a user with a client."""
    if not which.user and not which.client:
        raise BadArgument("user", "name a user, a client or both.")
    known = named = await known_connections(context)
    if which.user:
        theirs = [each for each in known if which.user in (each.user, each.subject)]
        subjects = sorted({each.subject for each in theirs})
        if not theirs:
            raise UnknownName("user", which.user, sorted({each.user for each in known}))
        if len(subjects) > 1:
            raise BadArgument("user", f"is one of several: {', '.join(subjects)}.")
        named = theirs
    if which.client:
        theirs = [each for each in named if which.client in (each.client, each.client_id)]
        if not theirs:
            raise UnknownName("client", which.client, sorted({each.client for each in named}))
        named = theirs
    return await _end(context, "connections.end_all", known, named)


@subject.operation(
    "connections.allow",
    Route("POST", "/connections/{connection}/allow"),
    Command("connections allow", text="Allowed {user} again."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def allow_connection(context: AdminContext, connection: ConnectionName) -> Connection:
    """Admit a user of the external authorization server again whose connections were ended."""
    (named,) = _named(await known_connections(context), connection)
    await context.services.connections.allow(named.subject)
    await context.changed("connections.allow", **_facts(named))
    allowed = named.model_copy(update={"is_ended": False})
    async with context.services.access.audit_reads.further_turn(context.by):
        return (await _with_calls(context, [allowed]))[0]


def _named(known: Sequence[Connection], name: str) -> list[Connection]:
    """Return the connection with this id or name, as a list; raise UnknownName."""
    named = [each for each in known if name in (each.id, each.name)][:1]
    if not named:
        raise UnknownName("connection", name, [each.name for each in known])
    return named


async def _end(
    context: AdminContext, operation: str, known: Sequence[Connection], named: Sequence[Connection]
) -> EndedConnections:
    """End connections and those that end with them: all of an external issuer's user."""
    subjects = {each.subject for each in named if each.subject.startswith("issuer:")}
    ends = [each for each in known if each in named or each.subject in subjects]
    end = context.services.connections.end
    tokens = await asyncio.gather(*(end(each.id, forget=True) for each in ends))
    for each in ends:
        await context.changed(operation, **_facts(each))
    return EndedConnections(
        ended=[each.name for each in ends],
        left=[
            LeftProxmoxToken(cluster=each.cluster, token_id=each.token_id, command=each.line)
            for left in tokens
            for each in left
        ],
    )


def _facts(connection: Connection) -> dict[str, str]:
    """Return what the audit keeps of a connection that has ended."""
    return {
        "connection": connection.id,
        "name": connection.name,
        "user": connection.user,
        "subject": connection.subject,
        "client": connection.client,
    }
