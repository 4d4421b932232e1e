"""Sign-in with an OpenID Connect issuer: a small one of our own, over real HTTP."""

import gzip
import json
import re
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2 as httpx
import pytest
import uvicorn
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import FastAPI, Form, Response
from joserfc import jwk, jwt
from joserfc.jwk import RSAKey
from pyotp import TOTP
from tests.server.oauth.connected import connect

from proxmox_client.plain_http import PlainTransport
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.oauth.published_keys import MOST_KEYS
from pvemcp_server.web import oidc
from pvemcp_server.web.oidc import MOST_BYTES

MISSING = object()  # in place of a claim
new_key = partial(RSAKey.generate_key, 2048, {"kid": "1"})
usual_key = cache(new_key)  # it takes as long as the rest of a test
pytestmark = pytest.mark.anyio

LATER = int(time.time()) + 3600  # read as now: a test may run minutes after its collection


@dataclass
class TestIssuer:
    """An issuer with one user; its claims can be changed."""

    __test__ = False

    url: str = ""
    key: RSAKey = field(default_factory=usual_key)
    signs_with: RSAKey | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    named: str = ""  # what it calls itself, when not by its URL
    request: dict[str, list[str]] = field(default_factory=dict)
    described: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)  # in place of the usual ones, by path
    endpoints: dict[str, Any] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def configuration() -> dict[str, Any]:
            self.described += 1
            return {
                "issuer": self.named or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                **self.endpoints,
            }

        @app.get("/keys")
        async def keys() -> Any:
            if "keys" in self.answers:
                return Response(self.answers["keys"])
            return {"keys": [self.key.as_dict(private=False)]}

        @app.post("/token")
        async def token(code: str = Form(), code_verifier: str = Form()) -> Any:
            if "token" in self.answers:
                return Response(self.answers["token"])
            assert code == "the code"
            assert [create_s256_code_challenge(code_verifier)] == self.request["code_challenge"]
            return {"access_token": "a", "token_type": "Bearer", "id_token": self.id_token()}

        return app

    def id_token(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "42",
            "aud": "pvemcp",
            "iat": now,
            "exp": now + 60,
            "nonce": self.request["nonce"][0],
            "email": "ada@example.com",
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not MISSING}
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signs_with or self.key)


