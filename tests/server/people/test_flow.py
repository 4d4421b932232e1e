"""The way of a user through sign-in, consent and connections, in this process over HTTP."""

import json
import re
import shutil
import time
from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager
from datetime import timedelta
from html import unescape
from itertools import count
from types import SimpleNamespace
from unittest.mock import AsyncMock
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key
from pyotp import TOTP

from proxmox_client import Forbidden
from proxmox_client.api.access import Access
from proxmox_client.emulator.auth import totp, webauthn
from proxmox_client.emulator.auth.second_factors import SecondFactors
from proxmox_client.emulator.auth.webauthn import SecurityKey
from proxmox_client.emulator.state.user_config import SecondFactor
from pvemcp_server.access import ExternalAdmins, open_access
from pvemcp_server.access.passkeys import NewPasskey, RelyingParty
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.app import create_app
from pvemcp_server.clusters import connections
from pvemcp_server.config import Config
from pvemcp_server.oauth import connections as oauth_connections
from pvemcp_server.oauth.client_names import UNNAMED
from pvemcp_server.oauth.people import FAILURES_PER_MINUTE
from pvemcp_server.services import open_services
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole, PersonKind, TlsMode, identities
from pvemcp_server.store.watch import bump
from pvemcp_server.web.oauth import consent
from pvemcp_server.web.oauth.sign_in import OTHER_ERROR, PROVIDER_ERRORS

from .browser import BASE, Browser
from .conftest import PASSWORD, TOTP_SECRET, auditor

pytestmark = pytest.mark.anyio
ADMIN, ADMIN_PASSWORD = "ada", "correct horse battery"
REDIRECT = "http://127.0.0.1:33418/callback"
WEB_REDIRECT = "https://claude.example/callback"
SECURE = "https://localhost"
APP_REDIRECT = "cursor://anysphere.cursor-mcp/oauth/callback"
_addresses = count(1)


@pytest.fixture(scope="module")
async def front(anyio_backend, tmp_path_factory, new_state, emulator):
    """Open the whole application on a state with both clusters and an administrator."""
    config = Config(state_dir=tmp_path_factory.mktemp("flow") / "var", log_level="warning")
    shutil.copytree(new_state, config.state_dir)
    async with (
        open_store(config) as store,
        open_access(store, ExternalAdmins.configured(config)) as access,
    ):
        settings = Settings(store)
        state = SimpleNamespace(config=config, store=store, access=access, settings=settings)
        await access.admins.create(ADMIN, ADMIN_PASSWORD, must_change=False)
        await settings.change({"enabled": True}, by="test")
        for cluster in emulator:
            token_id, secret = auditor(cluster)
            hosts = [host.replace("127.0.0.1", "localhost") for host in cluster.hosts]
            await access.clusters.create(
                cluster.name,
                hosts,  # by name, since security keys are for names
                token_id=token_id,
                secret=secret,
                tls_mode=TlsMode.PINNED,
                fingerprints=cluster.fingerprints.values(),
            )
        async with open_services(state) as services:
            app = create_app(services)
            services.oauth.clients._registrations.take = AsyncMock(return_value=True)
            async with app.endpoint.running():
                yield SimpleNamespace(app=app, services=services, settings=settings)


@pytest.fixture
async def open_browser(front, users):
    """Return a function that opens a browser with its own cookies and address, and a client."""
    opened = []

    @asynccontextmanager
    async def browser(redirect: str = REDIRECT, name: str = "Claude Code"):
        transport = httpx.ASGITransport(front.app.asgi, client=(f"192.0.2.{next(_addresses)}", 1))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            made = Browser(http)
            registered = {"client_name": name, "redirect_uris": [redirect]}
            made.client = (await http.post("/oauth/register", json=registered)).json()
            opened.append(made)
            yield made

    yield browser
    for key in await front.services.store.keys.all():
        if key.person:
            await front.services.connections.end(key.id, forget=True)


@pytest.fixture
async def browser(open_browser):
    async with open_browser() as opened:
        yield opened


