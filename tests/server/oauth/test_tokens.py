"""Tokens of connections: what each is bound to, rotation, reuse, and how soon an end applies."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select
from tests.server.clock import Clock

from pvemcp_server.access import Access, authentication
from pvemcp_server.access.authentication import KeyAuthenticator
from pvemcp_server.audit import Audit
from pvemcp_server.errors import AccessDenied, OAuthError, OverBudget
from pvemcp_server.oauth.scopes import Scope
from pvemcp_server.oauth.step_ups import SECONDS, StepUps
from pvemcp_server.oauth.tokens import (
    ACCESS_LIFE,
    CODE_LIFE,
    EARLY,
    EXCHANGES_PER_MINUTE,
    KEPT,
    USED_LIFE,
    Tokens,
    challenge_of,
)
from pvemcp_server.store import Store, records
from pvemcp_server.store.key_format import TOKEN_PREFIXES, new_secret
from pvemcp_server.store.records import TokenKind
from pvemcp_server.store.watch import POLL_SECONDS

from .connected import CLIENT, NOW, REDIRECT, code_for, connect, granted

pytestmark = pytest.mark.anyio
HERE = "192.0.2.7"
MCP = "https://mcp.example/mcp"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(store: Store, access: Access, clock: Clock) -> Tokens:
    store.watch._clock = clock.monotonic
    return Tokens(store, Audit(store), clock=clock.now)


@pytest.fixture
def authenticator(store: Store, clock: Clock) -> KeyAuthenticator:
    return KeyAuthenticator(store, clock=clock.now)


@pytest.fixture
def other_authenticator(other_store: Store, clock: Clock) -> KeyAuthenticator:
    """Create the authenticator of another process."""
    other_store.watch._clock = clock.monotonic
    return KeyAuthenticator(other_store, clock=clock.now)


async def reason(authenticator: KeyAuthenticator, token: str, resource: str = MCP) -> str:
    with pytest.raises(AccessDenied) as denied:
        await authenticator.authenticate_token(token, HERE, resource)
    return denied.value.reason


async def error(refused) -> str:
    with pytest.raises(OAuthError) as raised:
        await refused
    return raised.value.error


async def test_an_access_token_is_its_connections_caller(store, tokens, authenticator):
    connection = await connect(store, role="Operator", scopes=("pve:write",))
    given = await granted(tokens, connection, MCP)
    caller = await authenticator.authenticate_token(given.access_token, HERE, MCP)
    assert (caller.key_id, caller.person) == (connection.id, "alice@pve")
    assert (caller.key_name, caller.role.name) == ("alice@pve via Claude Code", "Operator")
    assert caller.scopes == {"pve:read", "pve:write"}
    assert given.expires_in == ACCESS_LIFE.total_seconds()
    previewed = await authenticator.caller(connection.id)
    assert (caller.version, caller.digest) == (previewed.version, previewed.digest)
    again = await authenticator.authenticate_token(given.access_token, HERE, MCP)
    assert again is caller
    assert authenticator.knows(given.access_token, HERE)


async def test_the_cache_of_tokens_is_bounded(store, tokens, authenticator, monkeypatch):
    monkeypatch.setattr(authentication, "MOST_TOKENS", 2)
    connection = await connect(store)
    given = [await granted(tokens, connection, MCP) for _ in range(5)]
    for each in (*given, *given):
        assert await authenticator.authenticate_token(each.access_token, HERE, MCP)
        assert len(authenticator._tokens.values()) <= 2


async def test_a_token_is_refused_for_each_reason(store, tokens, authenticator, clock):
    connection = await connect(store)
    given = await granted(tokens, connection, MCP)
    token_id = given.access_token.split("_")[2]
    forged = new_secret(token_id, TOKEN_PREFIXES[TokenKind.ACCESS])
    assert await reason(authenticator, given.access_token[:-1]) == "unknown access token"
    assert await reason(authenticator, forged) == "wrong secret of an access token"
    elsewhere = "https://mcp.example/sse"
    refused = await reason(authenticator, given.access_token, elsewhere)
    assert refused == "access token for another endpoint"
    assert await reason(authenticator, given.refresh_token) == "unknown access token"
    for token in (given.access_token, given.refresh_token):
        with pytest.raises(AccessDenied, match="malformed key"):  # no token is an API key
            await authenticator.authenticate(token, HERE)
    await store.keys.change(connection.id, enabled=False)
    clock.time += timedelta(seconds=POLL_SECONDS)
    assert await reason(authenticator, given.access_token) == "disabled key"
    clock.time += ACCESS_LIFE
    assert await reason(authenticator, given.access_token) == "expired access token"


async def test_no_secret_of_a_token_is_in_the_database(store, tokens):
    connection = await connect(store)
    code, _ = await code_for(tokens, connection, MCP)
    given = await granted(tokens, connection, MCP)
    async with store.database.reading() as reading:
        rows = [str(row) for row in await reading.execute(select(records.tokens))]
    secrets = [each.split("_")[3] for each in (code, given.access_token, given.refresh_token)]
    assert len(rows) == 4
    assert not [secret for secret in secrets if secret in "".join(rows)]


async def test_an_end_applies_in_every_process_within_one_poll(
    store, tokens, authenticator, other_authenticator, clock
):
    connection = await connect(store)
    both = (authenticator, other_authenticator)

    async def revoke_access(given):
        await tokens.revoke(given.access_token, client_id=CLIENT)

    async def revoke_refresh(given):
        await tokens.revoke(given.refresh_token, client_id=CLIENT)

    async def end(_given):
        await tokens.end(connection.id)

    async def remove(_given):
        await store.keys.remove(connection.id)

    for ended in (revoke_access, revoke_refresh, end, remove):
        given = await granted(tokens, connection, MCP)
        callers = [await each.authenticate_token(given.access_token, HERE, MCP) for each in both]
        await ended(given)
        clock.time += timedelta(seconds=POLL_SECONDS)
        for each, caller in zip(both, callers, strict=True):
            assert await reason(each, given.access_token) == "unknown access token", ended
            assert not await each.still_admits(caller), ended
            assert not await each.still_admits(caller, expired=True), ended
            assert not each.knows(given.access_token, HERE), ended


async def test_a_stream_ends_with_its_token_and_a_running_call_does_not(
    store, tokens, authenticator, clock
):
    given = await granted(tokens, await connect(store), MCP)
    caller = await authenticator.authenticate_token(given.access_token, HERE, MCP)
    assert await authenticator.still_admits(caller)
    clock.time += ACCESS_LIFE
    await tokens.remove_expired()
    assert not await authenticator.still_admits(caller)
    assert await authenticator.still_admits(caller, expired=True)
    clock.time += KEPT
    await tokens.remove_expired()
    await store.watch.poll()
    assert await store.tokens.all(kind=TokenKind.ACCESS) == []


async def test_a_code_counts_for_all_that_it_is_bound_to(store, tokens):
    await connect(store, client_id="another", name="bob", subject="admin:2")
    connection = await connect(store)
    code, verifier = await code_for(tokens, connection, MCP)
    right = {"client_id": CLIENT, "verifier": verifier, "redirect_uri": REDIRECT}
    for changes, expected in (
        ({"client_id": "another"}, "invalid_grant"),
        ({"client_id": "unknown"}, "invalid_grant"),
        ({"verifier": "x" * 43}, "invalid_grant"),
        ({"verifier": ""}, "invalid_grant"),
        ({"verifier": challenge_of(verifier)}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:33418/other"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/callback"}, "invalid_grant"),
        ({"resource": "https://mcp.example/sse"}, "invalid_target"),
    ):
        refused = tokens.exchange(code, **right | changes)
        assert await error(refused) == expected, changes
    assert await error(tokens.exchange(f"{code}0", **right)) == "invalid_grant"
    assert (await tokens.exchange(code, **right, resource=MCP)).access_token


@pytest.mark.parametrize("challenge", ["", "plain-verifier", "x" * 44, "=" * 43])
async def test_a_code_needs_a_challenge_of_s256(store, tokens, challenge):
    connection = await connect(store)
    refused = code_for(tokens, connection, MCP, challenge=challenge)
    assert await error(refused) == "invalid_request"


async def test_a_code_is_valid_for_a_minute(store, tokens, clock):
    code, verifier = await code_for(tokens, await connect(store), MCP)
    clock.time += CODE_LIFE
    assert (
        await error(tokens.exchange(code, client_id=CLIENT, verifier=verifier)) == "invalid_grant"
    )


async def test_a_refresh_rotates_and_may_ask_for_less(store, tokens, authenticator, clock):
    connection = await connect(store, scopes=("pve:destroy",))
    first = await granted(tokens, connection, MCP)
    clock.time += ACCESS_LIFE
    second = await tokens.refresh(first.refresh_token, client_id=CLIENT, scope="pve:read")
    assert second.refresh_token != first.refresh_token
    narrow = await authenticator.authenticate_token(second.access_token, HERE, MCP)
    assert narrow.scopes == {"pve:read"}
    third = await tokens.refresh(second.refresh_token, client_id=CLIENT, resource=MCP)
    assert third.scopes == ("pve:read", "pve:write", "pve:destroy")


async def test_a_refresh_after_a_step_up_asks_the_user_and_leaves_the_token(store, tokens, clock):
    connection = await connect(store, scopes=("pve:write",))
    first = await granted(tokens, connection, MCP)
    tokens.step_ups = StepUps(clock.monotonic)

    async def refreshed(token: str) -> str:
        return (await tokens.refresh(token, client_id=CLIENT)).refresh_token

    tokens.step_ups.add(connection.id, Scope.DESTROY)
    assert await error(refreshed(first.refresh_token)) == "interaction_required"
    token = await refreshed(first.refresh_token)  # is valid, and asked for once
    tokens.step_ups.add(connection.id, Scope.WRITE)
    token = await refreshed(token)  # a narrowed access token needs no user
    tokens.step_ups.add(connection.id, Scope.DESTROY)
    clock.time += timedelta(seconds=SECONDS)
    token = await refreshed(token)  # too late for a client that works by itself
    clock.time += ACCESS_LIFE - EARLY
    tokens.step_ups.add(connection.id, Scope.DESTROY)
    assert await refreshed(token)  # due by its age


async def test_a_refresh_token_counts_for_its_client_scope_and_resource(store, tokens):
    await connect(store, client_id="another", name="bob", subject="admin:2")
    given = await granted(tokens, await connect(store), MCP)
    for changes, expected in (
        ({"client_id": "another"}, "invalid_grant"),
        ({"scope": "pve:write"}, "invalid_scope"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"resource": "https://mcp.example/sse"}, "invalid_target"),
    ):
        refused = tokens.refresh(given.refresh_token, **{"client_id": CLIENT} | changes)
        assert await error(refused) == expected, changes
    assert (await tokens.refresh(given.refresh_token, client_id=CLIENT)).access_token


@pytest.mark.parametrize("kind", [TokenKind.CODE, TokenKind.REFRESH])
async def test_a_second_use_ends_all_tokens_of_the_connection(
    store, tokens, authenticator, clock, kind
):
    connection = await connect(store)
    other = await granted(tokens, connection, MCP)
    code, verifier = await code_for(tokens, connection, MCP)
    given = await tokens.exchange(code, client_id=CLIENT, verifier=verifier)
    if kind is TokenKind.CODE:
        again = tokens.exchange(code, client_id=CLIENT, verifier=verifier)
    else:
        given, first = await tokens.refresh(given.refresh_token, client_id=CLIENT), given
        again = tokens.refresh(first.refresh_token, client_id=CLIENT)
    assert await error(again) == "invalid_grant"
    clock.time += timedelta(seconds=POLL_SECONDS)
    for each in (other, given):
        assert await reason(authenticator, each.access_token) == "unknown access token"
        assert await error(tokens.refresh(each.refresh_token, client_id=CLIENT)) == "invalid_grant"
    [notice] = [each for each in await store.notices.open() if each.kind == "token-reused"]
    assert "alice@pve via Claude Code" in notice.message
    await tokens._audit.flush()
    [entry] = await tokens._audit.find()
    assert (entry.key_id, entry.outcome) == (connection.id, "refused")
    assert "presented again" in entry.reason


async def test_of_concurrent_refreshes_none_leaves_a_valid_token(
    store, other_store, tokens, authenticator, clock
):
    other = Tokens(other_store, Audit(other_store), clock=clock.now)
    given = await granted(tokens, await connect(store), MCP)
    results = await asyncio.gather(
        *(each.refresh(given.refresh_token, client_id=CLIENT) for each in (tokens, other)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, OAuthError) for result in results) >= 1
    assert await store.tokens.all() == []


async def test_a_client_that_refreshes_without_end_is_limited(store, tokens, clock):
    given = await granted(tokens, await connect(store), MCP)
    for _ in range(EXCHANGES_PER_MINUTE - 1):
        given = await tokens.refresh(given.refresh_token, client_id=CLIENT)
    with pytest.raises(OverBudget):
        await tokens.refresh(given.refresh_token, client_id=CLIENT)
    assert len(await store.tokens.all(kind=TokenKind.REFRESH)) == EXCHANGES_PER_MINUTE
    clock.time += USED_LIFE + KEPT
    await tokens.remove_expired()
    [left] = await store.tokens.all()
    assert left.used is None


async def test_no_token_of_another_client_is_revoked(store, tokens, authenticator):
    await connect(store, client_id="another", name="bob", subject="admin:2")
    given = await granted(tokens, await connect(store), MCP)
    for token in (given.access_token, given.refresh_token):
        refused = tokens.revoke(token, client_id="another")
        assert await error(refused) == "unauthorized_client"
    await tokens.revoke("unknown", client_id="another")
    assert await authenticator.authenticate_token(given.access_token, HERE, MCP)


async def test_tokens_end_with_the_connection_that_they_are_for(store, tokens, clock):
    soon = clock.now() + timedelta(minutes=10)
    connection = await connect(store, expires=soon)
    given = await granted(tokens, connection, MCP)
    assert given.expires_in == 600
    clock.time += timedelta(minutes=11)
    assert await error(tokens.refresh(given.refresh_token, client_id=CLIENT)) == "invalid_grant"


async def test_connections_are_finished_that_have_expired_or_lost_their_tokens(store, tokens):
    made = {
        name: await connect(store, name=name, subject=subject, **key)
        for name, subject, key in (
            ("with a code", "admin:1", {}),
            ("unused", "admin:1", {}),
            ("expired", "admin:1", {"expires": NOW}),
            ("of an issuer", "issuer:https://login.example:alice", {}),
            ("refused", "issuer:https://login.example:bob", {"enabled": False, "expires": NOW}),
        )
    }
    await code_for(tokens, made["with a code"], MCP)
    finished = store.connections.finished
    assert await finished(NOW, made_before=NOW) == [made["expired"].id]
    both = sorted([made["expired"].id, made["unused"].id])
    assert await finished(NOW, made_before=NOW + timedelta(seconds=1)) == both
    await store.keys.remove(made["unused"].id)
    refused = code_for(tokens, made["unused"], MCP)
    assert await error(refused) == "access_denied", "its code would be for no connection"


async def test_a_connection_never_falls_back_to_the_servers_own_token(
    store, access, tokens, authenticator
):
    role = await store.roles.find(name="Administrator")
    for name in ("own", "foreign"):
        cluster = await access.clusters.create(
            name, [f"{name}.example"], token_id="root@pam!pvemcp", secret="x"
        )
        identity = await access.clusters.add_identity(
            cluster.name, f"bound-{name}", token_id="alice@pve!bound", secret="y"
        )
        await store.bindings.bind(identity, role_id=role.id)
        if name == "own":
            own = await access.clusters.add_identity(
                cluster.name, "alice", token_id="alice@pve!pvemcp", secret="z"
            )
    connection = await connect(store, subject="cluster:1:alice@pve")
    await store.bindings.bind(own, key_id=connection.id)
    given = await granted(tokens, connection, MCP)
    caller = await authenticator.authenticate_token(given.access_token, HERE, MCP)
    assert caller.clusters == {"own"}
    assert caller.identities == {"own": own.id}
    with_all = await connect(store, subject="admin:7", name="by role", client_id="another")
    by_role = await authenticator.caller(with_all.id)
    assert set(by_role.identities) == {"own", "foreign"}
    assert by_role.clusters == {"*"}