@asynccontextmanager
async def running(issuer: TestIssuer) -> AsyncIterator[None]:
    config = uvicorn.Config(issuer.app(), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server._serve)
        with anyio.fail_after(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        issuer.url = f"http://127.0.0.1:{port}"
        yield
        server.should_exit = True


@pytest.fixture
async def issuer(anyio_backend: str) -> AsyncIterator[TestIssuer]:
    test_issuer = TestIssuer()
    async with running(test_issuer):
        yield test_issuer


@pytest.fixture
async def oidc_front(open_front: Callable[..., Any], issuer: TestIssuer) -> AsyncIterator[Any]:
    options = {"oidc_client_id": "pvemcp", "oidc_client_secret": "shared"}
    admins = ("Ada@example.com", "grace@example.com")
    async with open_front(oidc_issuer=issuer.url, oidc_admins=admins, **options) as front:
        yield front


async def begin(front, issuer: TestIssuer) -> str:
    """Begin a sign-in and return the callback address with the issuer's answer."""
    sent = await front.get("/admin/oidc")
    address = urlsplit(sent.headers["location"])
    assert f"{address.scheme}://{address.netloc}" == issuer.url
    issuer.request = parse_qs(address.query)
    return f"/admin/oidc/callback?code=the%20code&state={issuer.request['state'][0]}"


async def test_a_user_of_the_issuer_signs_in_as_administrator(oidc_front, issuer):
    assert issuer.url in (await oidc_front.get("/admin/sign-in")).text
    back = await begin(oidc_front, issuer)
    arrived = await oidc_front.get(back)
    # no redirect: a SameSite=Strict cookie is not sent on one that began at the issuer
    assert arrived.status_code == 200
    assert 'content="0;url=/admin/"' in arrived.text
    assert "ada@example.com" in (await oidc_front.get("/admin/")).text
    await oidc_front.services.audit.flush()
    (entry,) = await oidc_front.services.audit.find(limit=1)
    assert (entry.tool, entry.key_name) == ("admin.sign_in", "ada@example.com")


async def test_a_consent_goes_on_after_a_fresh_sign_in_at_the_issuer(oidc_front, issuer):
    consent = 'content="0;url=/admin/connect?client_id=x&amp;scope=pve%3Aread+pve%3Awrite"'
    path = "/admin/connect?client_id=x&scope=pve%3Aread+pve%3Awrite"
    first = await oidc_front.get(path)
    assert first.headers["location"] == "/admin/sign-in"
    issuer.claims["auth_time"] = int(time.time()) - 3600
    arrived = await oidc_front.get(await begin(oidc_front, issuer))
    assert consent in arrived.text
    assert "You sign in to connect" in arrived.text
    again = await oidc_front.get(path)
    assert again.headers["location"] == "/admin/oidc/confirm", "the issuer asked its user nothing"
    issuer.claims["auth_time"] = int(time.time())
    assert consent in (await oidc_front.get(await confirm(oidc_front, issuer))).text
    signed_in = await oidc_front.get(path)
    assert (
        signed_in.headers["location"] == "/oauth/authorize?client_id=x&scope=pve%3Aread+pve%3Awrite"
    )
    usual = await oidc_front.get(await begin(oidc_front, issuer))
    assert 'content="0;url=/admin/"' in usual.text


async def test_below_a_path_prefix_the_issuer_leads_back_below_it(open_front, issuer):
    options = {"oidc_client_id": "pvemcp", "oidc_admins": ("ada@example.com",)}
    url = "http://localhost/pve"
    async with open_front(oidc_issuer=issuer.url, public_url=url, **options) as front:
        sent = await front.get("/pve/admin/oidc")
        issuer.request = parse_qs(urlsplit(sent.headers["location"]).query)
        [back] = issuer.request["redirect_uri"]
        assert back == f"{url}/admin/oidc/callback"
        query = f"code=the%20code&state={issuer.request['state'][0]}"
        assert 'content="0;url=/pve/admin/"' in (await front.get(f"{back}?{query}")).text
        assert "ada@example.com" in (await front.get("/pve/admin/")).text


async def confirm(oidc_front, issuer) -> str:
    """Begin a confirmation and return the callback address with the issuer's answer."""
    sent = await oidc_front.get("/admin/oidc/confirm")
    link = re.search(r'href="(http[^"]+)" rel="noreferrer"', sent.text)
    if link:
        assert "You sign in to connect" in sent.text
    address = unescape(link[1]) if link else sent.headers["location"]
    issuer.request = parse_qs(urlsplit(address).query)
    return f"/admin/oidc/callback?code=the%20code&state={issuer.request['state'][0]}"


async def test_a_fresh_sign_in_at_the_issuer_confirms_the_session(oidc_front, issuer):
    await oidc_front.get(await begin(oidc_front, issuer))
    oidc_front.csrf = (await oidc_front.api("GET", "/session")).json()["csrf"]
    await oidc_front.forget_proof()
    asked = await oidc_front.post("/admin/administrators", name="grace")
    assert 'href="/admin/oidc/confirm" target="_blank"' in asked.text
    back = await confirm(oidc_front, issuer)
    assert (issuer.request["prompt"], issuer.request["max_age"]) == (["login"], ["0"])
    issuer.claims = {"auth_time": int(time.time())}
    confirmed = await oidc_front.get(back)
    assert "Confirmed" in confirmed.text
    assert "pvemcp_session" not in confirmed.headers["set-cookie"]
    assert (await oidc_front.api("POST", "/admins", json={"name": "grace"})).status_code == 201


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "no usable auth_time"),
        ({"auth_time": None}, "no usable auth_time"),
        ({"auth_time": True}, "no usable auth_time"),
        ({"auth_time": float("nan")}, "no usable auth_time"),
        ({"auth_time": time.time() - 3600}, "did not ask the user to sign in again"),
        ({"auth_time": LATER, "sub": "43"}, "another user"),
        ({"auth_time": LATER, "sub": ""}, "no usable sub"),
    ],
    ids=["no auth_time", "null", "no number", "NaN", "an old sign-in", "another user", "no user"],
)
async def test_another_answer_of_the_issuer_confirms_nothing(
    oidc_front, issuer, claims, reason, caplog
):
    await oidc_front.get(await begin(oidc_front, issuer))
    oidc_front.csrf = (await oidc_front.api("GET", "/session")).json()["csrf"]
    await oidc_front.forget_proof()
    back = await confirm(oidc_front, issuer)
    issuer.claims = claims
    assert (await oidc_front.get(back)).status_code == 403
    assert reason in caplog.text
    refused = await oidc_front.api("POST", "/admins", json={"name": "grace"})
    assert refused.json()["code"] == "recent_sign_in_needed"