async def call(front, token: str, tool: str = "ListVms", **arguments):
    """Call a tool with an access token; return the answer and its data."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    params = {"name": tool, "arguments": {"format": "JsonNormal", **arguments}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    transport = httpx.ASGITransport(front.app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
        answer = await http.post(
            "/mcp", json={**body, "params": {**params, "_meta": meta}}, headers=headers
        )
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = re.findall(r"^data: (.+)$", text, re.MULTILINE)[-1]
    return answer, json.loads(text)


async def with_cookie(front, cookie: str, method: str, path: str, **options):
    """Send a request with the cookie of a session, as a thief does."""
    transport = httpx.ASGITransport(front.app.asgi)
    headers = {"Cookie": f"pvemcp_person={cookie}"}
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
        return await http.request(method, path, headers=headers, **options)


async def connected(browser, user: str = "bob", realm: str = "prod/pve", **fields) -> str:
    """Go through the whole flow and return an access token."""
    await browser.authorize(scope=fields.pop("scope", "pve:read"))
    await browser.sign_in(realm, user, PASSWORD)
    assert browser.page.url.path == "/oauth/authorize", browser.text
    await browser.consent(**fields)
    answer = await browser.token()
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


async def test_a_user_signs_in_with_a_second_factor_consents_and_calls_a_tool(
    front, browser, emulator, users
):
    await browser.authorize()
    assert browser.page.url.path == "/oauth/sign-in"
    assert "Claude Code (name not verified, on the user's computer)" in browser.text
    await browser.sign_in("lab/pve", "alice", "wrong")
    assert browser.page.status_code == 403
    refusal = "lab refused the sign-in of alice@pve (Proxmox: 'authentication failure')"
    assert refusal in browser.text
    assert 'value="wrong"' not in browser.page.text
    await browser.sign_in("lab/pve", "alice", PASSWORD)
    assert "lab asks for a second factor of alice@pve" in browser.text
    code = totp.code(TOTP_SECRET, emulator["lab"].state.now)
    await browser.submit(f"/oauth/sign-in/second-factor{browser.query}", method="totp", code=code)
    assert browser.page.url.path == "/oauth/authorize"
    for shown in ("alice@pve on lab", "name not verified", "30 days", "Look:", "Read-only"):
        assert shown in browser.text
    assert "Change:" not in browser.text, "the client does not ask for it"
    await browser.consent()
    assert browser.answer["iss"] == f"{BASE}/oauth"
    assert browser.answer["state"] == "state of the client"
    granted = (await browser.token()).json()
    assert granted["scope"] == "pve:read"
    _, answer = await call(front, granted["access_token"])
    assert not answer["result"].get("isError"), answer
    (token,) = users["lab"].users["alice@pve"].tokens.values()
    assert token.comment.startswith("Claude Code (name not verified")


async def test_two_users_get_what_proxmox_gives_each_and_a_disabled_one_is_refused(
    front, open_browser, users, monkeypatch
):
    monkeypatch.setattr(connections, "OWN_FRESHNESS", 0.0)
    seen, tokens = {}, {}
    for user in ("alice", "bob"):
        async with open_browser() as browser:
            tokens[user] = await connected(browser, user)
        _, answer = await call(front, tokens[user])
        rows = json.loads(answer["result"]["content"][0]["text"])["data"]
        seen[user] = sorted(row["vmid"] for row in rows)
    assert seen["bob"] == [100]
    assert len(seen["alice"]) == 4
    users["prod"].users["bob@pve"].enabled = False
    _, refused = await call(front, tokens["bob"])
    assert refused["result"]["isError"]
    assert "Proxmox refused bob@pve!pvemcp-" in refused["result"]["content"][0]["text"]
    _, answer = await call(front, tokens["alice"])
    assert not answer["result"].get("isError")


async def test_a_connection_never_uses_the_server_s_own_token(front, browser):
    token = await connected(browser)
    store = front.services.store
    (identity,) = [each for each in await store.identities.all() if each.connection_id]
    _, answer = await call(front, token, cluster_name="lab")
    assert "lab" in answer["result"]["content"][0]["text"]
    assert answer["result"]["isError"], "no account on lab"
    async with store.database.writing() as connection:  # a row that is lost by other means
        await bump(connection, *store.identities._topics)
        await connection.execute(identities.delete().where(identities.c.id == identity.id))
    _, answer = await call(front, token)  # the change may have been noticed, or not yet
    assert answer["result"]["isError"] or "No cluster is available" in json.dumps(answer)
    await store.watch.poll()
    _, answer = await call(front, token)
    assert "No cluster is available" in json.dumps(answer)


WRONG_REQUESTS = {
    "no PKCE": ({"code_challenge": None}, "invalid_request"),
    "plain PKCE": ({"code_challenge_method": "plain"}, "invalid_request"),
    "no method": ({"code_challenge_method": None}, "invalid_request"),
    "short challenge": ({"code_challenge": "short"}, "invalid_request"),
    "no type": ({"response_type": None}, "invalid_request"),
    "token type": ({"response_type": "token"}, "unsupported_response_type"),
    "fragment": ({"response_mode": "fragment"}, "invalid_request"),
    "another server": ({"resource": "https://other.example/mcp"}, "invalid_target"),
    "unknown scope": ({"scope": "admin"}, "invalid_scope"),
}
WRONG_CLIENTS = {
    "unknown client": {"client_id": "client-none"},
    "no client": {"client_id": None},
    "another redirect": {"redirect_uri": "http://127.0.0.1:1/other"},
    "a foreign redirect": {"redirect_uri": "https://attacker.example/"},
    "a script": {"redirect_uri": "javascript:alert(1)"},
    "a fragment": {"redirect_uri": f"{REDIRECT}#x"},
    "a user": {"redirect_uri": "http://127.0.0.1@attacker.example/callback"},
}


async def test_wrong_requests_are_answered_with_their_error_and_iss(open_browser):
    async with open_browser() as local, open_browser(WEB_REDIRECT) as web:
        for name, (changes, error) in WRONG_REQUESTS.items():
            local.page = await local.http.get(local.authorization(**changes))
            assert local.page.status_code == 303, name
            expected = (error, f"{BASE}/oauth", "state of the client")
            answer = local.answer
            assert (answer["error"], answer["iss"], answer["state"]) == expected, name
            # a client that anyone can register leads nowhere without the user
            web.page = await web.http.get(web.authorization(**changes))
            assert web.page.status_code == 200, name
            assert f'href="{WEB_REDIRECT}?error={error}' in web.page.text, name
        for name, changes in WRONG_CLIENTS.items():
            page = await local.http.get(local.authorization(**changes))
            assert (page.status_code, page.headers.get("location")) == (400, None), name
            assert "attacker.example" not in page.text, name
            assert "javascript:" not in page.text, name
        repeated = await local.http.get(f"{local.authorization()}&state=other")
        assert repeated.status_code == 400


async def test_loopback_redirects_may_have_any_port(browser):
    await browser.authorize(redirect_uri="http://127.0.0.1:1024/callback")
    assert browser.page.url.path == "/oauth/sign-in"


async def test_a_decline_is_answered_and_ends_the_sign_in(front, browser):
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    await browser.consent("decline")
    assert browser.answer["error"] == "access_denied"
    assert browser.answer["iss"] == f"{BASE}/oauth"
    assert await front.services.store.person_sessions.all() == []


async def test_pages_cannot_be_framed_cached_or_asked_by_other_sites(browser):
    await browser.authorize()
    form = {"realm": "prod/pve", "user": "bob", "password": PASSWORD}
    signed_in = await browser.http.post(f"/oauth/sign-in{browser.query}", data=form)
    for cookie in signed_in.headers.get_list("set-cookie"):
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
    await browser.authorize()
    headers = browser.page.headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "form-action 'self'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    path = f"/oauth/consent{browser.query}"
    form = {"role": "Read-only", "cluster": "prod", "decision": "connect"}
    for headers, fields in (
        ({}, {}),
        ({}, {"csrf": "0" * 64}),
        ({"Origin": "https://attacker.example"}, {"csrf": browser.csrf}),
        ({"Origin": "null"}, {"csrf": browser.csrf}),
    ):
        answer = await browser.http.post(path, data={**form, **fields}, headers=headers)
        assert answer.status_code == 403, (headers, fields)
    assert (await browser.consent()).status_code == 200


async def test_each_step_counts_once_and_old_cookies_are_worth_nothing(front, browser):
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    first = browser.cookie
    path = f"/oauth/consent{browser.query}"
    await browser.go(f"/oauth/sign-in{browser.query}")
    await browser.sign_in("lab/pve", "bob", PASSWORD)
    stolen = await with_cookie(front, first, "GET", "/connections")
    assert stolen.headers["location"] == "/oauth/sign-in", "a step renews the session"
    csrf, cookie = browser.csrf, browser.cookie
    form = {"csrf": csrf, "role": "Read-only", "cluster": "prod", "decision": "connect"}
    assert (await browser.consent()).status_code == 200
    again = await with_cookie(front, cookie, "POST", path, data=form)
    assert again.status_code == 303
    assert again.headers["location"].startswith("/oauth/sign-in?")
    used = [await browser.token() for _ in range(2)]
    assert [answer.status_code for answer in used] == [200, 400]
    assert used[1].json()["error"] == "invalid_grant"
    _, answer = await call(front, used[0].json()["access_token"])
    assert answer.get("error") or answer.get("result", {}).get("isError"), "all its tokens ended"


async def test_a_session_of_another_user_cannot_be_used_for_a_form(open_browser):
    async with open_browser() as bob, open_browser() as alice:
        for browser, user in ((bob, "bob"), (alice, "alice")):
            await browser.authorize()
            await browser.sign_in("prod/pve", user, PASSWORD)
        form = {"csrf": bob.csrf, "role": "Read-only", "cluster": "prod", "decision": "connect"}
        answer = await alice.http.post(f"/oauth/consent{alice.query}", data=form)
        assert answer.status_code == 403


async def test_a_recovery_key_signs_in_and_no_code_counts_twice(browser, emulator):
    await browser.authorize()
    for method, code in (
        ("totp", totp.code(TOTP_SECRET, emulator["lab"].state.now)),
        ("recovery", "aaaa-bbbb"),
    ):
        await browser.go(f"/oauth/sign-in{browser.query}")
        await browser.sign_in("lab/pve", "alice", PASSWORD)
        step = f"/oauth/sign-in/second-factor{browser.query}"
        form = {"csrf": browser.csrf, "method": method, "code": code}
        await browser.submit(step, method=method, code=code)
        assert browser.page.url.path == "/oauth/authorize", browser.text
        again = await browser.http.post(step, data=form)
        assert again.status_code == 303, "the session has no open challenge any more"
        browser.http.cookies.clear()


async def test_factors_that_work_elsewhere_only_are_named(browser, users):
    factor = SecondFactor("key", "webauthn", "", credential="AAAA")
    users["prod"].users["bob@pve"].factors = [factor]
    challenge = {"publicKey": {"challenge": "x", "rpId": "pve.example", "allowCredentials": []}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SecondFactors, "challenge", lambda _: {"webauthn": challenge})
        await browser.authorize()
        await browser.sign_in("prod/pve", "bob", PASSWORD)
    assert "Your security key (WebAuthn) is bound to pve.example" in browser.text
    for way in ("an authenticator app or recovery keys", "an OpenID realm", "an API key"):
        assert way in browser.text
    assert f'href="/admin/connect{browser.query}"' in unescape(browser.page.text)
    assert 'name="code"' not in browser.page.text
    with pytest.MonkeyPatch.context() as patched:
        both = {"webauthn": challenge, "recovery": [0]}
        patched.setattr(SecondFactors, "challenge", lambda _: both)
        await browser.go(f"/oauth/sign-in{browser.query}")
        await browser.sign_in("prod/pve", "bob", PASSWORD)
    assert "browsers offer it on https pages at or below that name" in browser.text
    assert browser.page.text.count('name="code"') == 1
    assert "data-options" not in browser.page.text
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SecondFactors, "challenge", lambda _: {"u2f": {"challenge": "x"}})
        await browser.go(f"/oauth/sign-in{browser.query}")
        await browser.sign_in("prod/pve", "bob", PASSWORD)
    assert "Your U2F key works in no present browser" in browser.text


@pytest.mark.parametrize("origin", [{}, {"origin": "https://localhost"}], ids=["host", "origin"])
async def test_a_security_key_of_proxmox_signs_in_on_our_page(
    front, browser, emulator, users, monkeypatch, origin
):
    key, browser.http.base_url = SecurityKey(), SECURE
    users["prod"].users["bob@pve"].factors = [key.factor()]
    settings = {"id": "localhost", "rp": "Lab", **origin}
    monkeypatch.setitem(emulator["prod"].state.options, "webauthn", settings)

    async def answered(signing: SecurityKey):
        await browser.authorize()
        await browser.sign_in("prod/pve", "bob", PASSWORD)
        options = json.loads(unescape(re.search(r'data-options="([^"]+)"', browser.page.text)[1]))
        assert options["allowCredentials"] == [{"type": "public-key", "id": key.credential}]
        credential = signing.sign({"publicKey": options}, SECURE)
        return await browser.submit(
            f"/oauth/sign-in/second-factor{browser.query}", credential=credential
        )

    assert (await answered(SecurityKey())).status_code == 403
    assert "is of a key that Proxmox has not asked for" in browser.text
    copy = SecurityKey()
    copy.credential = key.credential
    assert (await answered(copy)).status_code == 403
    assert "Proxmox: 'authentication failure'" in browser.text
    assert "Proxmox accepts a security key on this page only while" in browser.text
    assert 'name="password"' in browser.page.text, "a challenge counts once"
    await answered(key)
    assert "bob@pve on prod" in browser.text
    assert browser.page.url.path == "/oauth/authorize"


@pytest.mark.parametrize("credential", ["x", "[]", "{}", '{"id": 1}', "x" * 20_000])
async def test_what_is_no_answer_of_a_security_key_is_not_sent(
    browser, emulator, users, monkeypatch, credential
):
    browser.http.base_url = SECURE
    users["prod"].users["bob@pve"].factors = [SecurityKey().factor()]
    settings = {"id": "localhost", "rp": "Lab"}
    monkeypatch.setitem(emulator["prod"].state.options, "webauthn", settings)
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    step = f"/oauth/sign-in/second-factor{browser.query}"
    assert (await browser.submit(step, credential=credential)).status_code in (403, 413)
    await browser.go(step)
    assert "Use your security key" in browser.text, "the challenge is open"


def passkey_of(key: SecurityKey) -> NewPasskey:
    """Return the key as a passkey of an administrator, with its public key in COSE."""
    numbers = load_der_private_key(key.pkcs8(), None).public_key().public_numbers()
    x, y = (number.to_bytes(32) for number in (numbers.x, numbers.y))
    cose = bytes.fromhex("a5010203262001215820") + x + bytes.fromhex("225820") + y
    return NewPasskey(key.credential, urlsafe_b64encode(cose).decode().rstrip("="), 0)


@pytest.mark.parametrize("lists_it", [True, False], ids=["listed", "discovered"])
async def test_no_passkey_of_this_server_signs_for_proxmox(
    front, open_browser, users, monkeypatch, lists_it
):
    """Let a hostile node pass on the challenge of this server's own sign-in with a passkey."""
    key, admins = SecurityKey(), front.services.access.admins
    owner = await admins.create(f"owner {lists_it}", ADMIN_PASSWORD, must_change=False)
    party = RelyingParty("localhost", SECURE)
    await front.services.access.second_factors.add_passkey(owner, "key", party, passkey_of(key))
    received = []
    monkeypatch.setattr(SecondFactors, "accept", lambda _, answer: received.append(answer))
    monkeypatch.setattr(webauthn, "_USER_PRESENT", 5)  # and verified
    async with open_browser() as attacker, open_browser() as victim:
        attacker.http.base_url = victim.http.base_url = SECURE
        await attacker.go("/admin/sign-in/passkey")
        asked = json.loads(unescape(re.search(r'data-options="([^"]+)"', attacker.page.text)[1]))
        listed = [key.credential] if lists_it else []
        allowed = [{"type": "public-key", "id": each} for each in listed]
        challenge = {**asked, "allowCredentials": allowed}
        offered = {"webauthn": {"publicKey": challenge}, "recovery": [0]}
        monkeypatch.setattr(SecondFactors, "challenge", lambda _: offered)
        await victim.authorize()
        await victim.sign_in("prod/pve", "bob", PASSWORD)
        signed = key.sign({"publicKey": challenge}, SECURE)
        await victim.submit(f"/oauth/sign-in/second-factor{victim.query}", credential=signed)
        assert victim.page.status_code == 403
        for answer in received:
            await attacker.submit(
                "/admin/sign-in/passkey", credential=answer.removeprefix("webauthn:")
            )
            assert attacker.page.url.path == "/admin/sign-in/passkey", attacker.page.url
        assert received == []


