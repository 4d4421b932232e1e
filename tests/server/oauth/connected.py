"""A connection as the consent of a user leaves it, for tests of what follows from it."""

from datetime import UTC, datetime
from secrets import token_bytes, token_urlsafe
from typing import Any

from pvemcp_server.oauth.tokens import Granted, Tokens, challenge_of
from pvemcp_server.store import Store
from pvemcp_server.store.key_format import new_id
from pvemcp_server.store.records import ConnectionRecord

REDIRECT = "http://127.0.0.1:33418/callback"
CLIENT = "client-of-tests"
METADATA = {
    "redirect_uris": ["http://127.0.0.1/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def add_client(store: Store, client_id: str = CLIENT, **metadata: Any) -> None:
    await store.oauth_clients.add(
        id=client_id,
        name="Claude Code",
        is_document=False,
        metadata=METADATA | metadata,
        created=NOW,
        expires=LATER,
    )


async def connect(
    store: Store,
    *,
    role: str = "Administrator",
    scopes: tuple[str, ...] = ("pve:read",),
    client_id: str = CLIENT,
    subject: str = "admin:1",
    name: str = "alice@pve via Claude Code",
    **key: Any,
) -> ConnectionRecord:
    """Store what a user consents to, with the client if it is not known yet."""
    if await store.oauth_clients.find(id=client_id) is None:
        await add_client(store, client_id)
    key_id = new_id()
    columns = {
        "clusters": ["*"],
        "tools": ["*"],
        "toolsets": [],
        "allow_from": [],
        "output_format": None,
        "unattended": None,
        "destructive_per_day": None,
        "enabled": True,
        "expires": None,
    }
    await store.keys.add(
        id=key_id,
        name=name,
        person="alice@pve",
        digest=token_bytes(32),
        pepper=store.vault.pepper.id,
        role_id=(await store.roles.find(name=role)).id,
        created=NOW,
        **columns | key,
    )
    return await store.connections.add(
        id=key_id,
        subject=subject,
        client_id=client_id,
        client_name="Claude Code",
        scopes=list(scopes),
        read_only=False,
        created=NOW,
    )


async def code_for(
    tokens: Tokens, connection: ConnectionRecord, resource: str, **changes: Any
) -> tuple[str, str]:
    """Return a code with the verifier that belongs to it."""
    verifier = token_urlsafe(32)
    bound = {
        "redirect_uri": REDIRECT,
        "challenge": challenge_of(verifier),
        "scopes": connection.scopes,
        "resource": resource,
    }
    return await tokens.issue_code(connection, **bound | changes), verifier


async def granted(tokens: Tokens, connection: ConnectionRecord, resource: str) -> Granted:
    """Return the tokens that the client of a connection gets for its code."""
    code, verifier = await code_for(tokens, connection, resource)
    return await tokens.exchange(
        code, client_id=connection.client_id, verifier=verifier, redirect_uri=REDIRECT
    )