@pytest.mark.parametrize(
    ("age", "is_recent"), [(None, True), (3600, False), (-86400, True), (0, True), (10**10, False)]
)
async def test_a_sign_in_is_as_recent_as_the_one_at_the_issuer(oidc_front, issuer, age, is_recent):
    # a browser that was left alone signs in again without asking its user anything
    if age is not None:
        issuer.claims["auth_time"] = int(time.time()) - age
    await oidc_front.get(await begin(oidc_front, issuer))
    oidc_front.csrf = (await oidc_front.api("GET", "/session")).json()["csrf"]
    answer = await oidc_front.api("POST", "/admins", json={"name": "grace"})
    assert answer.status_code == (201 if is_recent else 403)
    assert is_recent or answer.json()["code"] == "recent_sign_in_needed"


@pytest.mark.parametrize("email", ["stra\u00dfe@example.com", "\u017ftrasse@example.com"])
async def test_only_the_case_of_ascii_letters_makes_no_difference(open_front, issuer, email):
    options = {"oidc_issuer": issuer.url, "oidc_client_id": "pvemcp"}
    async with open_front(oidc_admins=("strasse@example.com",), **options) as front:
        issuer.claims["email"] = email
        assert (await front.get(await begin(front, issuer))).status_code == 403
        issuer.claims["email"] = "Strasse@Example.com"
        assert (await front.get(await begin(front, issuer))).status_code == 200


async def test_a_claim_of_the_issuer_gives_the_role(open_front, issuer):
    options = {"oidc_client_id": "pvemcp", "oidc_client_secret": "shared"}
    admins = ("groups:noc=auditor",)
    async with open_front(oidc_issuer=issuer.url, oidc_admins=admins, **options) as front:
        assert (await front.get(await begin(front, issuer))).status_code == 403
        issuer.claims = {"groups": ["noc"]}
        assert (await front.get(await begin(front, issuer))).status_code == 200
        assert (await front.api("GET", "/session")).json()["role"] == "auditor"


@pytest.mark.parametrize("step", ["sign-in", "confirmation"])
async def test_a_user_who_has_left_the_listed_group_is_signed_out_everywhere(
    open_front, issuer, step
):
    options = {"oidc_client_id": "pvemcp", "oidc_admins": ("groups:admins",)}
    async with open_front(oidc_issuer=issuer.url, **options) as front:
        issuer.claims = {"groups": ["admins"]}
        await front.get(await begin(front, issuer))
        assert (await front.get("/admin/")).status_code == 200
        store = front.services.store
        [ada] = await store.admins.all(listed_as="groups:admins")
        made = await connect(store, subject=f"admin:{ada.id}", name="ada here")
        await store.connections.change(made.id, admin_id=ada.id)
        back = await (begin if step == "sign-in" else confirm)(front, issuer)
        issuer.claims = {"groups": ["sales"], "auth_time": int(time.time())}
        assert (await front.get(back)).status_code == 403
        assert (await front.get("/admin/")).status_code == 303
        assert await store.keys.find(id=made.id) is None
        front.http.cookies.clear()
        issuer.claims = {"groups": ["admins"]}
        await front.get(await begin(front, issuer))
        assert (await front.get("/admin/")).status_code == 200


async def test_the_second_sign_in_reuses_the_administrator(oidc_front, issuer):
    for _ in range(2):
        await oidc_front.get(await begin(oidc_front, issuer))
    names = [one.name for one in await oidc_front.services.access.admins.all()]
    assert names == ["ada", "ada@example.com"]


async def test_the_cookie_of_a_pending_sign_in_is_lax_and_httponly(oidc_front, issuer):
    cookie = (await oidc_front.get("/admin/oidc")).headers["set-cookie"].lower()
    assert "samesite=lax" in cookie
    assert "httponly" in cookie
    assert "path=/admin/oidc" in cookie


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("email", "eve@example.com", "not among PVEMCP_OIDC_ADMINS"),
        ("email", MISSING, "KeyError"),
        ("email_verified", False, "has not verified the e-mail address"),
        ("email_verified", MISSING, "has not verified the e-mail address"),
        ("aud", "another client", "InvalidClaimError of aud"),
        ("iss", "https://another.example", "InvalidClaimError of iss"),
        ("nonce", "of another sign-in", "InvalidClaimError of nonce"),
        ("nonce", MISSING, "MissingClaimError of nonce"),
        ("exp", 1, "ExpiredTokenError"),
        ("sub", MISSING, "MissingClaimError of sub"),
        ("sub", "", "no usable sub"),
        ("sub", None, "sub"),
        ("sub", 42, "sub"),
    ],
)
async def test_an_invalid_claim_refuses_the_sign_in(
    oidc_front, issuer, claim, value, reason, caplog
):
    issuer.claims = {claim: value}
    refused = await oidc_front.get(await begin(oidc_front, issuer))
    assert refused.status_code == 403
    assert reason in caplog.text
    assert (await oidc_front.get("/admin/")).status_code == 303