async def test_a_realm_of_a_provider_signs_in_through_proxmox(browser, emulator):
    await browser.authorize()
    begun = browser.authorization()
    await browser.submit(f"/oauth/sign-in/openid{browser.query}", realm="prod/sso")
    url = unescape(re.search(r'content="0;url=([^"]+)"', browser.page.text)[1])
    assert parse_qs(urlsplit(url).query)["redirect_uri"] == [f"{BASE}/oauth/openid"]
    back = emulator["prod"].openid.sign_in(url, "erin").removeprefix(BASE)
    for query in ("state=x&code=y", "error=access_denied", ""):  # of other sites: spends nothing
        assert (await browser.http.get(f"/oauth/openid?{query}")).status_code == 403, query
    await browser.go(back)
    assert browser.page.url.raw_path.decode() == begun
    assert "erin@sso on prod" in browser.text
    again = await browser.http.get(back)
    assert again.status_code == 403, "the provider's answer counts once"


async def test_what_is_no_sign_in_is_limited_and_not_in_the_audit(front, open_browser):
    async def refusals() -> int:
        await front.services.audit.flush()
        entries = await front.services.audit.find(limit=100)
        return sum(each.outcome == "refused" for each in entries)

    before = await refusals()
    async with open_browser() as stranger, open_browser() as user:
        for browser, begins in ((stranger, False), (user, True)):
            if begins:
                await browser.authorize()
                await browser.submit(f"/oauth/sign-in/openid{browser.query}", realm="prod/sso")
            statuses = [
                (await browser.http.get("/oauth/openid?state=x&code=y")).status_code
                for _ in range(FAILURES_PER_MINUTE + 2)
            ]
            assert statuses == [403] * FAILURES_PER_MINUTE + [429] * 2
        for form in ({"user": "bob", "password": ""}, {"user": "", "password": "x"}):
            data = {"realm": "prod/pve", **form}
            assert (await user.http.post("/oauth/sign-in", data=data)).status_code == 403
        assert await refusals() == before


