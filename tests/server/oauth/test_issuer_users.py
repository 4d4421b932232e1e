"""Users of an external authorization server: their connections, rules, scopes and their end."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import httpx2 as httpx
import pytest

from pvemcp_server.admin.connections import Ended, allow_connection, end_connections
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.doctor import examine
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.admin.settings import change_settings
from pvemcp_server.errors import AccessDenied, BadArgument, IssuerIncomplete
from pvemcp_server.oauth.connections import ClientName, Connections
from pvemcp_server.oauth.person import Person
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import PersonKind

from .issuer import ISSUER, KEYS, Body, Issuer

pytestmark = pytest.mark.anyio
HERE = "https://mcp.example"  # the public URL; requests come to the address of the socket


@pytest.fixture(scope="module")
async def running(anyio_backend, module_serving):
    """Start a server that accepts the tokens of an issuer."""
    settings = {"calls_per_minute_per_address": 10**6, "calls_per_minute_per_key": 10**5}
    async with module_serving((), HERE, external_issuer=ISSUER, **settings) as server:
        server.issuer = Issuer()
        users = server.state.access.authenticator._issuer
        users.verifier._transport = server.issuer.transport
        yield server


@pytest.fixture
async def served(running):
    """Provide the server without rules and connections of other tests."""
    yield running
    store = running.state.store
    for rule in await store.person_rules.all():
        await store.person_rules.remove(rule.id)
    for key in await store.keys.all():
        if key.person is not None:
            await store.keys.remove(key.id)
    await running.state.settings.change(
        {"external_issuer": ISSUER, "external_audience": "", "connections_enabled": True}, by="ada"
    )


async def add_rule(served, name: str = "ops", role: str = "Administrator", cluster=None):
    record = await served.state.store.roles.find(name=role)
    rule = await served.state.store.person_rules.add(
        kind=PersonKind.CLAIM,
        name=name,
        role_id=record.id,
        cluster_id=cluster,
        created=utc_now(),
    )
    await served.state.store.watch.poll()
    return rule


def token(served, path: str = "/mcp", **claims) -> str:
    return served.issuer.token(**{"aud": f"{HERE}{path}"} | claims)


async def send(served, secret: str, method="tools/list", params=None, path="/mcp", **headers):
    modern = served.modern
    modern.path = path
    headers = headers or {"Authorization": f"Bearer {secret}"}
    return await modern.send(method, params, **headers)


async def connections(served):
    store = served.state.store
    keys = {key.id: key for key in await store.keys.all()}
    return [(record, keys[record.id]) for record in await store.connections.all()]


async def test_concurrent_first_requests_make_one_connection_with_the_role_of_the_rule(served):
    await add_rule(served, role="Operator")
    secret = token(served)
    answers = await asyncio.gather(*(send(served, secret) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    ((record, key),) = await connections(served)
    assert (record.subject, record.client_id) == (f"issuer:{ISSUER}:u-1", "claude")
    assert record.client_name == "claude (127.0.0.1)"
    assert (key.person, key.name, key.clusters) == ("alice", "alice via claude", ["*"])
    role = await served.state.store.roles.find(id=key.role_id)
    assert role.name == "Operator"
    await send(served, token(served, azp="other"))
    await send(served, token(served, sub="u-2"))
    assert len(await connections(served)) == 3


async def test_a_user_whom_no_rule_names_is_refused_and_gets_no_connection(served):
    await add_rule(served, "admins")
    for claims in ({}, {"groups": None}, {"groups": "admin"}, {"groups": {"admins": 1}}):
        answer = await send(served, token(served, **claims))
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert await connections(served) == []
    assert (await send(served, token(served, groups="admins"))).status_code == 200


async def test_expired_tokens_are_refused_and_fill_no_audit(served):
    await add_rule(served)
    before = len(await served.recorded())
    for _ in range(3):
        assert (await send(served, token(served, exp=int(time.time()) - 90))).status_code == 401
    assert len(await served.recorded()) == before
    assert (await send(served, token(served, aud="other"))).status_code == 401
    assert len(await served.recorded()) == before + 1


async def test_scopes_of_the_token_limit_its_calls(served):
    await add_rule(served)
    call = ("tools/call", {"name": "ChangeVmState", "arguments": {"vmid": 1, "action": "start"}})
    for scopes, status in (
        ({}, 403),
        ({"scope": "openid profile"}, 403),
        ({"scope": "openid pve:read"}, 403),
        ({"scp": ["pve:write"]}, 200),
        ({"scope": "pve:destroy"}, 200),
    ):
        answer = await send(served, token(served, **scopes), *call)
        assert answer.status_code == status, scopes
    ((record, _),) = await connections(served)
    assert record.scopes == ["pve:read", "pve:write", "pve:destroy"]


async def test_the_role_follows_rules_and_claims_at_once(served):
    first = await add_rule(served, "ops", "Operator")
    await add_rule(served, "ops", "Administrator")
    secret = token(served)

    async def role(secret) -> str:
        caller = await served.state.access.authenticator.authenticate_token(
            secret, "127.0.0.1", f"{HERE}/mcp"
        )
        return caller.role.name

    assert await role(secret) == "Operator"
    await served.state.store.person_rules.remove(first.id)
    await served.state.store.watch.poll()
    assert await role(secret) == "Administrator"
    await add_rule(served, "look", "Read-only")
    looks = token(served, groups=["look"])
    assert [await role(each) for each in (looks, secret, looks)] == [
        *("Read-only", "Administrator", "Read-only")
    ]
    assert len(await connections(served)) == 1


async def test_a_rule_for_a_cluster_gives_that_cluster_only(served):
    proxmox = {"token_id": "root@pam!all", "secret": "12345678-1234-1234-1234-123456789abc"}
    clusters = served.state.access.clusters
    for name in ("lab", "prod"):
        await clusters.create(name, ["127.0.0.1:1"], **proxmox)
    lab, prod = await clusters.all()
    await add_rule(served, cluster=lab.id)
    await send(served, token(served))
    ((_, key),) = await connections(served)
    assert key.clusters == ["lab"]
    await add_rule(served, cluster=prod.id)
    await send(served, token(served))
    ((_, key),) = await connections(served)
    assert key.clusters == ["lab", "prod"]
    for name in ("lab", "prod"):
        await clusters.remove(name)


async def test_an_ended_user_is_refused_with_every_client_until_allowed_again(served):
    await add_rule(served)
    first, second = token(served), token(served, azp="second")
    for secret in (first, second):
        assert (await send(served, secret)).status_code == 200
    context = AdminContext(served.app.endpoint.services, "ada", authority=COMMAND_LINE)
    ended = await end_connections(context, Ended(user="alice", client="second"))
    assert sorted(ended.ended) == ["alice via claude", "alice via second"]
    for secret in (first, second, token(served, azp="third"), token(served, jti="new")):
        assert (await send(served, secret)).status_code == 401
    assert (await send(served, token(served, sub="u-2"))).status_code == 200
    refused = {key.name for _, key in await connections(served) if not key.enabled}
    assert refused == {"alice via claude", "alice via second"}
    await allow_connection(context, "alice via claude")
    for secret in (first, second, token(served, azp="third")):
        assert (await send(served, secret)).status_code == 200
    await served.app.endpoint.services.audit.flush()
    changes = [each for each in await served.recorded() if each.tool == "admin.connections.allow"]
    assert changes[-1].arguments["subject"] == f"issuer:{ISSUER}:u-1"


async def test_a_token_counts_in_authorization_and_at_its_endpoint_only(served):
    await add_rule(served)
    secret = token(served)
    assert (await send(served, secret, path=f"/mcp/{secret}", x="1")).status_code == 401
    assert (await send(served, "", X_API_Key=secret)).status_code == 401
    assert (await send(served, token(served, "/sse"))).status_code == 401
    assert (await send(served, token(served, aud=HERE))).status_code == 401
    await served.state.settings.change({"external_audience": "proxmox"}, by="ada")
    assert (await send(served, secret)).status_code == 401
    assert (await send(served, token(served, aud="proxmox"))).status_code == 200


async def test_the_host_of_a_request_is_no_audience(served, monkeypatch):
    await add_rule(served)
    users = served.state.access.authenticator._issuer

    async def statuses(*hosts: str) -> list[int]:
        answers = [
            await send(
                served,
                "",
                Authorization=f"Bearer {token(served, aud=f'http://{host}/mcp')}",
                Host=host,
            )
            for host in hosts
        ]
        return [answer.status_code for answer in answers]

    hosts = ("10.0.0.5", "localhost:9", "[2001:db8::5]:8080", served.url.partition("//")[2])
    assert await statuses(*hosts) == [401] * 4  # with a public URL
    await served.state.settings.change({"external_audience": "proxmox"}, by="ada")
    monkeypatch.setattr(users, "_public_url", None)
    assert await statuses(*hosts) == [401] * 4  # with an audience
    assert (await send(served, token(served, aud="proxmox"))).status_code == 200
    await served.state.settings.change({"external_audience": ""}, by="ada")
    assert await statuses(*hosts) == [503] * 4  # with neither
    for host in hosts:
        resource = f"http://{host}/mcp"
        with pytest.raises(IssuerIncomplete):
            await users.admit(token(served, aud=resource), resource)


@pytest.mark.parametrize("changed", [{"external_issuer": ISSUER}, {"external_audience": ""}])
async def test_an_issuer_is_set_with_an_audience_or_a_public_url_only(served, changed):
    services = served.app.endpoint.services
    context = AdminContext(services, "ada", authority=COMMAND_LINE)
    assert not [f for r in await examine(context) for f in r.findings if "503" in f.text]
    bare = replace(services, config=services.config.model_copy(update={"public_url": None}))
    alone = AdminContext(bare, "ada", authority=COMMAND_LINE)
    with pytest.raises(BadArgument, match="PVEMCP_PUBLIC_URL") as refused:
        await change_settings(alone, changed)
    assert refused.value.argument == "external_audience"
    await change_settings(alone, {"row_cap": 500})  # stored before, it hinders nothing else
    (said,) = [f for r in await examine(alone) for f in r.findings if "503" in f.text]
    assert "external_audience" in said.text
    await change_settings(alone, {"external_issuer": ISSUER, "external_audience": "proxmox"})
    await change_settings(context, changed)


async def test_metadata_names_the_issuer_and_keys_stay_keys(served):
    async def servers():
        path = "/.well-known/oauth-protected-resource/mcp"
        return (await served.http.get(path)).json()["authorization_servers"]

    assert await servers() == [ISSUER, f"{HERE}/oauth"]
    await add_rule(served)
    await served.state.settings.change({"connections_enabled": False}, by="ada")
    assert await servers() == [ISSUER]
    assert (await served.http.post("/oauth/token")).status_code == 404
    assert (await send(served, token(served))).status_code == 200
    led = await send(served, "", Accept="application/json, text/event-stream")
    assert "resource_metadata=" in led.headers["WWW-Authenticate"]
    assert (await served.modern.send("tools/list")).status_code == 200
    await served.state.settings.change({"external_issuer": ""}, by="ada")
    assert (await send(served, token(served))).status_code == 401
    assert (await served.http.get("/.well-known/oauth-protected-resource")).status_code == 404


async def test_streams_end_with_the_token_the_rule_and_the_setting(served):
    rule = await add_rule(served)
    authenticator = served.state.access.authenticator

    async def admitted(**claims):
        secret = token(served, **claims)
        return await authenticator.authenticate_token(secret, "127.0.0.1", f"{HERE}/mcp")

    caller = await admitted()
    assert caller.is_external
    assert await authenticator.still_admits(caller)
    short = await admitted(exp=int(time.time()) - 30)
    assert not await authenticator.still_admits(short)
    assert await authenticator.still_admits(short, expired=True)
    await served.state.settings.change({"external_issuer": "https://other.example"}, by="ada")
    assert not await authenticator.still_admits(caller, expired=True)
    await served.state.settings.change({"external_issuer": ISSUER}, by="ada")
    assert await authenticator.still_admits(caller)
    await served.state.store.person_rules.remove(rule.id)
    await served.state.store.watch.poll()
    assert not await authenticator.still_admits(caller, expired=True)
    with pytest.raises(AccessDenied):
        await admitted()


async def test_an_issuer_without_keys_is_no_reason_to_sign_in_again(served):
    await add_rule(served)
    verifier = served.state.access.authenticator._issuer.verifier
    kept, tried = verifier._kept, verifier._tried
    verifier._kept, verifier._tried = None, (ISSUER, time.monotonic())
    answer = await send(served, token(served, jti="unseen"))
    verifier._kept, verifier._tried = kept, tried
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "WWW-Authenticate" not in answer.headers


async def test_the_doctor_says_whether_the_issuer_publishes_keys(served):
    context = AdminContext(served.app.endpoint.services, "ada", authority=COMMAND_LINE)
    verifier = served.app.endpoint.services.issuer_users.verifier

    async def finding():
        (report, *_) = await examine(context)
        return next(each for each in report.findings if each.topic == "issuer")

    kept, tried = verifier._kept, verifier._tried
    verifier._kept = verifier._tried = None
    assert ((await finding()).level, "1 key" in (await finding()).text) == ("ok", True)
    served.issuer.answers[KEYS] = httpx.Response(500, stream=Body(b""))
    verifier._kept = verifier._tried = None
    failed = await finding()
    assert (failed.level, "the answer was 500" in failed.text) == ("bad", True)
    served.issuer.answers.clear()
    verifier._kept, verifier._tried = kept, tried


async def test_an_unused_connection_expires_and_a_used_one_is_renewed(served):
    await add_rule(served)
    await send(served, token(served))
    store, services = served.state.store, served.app.endpoint.services
    ((record, key),) = await connections(served)
    await store.keys.change(record.id, expires=utc_now())
    await store.watch.poll()
    assert (await send(served, token(served))).status_code == 200
    ((_, renewed),) = await connections(served)
    assert renewed.expires > utc_now() + timedelta(days=29)
    assert key.expires > utc_now() + timedelta(days=29)
    await services.connections.end(record.id)
    await store.keys.change(record.id, expires=utc_now())
    await services.connections.remove_expired()
    assert len(await connections(served)) == 1, "an ended one stays, so that it stays refused"
    await services.connections.allow(record.subject)
    await services.connections.remove_expired()
    assert await connections(served) == []


async def test_two_processes_make_one_connection_of_a_user(store, other_store, access):
    role = await store.roles.find(name="Operator")
    person = Person("issuer:x:u-1", "alice", utc_now())
    client = ClientName("claude", "claude", "claude (x)")
    processes = [Connections(each, None, "https://mcp.example") for each in (store, other_store)]
    rights = {"role_id": role.id, "clusters": ("*",), "expires": utc_now() + timedelta(days=1)}
    made = await asyncio.gather(
        *(each.follow_issuer(person, client, scopes=("pve:read",), **rights) for each in processes),
        *(
            each.follow_issuer(person, client, scopes=("pve:write",), **rights)
            for each in processes
        ),
    )
    (record,) = await store.connections.all()
    assert {each.id for each in made} == {record.id} == {key.id for key in await store.keys.all()}
    assert record.scopes == ["pve:read", "pve:write"]
    await processes[0].end(record.id)
    with pytest.raises(AccessDenied, match="has ended"):
        await processes[1].follow_issuer(person, client, scopes=(), **rights)


async def test_claims_lead_to_the_proxmox_account_of_their_role(served):
    state = served.state
    await add_rule(served, "operators", "Operator")
    await add_rule(served, "ops", "Administrator")
    lab = await state.access.clusters.create(
        "lab", ["lab.example"], token_id="mcp@pve!reads", secret="s-of-reads"
    )
    bound = await state.access.clusters.add_identity(
        "lab", "operators", token_id="ops@pve!mcp", secret="s-of-ops"
    )
    operator = await state.store.roles.find(name="Operator")
    await state.store.bindings.bind(bound, role_id=operator.id)
    for subject, group, account in (
        ("u-1", "operators", "ops@pve!mcp"),
        ("u-2", "ops", "mcp@pve!reads"),
    ):
        secret = token(served, sub=subject, groups=[group])
        assert (await send(served, secret)).status_code == 200
        record, _ = next(pair for pair in await connections(served) if subject in pair[0].subject)
        caller = await state.access.authenticator.caller(record.id)
        clusters = served.app.endpoint.services.clusters
        opened = await clusters.connection("lab", caller.identities.get("lab"))
        assert opened.identity.token_id == account
    await state.access.clusters.remove(lab.name)