async def test_external_sign_ins_and_refusals_are_audited(oidc_front, issuer):
    await oidc_front.get(await begin(oidc_front, issuer))
    issuer.claims = {"email": "eve@example.com"}
    await oidc_front.get(await begin(oidc_front, issuer))
    await oidc_front.services.audit.flush()
    found = await oidc_front.services.audit.find()
    assert [(one.tool, one.outcome, one.key_name) for one in found] == [
        ("admin.sign_in", "refused", "eve@example.com"),
        ("admin.admins.follow_issuer", "ok", "ada@example.com"),  # who is listed no more
        ("admin.sign_in", "ok", "ada@example.com"),
        ("admin.admins.add", "ok", "ada@example.com"),
    ]


async def test_a_token_with_a_foreign_signature_is_refused(oidc_front, issuer):
    issuer.signs_with = new_key()
    assert (await oidc_front.get(await begin(oidc_front, issuer))).status_code == 403


@pytest.mark.parametrize("answer", ["keys", "token"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"null", b"{}", b'"text"', b"[" * 100_000, b"\xff"),
        *(b'{"keys": 5, "id_token": 5}', b'{"keys": null, "id_token": {}}'),
        b'{"keys": ' + b"[" * 100_000,
        b'{"keys": [1, null, {"kty": ["RSA"]}, {"kty": "RSA", "n": 5}], "id_token": "a.b"}',
        b'{"access_token": "a", "expires_in": 1e400, "id_token": "a.b.c"}',
        b'{"access_token": "a", "id_token": "' + b"W1tb" * 30_000 + b'.e30.AA"}',
    ],
)
async def test_an_answer_of_any_content_refuses_the_sign_in(oidc_front, issuer, answer, content):
    issuer.answers = {answer: content}
    assert (await oidc_front.get(await begin(oidc_front, issuer))).status_code == 403
    assert (await oidc_front.get("/admin/")).status_code == 303


async def test_thousands_of_published_keys_are_not_imported(
    oidc_front, issuer, caplog, monkeypatch
):
    keys = [issuer.key.as_dict(private=False)] * (MOST_KEYS + 1)
    issuer.answers = {"keys": json.dumps({"keys": keys}).encode()}
    monkeypatch.setattr(jwk, "import_key", None)  # a call of it would be no refusal
    assert (await oidc_front.get(await begin(oidc_front, issuer))).status_code == 403
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"alg": ["RS256"]}])
async def test_a_token_of_another_algorithm_is_refused(oidc_front, issuer, caplog, header):
    parts = (json.dumps({"kid": "1", **header}).encode(), b"{}", b"x")
    token = ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    issuer.answers = {"token": json.dumps({"access_token": "a", "id_token": token}).encode()}
    assert (await oidc_front.get(await begin(oidc_front, issuer))).status_code == 403
    assert "InvalidKeyIdError" in caplog.text


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize(
    "endpoint", ["http://169.254.169.254/latest", "ftp://idp.example/", "", None, 5, ["https://x"]]
)
async def test_an_endpoint_without_https_gets_no_request(oidc_front, issuer, name, endpoint):
    issuer.endpoints = {name: endpoint}
    refused = await oidc_front.get("/admin/oidc")
    assert refused.status_code == 502
    assert f"no {name}" in unescape(refused.text)


def test_an_issuer_of_https_names_no_endpoint_of_this_machine():
    assert not oidc._is_of("https://idp.example", "http://127.0.0.1:8080/keys")
    assert oidc._is_of("http://127.0.0.1:9", "http://127.0.0.1:8080/keys")


async def test_a_callback_in_another_browser_is_refused(oidc_front, issuer):
    back = await begin(oidc_front, issuer)
    oidc_front.http.cookies.clear()
    assert (await oidc_front.get(back)).status_code == 403
    await begin(oidc_front, issuer)
    assert (await oidc_front.get(back)).status_code == 403