@pytest.mark.parametrize("wrong", ["code=bogus", "code=", "error=access_denied"])
async def test_the_first_answer_spends_the_state_of_a_provider(browser, emulator, wrong):
    await browser.go("/oauth/sign-in")
    await browser.submit("/oauth/sign-in/openid", realm="prod/sso")
    url = unescape(re.search(r'content="0;url=([^"]+)"', browser.page.text)[1])
    back = emulator["prod"].openid.sign_in(url, "erin").removeprefix(BASE)
    [state] = parse_qs(urlsplit(url).query)["state"]
    before = dict(browser.http.cookies)
    assert (await browser.http.get(f"/oauth/openid?state={state}&{wrong}")).status_code == 403
    after = dict(browser.http.cookies)
    for cookies in (before, after):
        browser.http.cookies = cookies
        again = await browser.http.get(back)
        assert again.status_code == 403
        assert "begin again" in again.text


async def test_the_text_of_a_provider_s_error_is_ours(browser):
    hostile = ("Your account is locked. Call 555 0100.", "<b>x</b>", "access_denied Call me")
    for error in (*hostile, *PROVIDER_ERRORS):
        await browser.go("/oauth/sign-in")
        await browser.submit("/oauth/sign-in/openid", realm="prod/sso")
        url = unescape(re.search(r'content="0;url=([^"]+)"', browser.page.text)[1])
        [state] = parse_qs(urlsplit(url).query)["state"]
        answer = {"error": error, "error_description": hostile[0], "state": state}
        page = await browser.http.get("/oauth/openid", params=answer)
        [alert] = map(unescape, re.findall(r'role="alert">([^<]*)', page.text))
        assert (page.status_code, alert) == (403, PROVIDER_ERRORS.get(error, OTHER_ERROR)), error
        assert not {"Call", "555", "<b>"} & set(re.split(r"[\s.]", page.text)), error


async def test_a_shared_realm_says_who_gets_the_password_and_what_failed(front, browser, users):
    await front.settings.change({"shared_realms": ["corp"]}, by="test")
    try:
        await browser.authorize()
        assert 'value="*/corp" selected' in browser.page.text
        assert "each of them gets the password" in browser.text
        users["lab"].users["carol@corp"].enabled = False
        await browser.sign_in("*/corp", "carol", PASSWORD)
        assert "lab refused the sign-in of carol@corp" in browser.text
        assert browser.clusters == ["prod"]
        await browser.submit(f"/connections/sign-out{browser.query}")
        users["lab"].users["carol@corp"].enabled = True
        await browser.sign_in("*/corp", "carol", PASSWORD)
        assert browser.clusters == ["lab", "prod"]
    finally:
        await front.settings.change({"shared_realms": []}, by="test")


@pytest.mark.parametrize("kind", ["document", "loopback", "web", "app"])
async def test_a_known_client_asks_shortly_until_it_wants_more(front, open_browser, kind):
    redirects = {"web": WEB_REDIRECT, "document": WEB_REDIRECT, "app": APP_REDIRECT}
    async with open_browser(redirects.get(kind, REDIRECT)) as browser:
        if kind == "document":
            browser.client = await with_document(front.services.store)
        shown = {}
        for step, scope in (("first", "pve:read"), ("again", "pve:read"), ("more", "pve:write")):
            await browser.authorize(scope=scope)
            await browser.sign_in("prod/pve", "bob", PASSWORD)
            is_open = "<details open>" in browser.page.text
            as_before = "As before Role Read-only on prod: no more than you allowed" in browser.text
            shown[step] = (is_open, "again?" in browser.text, as_before)
            is_vouched_for = "Publisher's address claude.example" in unescape(browser.text)
            assert is_vouched_for is (kind == "document")
            is_warned = "any program on this computer can use this name" in browser.text
            assert is_warned is (kind in ("loopback", "app"))
            assert browser.page.url.path == "/oauth/authorize", "the user answers each time"
            await browser.consent()
            assert browser.answer["code"]
    whole, short = (True, False, False), (False, True, True)
    assert shown == {"first": whole, "again": short, "more": whole}


async def test_a_consent_is_shown_again_when_its_role_is_not_allowed_any_more(front, browser):
    rules = front.services.store.person_rules
    rule = await rules.add(
        kind=PersonKind.USER,
        name="bob@pve",
        cluster_id=None,
        role_id=(await front.services.access.roles.get("Operator")).id,
        created=utc_now(),
    )
    await connected(browser, role="Operator")
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    assert "As before Role Operator on prod" in browser.text
    await rules.remove(rule.id)  # as with a group of Proxmox, whose end is known at a sign-in only
    await browser.authorize()
    assert "As before" not in browser.text
    assert "<details open>" in browser.page.text