async def test_a_disabled_administrator_is_refused(oidc_front, issuer):
    await oidc_front.get(await begin(oidc_front, issuer))
    await oidc_front.services.access.admins.set_enabled("ada@example.com", enabled=False)
    assert (await oidc_front.get("/admin/")).status_code == 303
    assert (await oidc_front.get(await begin(oidc_front, issuer))).status_code == 403


async def test_the_cookie_of_a_sign_in_is_used_once(oidc_front, issuer):
    back = await begin(oidc_front, issuer)
    cookies = dict(oidc_front.http.cookies)
    assert (await oidc_front.get(back)).status_code == 200
    oidc_front.http.cookies = cookies
    assert (await oidc_front.get(back)).status_code == 403


async def test_begun_sign_ins_ask_the_issuer_once_and_are_limited(oidc_front, issuer):
    answers = [(await oidc_front.get("/admin/oidc")).status_code for _ in range(60)]
    assert answers[:30] == [303] * 30
    assert 429 in answers[30:]  # tokens come back while the requests run
    assert issuer.described == 1


async def test_an_account_of_the_issuer_gets_no_password(oidc_front, issuer):
    await oidc_front.get(await begin(oidc_front, issuer))
    await oidc_front.sign_in()
    refused = await oidc_front.api("POST", "/admins/ada%40example.com/reset-password")
    assert (refused.status_code, "OpenID Connect" in refused.json()["error"]) == (422, True)


@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip, gzip", "deflate"])
async def test_an_answer_of_the_issuer_costs_no_more_than_its_content(
    oidc_front, monkeypatch, coding
):
    sent: list[int] = []

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield gzip.compress(bytes(8 * MOST_BYTES)) if coding == "gzip" else b""
            while len(sent) < 1_000:
                sent.append(1)
                yield bytes(64 * 1024)

    async def answer(*_: object) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": coding}, stream=Endless())

    monkeypatch.setattr(PlainTransport, "handle_async_request", answer)
    assert (await oidc_front.get("/admin/oidc")).status_code == 502
    assert len(sent) < 20


async def test_an_issuer_that_answers_slowly_is_given_up(oidc_front, monkeypatch):
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await anyio.sleep(0.01)

    async def answer(*_: object) -> httpx.Response:
        return httpx.Response(200, stream=Trickle())

    monkeypatch.setattr(PlainTransport, "handle_async_request", answer)
    monkeypatch.setattr(oidc, "TIMEOUT_SECONDS", 0.1)
    with anyio.fail_after(5):
        assert (await oidc_front.get("/admin/oidc")).status_code == 502


async def test_an_issuer_whose_head_never_ends_is_given_up(open_front, endless_head, monkeypatch):
    url, authority = endless_head
    trusted = ssl.create_default_context(cadata=authority)
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: trusted)
    issuer = {"oidc_issuer": url, "oidc_client_id": "pvemcp"}
    async with open_front(**issuer, oidc_admins=("ada@example.com",)) as front:
        with anyio.fail_after(5):
            assert (await front.get("/admin/oidc")).status_code == 502


async def test_metadata_of_another_issuer_is_refused(oidc_front, issuer):
    issuer.named = "https://another.example"
    assert (await oidc_front.get("/admin/oidc")).status_code == 502


async def test_an_issuer_without_https_is_refused_unless_local(open_front):
    async with open_front(oidc_issuer="http://sso.example", oidc_client_id="x") as front:
        refused = await front.get("/admin/oidc")
    assert refused.status_code == 502
    assert "https" in refused.text


async def test_without_an_issuer_the_page_does_not_exist(stranger):
    assert (await stranger.get("/admin/oidc")).status_code == 404
    assert "Sign in with" not in (await stranger.get("/admin/sign-in")).text


async def test_a_second_factor_is_asked_after_the_issuer_too(oidc_front, issuer):
    await oidc_front.get(await begin(oidc_front, issuer))
    access = oidc_front.services.access
    ada = await access.admins.get("ada@example.com")
    secret = new_totp_secret()
    await access.second_factors.add_totp(ada, "phone", secret, TOTP(secret).now())
    code, *_ = await access.second_factors.new_recovery_codes(ada)
    oidc_front.http.cookies.clear()
    arrived = await oidc_front.get(await begin(oidc_front, issuer))
    assert 'content="0;url=/admin/sign-in/second-factor"' in arrived.text
    assert (await oidc_front.get("/admin/")).status_code == 303
    await oidc_front.http.post("/admin/sign-in/second-factor", data={"code": code})
    assert (await oidc_front.get("/admin/")).status_code == 200
    await oidc_front.services.audit.flush()
    (entry,) = await oidc_front.services.audit.find(limit=1)
    assert dict(entry.arguments) == {"by": "oidc", "second": "recovery code"}