@pytest.mark.parametrize("ended_by", ["client", "user"])
async def test_a_consent_is_remembered_after_its_connection_until_its_user_ends_it(
    front, open_browser, ended_by
):
    async with open_browser() as browser:
        await connected(browser)
        [record] = await front.services.store.connections.all(client_id=browser.client["client_id"])
        if ended_by == "user":
            await browser.go("/oauth/sign-in")
            await browser.sign_in("prod/pve", "bob", PASSWORD)
            await browser.submit("/connections/end", id=record.id)
            browser.http.cookies.clear()
        else:
            await front.services.connections.end(record.id)
        assert await front.services.store.connections.find(id=record.id) is None
        await browser.authorize()
        await browser.sign_in("prod/pve", "bob", PASSWORD)
        assert ("As before" in browser.text) is (ended_by == "client")
        [known] = await front.services.store.consents.all() or [None]
        if known is not None:
            await front.services.store.consents.change(known.id, expires=utc_now())
            await browser.authorize()
            assert "As before" not in browser.text, "it has expired"
            await front.services.connections.remove_expired()
            assert await front.services.store.consents.all() == []


async def with_document(store) -> dict:
    """Store a client that a host vouches for, and return it."""
    url = "https://claude.example/client.json"
    await store.oauth_clients.add(
        id=url,
        name="Claude",
        is_document=True,
        metadata={"redirect_uris": [WEB_REDIRECT], "grant_types": ["authorization_code"]},
        created=utc_now(),
        expires=utc_now() + timedelta(days=1),
    )
    return {"client_id": url, "redirect_uris": [WEB_REDIRECT]}


HOSTILE = {  # a name, how it is shown, and whether a host could vouch for it
    "Claude, whose publisher has the address claude.ai": ("", True),
    "Claude\u201d of \u201cclaude.ai": ("Claude' of 'claude.ai", True),
    "\u05e7\u05dc\u05d5\u05d3 claude.ai": ("", True),
    "Cl\u0430ude": ("", False),
    "\u3164\u2800": (UNNAMED, True),
}


async def test_the_name_of_a_client_stays_apart_from_our_words(front, open_browser):
    for name, (shown, is_plain) in HOSTILE.items():
        shown = shown or name
        said = f"<bdi>{shown}</bdi>" if shown == UNNAMED else f"<q><bdi>{shown}</bdi></q>"
        url = f"https://xn--clude-5ve.example/{name.encode().hex()}"
        async with open_browser(WEB_REDIRECT, name) as browser:
            assert browser.client["client_name"] == shown
            own = browser.client["client_id"]
            clients = front.services.store.oauth_clients
            known = await clients.find(id=own)
            await clients.add(
                id=url,
                name=known.name,
                is_document=True,
                metadata=known.metadata,
                created=known.created,
                expires=known.expires,
            )
            for client_id, is_verified in ((own, False), (url, is_plain)):
                browser.client["client_id"] = client_id
                await browser.authorize()
                assert f"<strong>{said} (" in unescape(browser.page.text)
                await browser.sign_in("prod/pve", "bob", PASSWORD)
                page = unescape(browser.page.text)
                assert f"<h1>Connect {said}?</h1>" in page
                program = re.search(r"<dt>Program</dt><dd>(.*?)</dd>", page)[1]
                badge = ' <span class="badge warn">name not verified</span>'
                assert program == f"<strong>{said}</strong>{'' if is_verified else badge}"
                host = re.findall(r"<dt>Publisher's address</dt><dd>(.*?)</dd>", page)
                expected = ["<strong>xn--clude-5ve.example</strong>"] if client_id == url else []
                assert host == expected
                await browser.http.post("/connections/sign-out", data={"csrf": browser.csrf})
                browser.http.cookies.clear()


async def test_choices_that_are_not_offered_are_refused(front, browser):
    await browser.authorize(scope="pve:read pve:write")
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    for fields in ({"role": "Administrator"}, {"cluster": "lab"}, {"cluster": []}):
        await browser.consent(**fields)
        assert browser.page.status_code == 422, fields
    assert await front.services.store.connections.all() == []
    await browser.consent(read_only="1")
    assert (await browser.token()).json()["scope"] == "pve:read"
    (connection,) = await front.services.store.connections.all()
    assert connection.read_only


async def test_a_rule_offers_a_role_and_each_consent_has_its_own_tokens(front, browser):
    roles = front.services.access.roles
    rule = await front.services.store.person_rules.add(
        kind=PersonKind.USER,
        name="bob@pve",
        cluster_id=None,
        role_id=(await roles.get("Operator")).id,
        created=utc_now(),
    )
    try:
        tokens = [await connected(browser, role="Operator", scope="pve:read pve:write")]
        for number, fields in enumerate(({}, {"read_only": "1"}, {}), start=1):
            await browser.authorize(scope="pve:read pve:write")
            await browser.sign_in("prod/pve", "bob", PASSWORD)
            assert 'value="Operator" checked' in browser.page.text
            assert f"Connected already {number} connection" in browser.text
            await browser.consent(role="Operator", **fields)
            assert len(await front.services.store.connections.all()) == number + 1
            tokens.append((await browser.token()).json()["access_token"])
        assert [(await call(front, token))[0].status_code for token in tokens] == [200] * 4
    finally:
        await front.services.store.person_rules.remove(rule.id)


async def test_two_computers_stay_connected_and_end_one_by_one(front, open_browser, users):
    async with open_browser() as first, open_browser() as second:
        second.client = first.client
        tokens = [await connected(each) for each in (first, second)]
        assert [(await call(front, token))[0].status_code for token in tokens] == [200, 200]
        made = sorted(await front.services.store.connections.all(), key=lambda each: each.created)
        await front.services.access.authenticator.flush()  # of the calls, so that no later one does
        await front.services.store.keys.record_uses({made[0].id: (utc_now(), "192.0.2.77")})
        await second.go("/connections")
        await second.sign_in("prod/pve", "bob", PASSWORD)
        assert second.text.count("Claude Code (name not verified") == 2
        assert "from 192.0.2.77" in second.text
        await second.submit("/connections/end", id=made[0].id)
        assert [(await call(front, token))[0].status_code for token in tokens] == [401, 200]
        assert len(users["prod"].users["bob@pve"].tokens) == 1


async def test_a_connection_beyond_the_limit_ends_the_longest_unused_one(
    front, browser, monkeypatch
):
    for module in (oauth_connections, consent):
        monkeypatch.setattr(module, "MOST_OF_CLIENT", 2)
    tokens = []
    for _ in range(3):
        await browser.authorize()
        await browser.sign_in("prod/pve", "bob", PASSWORD)
        tokens.append("was not used for the longest time ends" in browser.text)
        await browser.consent()
        tokens.append((await browser.token()).json()["access_token"])
    assert tokens[::2] == [False, False, True]
    assert [(await call(front, token))[0].status_code for token in tokens[1::2]] == [401, 200, 200]
    await front.services.audit.flush()
    entries = await front.services.audit.find(limit=20)
    ended = next(each for each in entries if each.tool == "oauth.end")
    assert ended.arguments == {"reason": consent.SURPLUS}


async def test_a_client_that_revokes_its_refresh_token_ends_its_connection(front, browser, users):
    await connected(browser)
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    await browser.consent()
    refresh = (await browser.token()).json()["refresh_token"]
    made = sorted(await front.services.store.connections.all(), key=lambda each: each.created)
    form = {"token": refresh, "client_id": browser.client["client_id"]}
    assert (await browser.http.post("/oauth/revoke", data=form)).status_code == 200
    assert [each.id for each in await front.services.store.connections.all()] == [made[0].id]
    assert len(await front.services.store.identities.all(connection_id=made[1].id)) == 0


async def test_a_rule_that_is_removed_during_the_consent_does_not_count(
    front, browser, monkeypatch
):
    store, connections = front.services.store, front.services.connections
    connect = connections.connect
    rule = await store.person_rules.add(
        kind=PersonKind.USER,
        name="bob@pve",
        cluster_id=None,
        role_id=(await front.services.access.roles.get("Operator")).id,
        created=utc_now(),
    )

    async def connect_late(*arguments):
        await store.person_rules.remove(rule.id)
        return await connect(*arguments)

    monkeypatch.setattr(connections, "connect", connect_late)
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    page = await browser.consent(role="Operator")
    assert (page.status_code, "choose one of the list" in page.text) == (422, True)
    assert await store.connections.all() == []


async def test_a_user_who_may_not_make_tokens_reads_what_else_to_do(browser, monkeypatch):
    async def forbidden(*_, **__):
        raise Forbidden(403, "Permission check failed", "Permission check failed")

    monkeypatch.setattr(Access, "create_token", forbidden)
    await browser.authorize()
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    await browser.consent()
    assert browser.page.status_code == 422
    assert "bob@pve may not make API tokens on prod" in browser.text
    assert "as an administrator of this server" in browser.text


async def test_users_see_and_end_their_own_connections_only(front, open_browser, users):
    async with open_browser() as bob, open_browser(name="Other") as alice:
        token = await connected(bob)
        await connected(alice, "alice")
        connections = await front.services.store.connections.all()
        theirs = next(each for each in connections if each.subject.endswith("alice@pve"))
        await bob.go("/connections")
        assert bob.page.url.path == "/oauth/sign-in"
        await bob.sign_in("prod/pve", "bob", PASSWORD)
        assert "Claude Code (name not verified" in bob.text
        assert "Other" not in bob.text
        await bob.submit("/connections/end", id=theirs.id)
        assert await front.services.store.connections.find(id=theirs.id)
        (own,) = [each for each in connections if each.id != theirs.id]
        assert (await bob.http.post("/connections/end", data={"id": own.id})).status_code == 403
        await bob.submit("/connections/end", id=own.id)
        assert "No program is connected." in bob.text
        assert users["prod"].users["bob@pve"].tokens == {}
        assert (await call(front, token))[0].status_code == 401
        await bob.submit("/connections/sign-out")
        assert (await bob.http.get("/connections")).status_code == 303


async def test_a_sign_in_removes_tokens_that_an_administrator_s_end_has_left(front, browser, users):
    await connected(browser)
    (connection,) = await front.services.store.connections.all()
    (left,) = await front.services.connections.end(connection.id)
    (token,) = users["prod"].users["bob@pve"].tokens.values()
    assert token.name in left.line
    token.comment = re.sub(r"\d{4}-", "2020-", token.comment)
    await browser.go("/connections")
    await browser.sign_in("prod/pve", "bob", PASSWORD)
    assert users["prod"].users["bob@pve"].tokens == {}


async def test_an_administrator_connects_with_the_account_of_this_server(front, browser):
    await browser.authorize()
    await browser.go(f"/admin/connect{browser.query}")
    assert browser.page.url.path == "/admin/sign-in"
    purpose = "You sign in to connect Claude Code (name not verified, on the user's computer)"
    assert purpose in browser.text
    await browser.go("/admin/sign-in/passkey")
    assert purpose in browser.text
    form = {"name": ADMIN, "password": ADMIN_PASSWORD}
    browser.page = await browser.http.post("/admin/sign-in", data=form)
    await browser._follow()
    assert browser.page.url.path == "/oauth/authorize"
    assert "ada, administrator of this server" in browser.text
    assert browser.clusters == ["lab", "prod"]
    await browser.consent(cluster=["lab"])
    granted = (await browser.token()).json()
    _, answer = await call(front, granted["access_token"])
    assert not answer["result"].get("isError"), answer
    (connection,) = await front.services.store.connections.all()
    assert connection.subject.startswith("admin:")
    await browser.go("/admin/")
    assert browser.page.url.path == "/admin/", "the way back is used once"
    assert "You sign in to connect" not in (await browser.go("/admin/sign-in")).text