async def test_a_change_of_an_account_by_the_issuer_is_audited_before_the_second_step(
    oidc_front, issuer
):
    access = oidc_front.services.access
    await oidc_front.get(await begin(oidc_front, issuer))
    ada, secret = await access.admins.get("ada@example.com"), new_totp_secret()
    await access.second_factors.add_totp(ada, "phone", secret, TOTP(secret).now())
    issuer.claims = {"email": "grace@example.com"}
    await oidc_front.get(await begin(oidc_front, issuer))
    found = await oidc_front.services.audit.find()
    assert [entry.tool.removeprefix("admin.") for entry in found] == [
        "sign_in.first_step",
        "admins.follow_issuer",
        "sign_in",
        "admins.add",
    ]
    new, created = found[1], found[3]
    assert (new.arguments["name"], new.arguments["new_name"]) == (
        "ada@example.com",
        "grace@example.com",
    )
    assert created.arguments["listed_as"] == "email:ada@example.com"


async def test_a_confirmation_at_the_issuer_needs_the_second_factor_too(oidc_front, issuer):
    access = oidc_front.services.access
    await oidc_front.get(await begin(oidc_front, issuer))
    oidc_front.csrf = (await oidc_front.api("GET", "/session")).json()["csrf"]
    ada, secret = await access.admins.get("ada@example.com"), new_totp_secret()
    await access.second_factors.add_totp(ada, "phone", secret, TOTP(secret).now())
    code, *_ = await access.second_factors.new_recovery_codes(ada)
    await oidc_front.forget_proof()
    step, new = "/admin/sign-in/second-factor", {"name": "grace"}
    back = await confirm(oidc_front, issuer)
    issuer.claims = {"auth_time": int(time.time())}
    assert f'content="0;url={step}"' in (await oidc_front.get(back)).text
    assert (await oidc_front.http.post(step, data={"code": "000000"})).status_code == 403
    assert (await oidc_front.api("POST", "/admins", json=new)).status_code == 403
    confirmed = await oidc_front.http.post(step, data={"code": code})
    assert "Confirmed" in confirmed.text
    assert "pvemcp_session" not in confirmed.headers["set-cookie"]
    assert (await oidc_front.api("POST", "/admins", json=new)).status_code == 201
    await oidc_front.services.audit.flush()
    found = await oidc_front.services.audit.find()
    outcomes = {entry.outcome for entry in found if entry.tool == "admin.confirm"}
    assert outcomes == {"ok", "refused"}


async def test_local_sign_in_is_switched_off_beside_the_issuer_only(oidc_front, issuer):
    await oidc_front.sign_in()
    off = {"local_sign_in": False}
    refused = await oidc_front.api("PATCH", "/settings", json=off)
    assert "no owner has signed in with OpenID Connect yet" in refused.json()["error"]
    local = dict(oidc_front.http.cookies)
    await oidc_front.get(await begin(oidc_front, issuer))
    page = await oidc_front.get("/admin/account")
    oidc_front.csrf = re.search(r'"X-CSRF-Token": "(\w+)"', page.text)[1]
    assert (await oidc_front.api("PATCH", "/settings", json=off)).status_code == 200
    assert (await oidc_front.get("/admin/")).status_code == 200
    oidc_front.http.cookies.clear()
    oidc_front.http.cookies.set("pvemcp_session", local["pvemcp_session"])
    assert (await oidc_front.get("/admin/")).status_code == 303
    page = (await oidc_front.get("/admin/sign-in")).text
    assert 'name="password"' not in page
    assert " settings set local_sign_in=true" in page
    fields = {"name": "ada", "password": "correct horse battery"}
    for path, body in [("/admin/sign-in", "data"), ("/admin/api/session", "json")]:
        answer = await oidc_front.http.post(path, **{body: fields})
        assert answer.status_code in (401, 403)
        assert "Passwords are switched off here" in answer.text
    passkey = await oidc_front.get("/admin/sign-in/passkey")
    assert passkey.headers["location"] == "/admin/sign-in"


async def test_without_an_issuer_local_sign_in_stays_on(front):
    refused = await front.api("PATCH", "/settings", json={"local_sign_in": False})
    assert (refused.status_code, "not configured" in refused.json()["error"]) == (422, True)