async def test_an_auditor_reads_that_a_rule_is_needed(front, browser):
    admins = front.services.access.admins
    await admins.create("audi", ADMIN_PASSWORD, role=AdminRole.AUDITOR, must_change=False)
    await browser.authorize()
    await browser.go(f"/admin/connect{browser.query}")
    await browser.submit("/admin/sign-in", name="audi", password=ADMIN_PASSWORD)
    assert browser.page.status_code == 403
    assert "may not connect programs unless a connection rule" in browser.text
    assert (await browser.http.get("/connections")).status_code == 200


async def _signs_out(front, browser):
    page = await browser.go("/admin/")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)[1]
    assert (await browser.http.post("/admin/sign-out", data={"csrf": csrf})).status_code == 303


async def _is_ended(front, browser):
    access = front.services.access
    await access.sessions.end_others(await access.admins.get(ADMIN))


async def _has_a_new_password(front, browser):
    admins = front.services.access.admins
    await admins.set_password(await admins.get(ADMIN), ADMIN_PASSWORD)


async def test_a_consent_of_an_administrator_ends_with_the_session_that_it_began_in(front, browser):
    for end in (_signs_out, _is_ended, _has_a_new_password):
        await browser.authorize()
        await browser.go(f"/admin/connect{browser.query}")
        await browser.submit("/admin/sign-in", name=ADMIN, password=ADMIN_PASSWORD)
        form, cookie, query = {"csrf": browser.csrf}, browser.cookie, browser.query
        await end(front, browser)
        form |= {"role": "Read-only", "cluster": "lab", "decision": "connect"}
        for method, path in (("GET", "/connections"), ("POST", f"/oauth/consent{query}")):
            data = form if method == "POST" else None
            answer = await with_cookie(front, cookie, method, path, data=data)
            assert answer.status_code == 303, (end, path)
            assert answer.headers["location"].startswith("/oauth/sign-in"), (end, path)
    assert await front.services.store.connections.all() == []


async def test_the_second_factor_of_an_administrator_leads_back_too(front, browser):
    admins, factors = front.services.access.admins, front.services.access.second_factors
    name, secret = "grace", new_totp_secret()
    admin = await admins.create(name, ADMIN_PASSWORD, must_change=False)
    await factors.add_totp(admin, "phone", secret, TOTP(secret).now())
    await browser.authorize()
    await browser.go(f"/admin/connect{browser.query}")
    await browser.submit("/admin/sign-in", name=name, password=ADMIN_PASSWORD)
    assert browser.page.url.path == "/admin/sign-in/second-factor"
    assert "You sign in to connect Claude Code" in browser.text
    code = TOTP(secret).at(time.time() + 30)  # the present one was used
    await browser.submit("/admin/sign-in/second-factor", code=code)
    assert browser.page.url.path == "/oauth/authorize"
    await admins.set_enabled(name, enabled=False)
    await browser.consent()
    assert browser.page.url.path == "/oauth/sign-in", "the account may not be used any more"


async def test_a_new_administrator_reads_on_each_page_what_connects(front, browser):
    await front.services.access.admins.create("hedy", ADMIN_PASSWORD, must_change=True)
    await front.settings.change({"require_second_factor": True}, by="test")
    try:
        await browser.authorize()
        await browser.go(f"/admin/connect{browser.query}")
        shown = {browser.page.url.path: browser.text}
        await browser.submit("/admin/sign-in", name="hedy", password=ADMIN_PASSWORD)
        shown[browser.page.url.path] = browser.text
        new = {"new": "another battery staple", "again": "another battery staple"}
        await browser.submit("/admin/password", current="wrong one", **new)
        assert browser.page.status_code == 422
        shown["again"] = browser.text
        await browser.submit("/admin/password", current=ADMIN_PASSWORD, **new)
        shown[browser.page.url.path] = browser.text
    finally:
        await front.settings.change({"require_second_factor": False}, by="test")
    await browser.go("/admin/account")
    assert 'href="/admin/connect?response_type=code' in browser.page.text
    assert list(shown) == ["/admin/sign-in", "/admin/password", "again", "/admin/account"]
    for path, text in shown.items():
        assert "You sign in to connect Claude Code (name not verified" in text, path


async def test_what_users_do_is_in_the_audit_without_secrets(front, browser):
    await browser.authorize()
    await browser.sign_in("prod/pve", PASSWORD, "typed into the wrong field")
    await connected(browser)
    await front.services.audit.flush()
    entries = [e for e in await front.services.audit.find(limit=20) if e.tool.startswith("oauth.")]
    latest = {(entry.tool, entry.outcome, entry.key_name) for entry in entries[:3]}
    assert latest == {
        ("oauth.sign_in", "refused", None),
        ("oauth.sign_in", "ok", "bob@pve"),
        ("oauth.connect", "ok", "bob@pve"),
    }
    assert {entry.reason for entry in entries[:3]} == {"refused at prod/pve", None}
    connect = next(entry for entry in entries if entry.tool == "oauth.connect")
    assert connect.client == "Claude Code (name not verified, on the user's computer)"
    assert PASSWORD not in repr(entries)


async def test_switched_off_connections_show_no_page(front, browser):
    await front.settings.change({"connections_enabled": False}, by="test")
    try:
        for path in ("/oauth/authorize", "/oauth/sign-in", "/connections"):
            assert (await browser.http.get(path)).status_code == 404
    finally:
        await front.settings.change({"connections_enabled": True}, by="test")
