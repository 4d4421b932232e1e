"""Signing in with an OpenID Connect issuer: a small one of our own, over real HTTP."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
import uvicorn
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import FastAPI, Form
from joserfc import jwt
from joserfc.jwk import RSAKey

pytestmark = pytest.mark.anyio


@dataclass
class TestIssuer:
    """An issuer that vouches for one person; what it claims can be bent."""

    __test__ = False

    url: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    signs_with: RSAKey | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    named: str = ""  # what it calls itself, when not by its URL
    asked: dict[str, list[str]] = field(default_factory=dict)  # of the authorization request

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def configuration() -> dict[str, str]:
            return {
                "issuer": self.named or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }

        @app.get("/keys")
        async def keys() -> dict[str, Any]:
            return {"keys": [self.key.as_dict(private=False)]}

        @app.post("/token")
        async def token(code: str = Form(), code_verifier: str = Form()) -> dict[str, Any]:
            assert code == "the code"
            assert [create_s256_code_challenge(code_verifier)] == self.asked["code_challenge"]
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
            "nonce": self.asked["nonce"][0],
            "email": "ada@example.com",
            "email_verified": True,
            **self.claims,
        }
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
    one = TestIssuer()
    async with running(one):
        yield one


@pytest.fixture
async def door(open_front: Callable[..., Any], issuer: TestIssuer) -> AsyncIterator[Any]:
    options = {"oidc_client_id": "pvemcp", "oidc_client_secret": "shared"}
    who = ("Ada@example.com", "grace@example.com")
    async with open_front(oidc_issuer=issuer.url, oidc_admins=who, **options) as front:
        yield front


async def begin(front, issuer: TestIssuer) -> str:
    """To the issuer and back: the address of the callback with its answer."""
    sent = await front.get("/admin/oidc")
    where = urlsplit(sent.headers["location"])
    assert f"{where.scheme}://{where.netloc}" == issuer.url
    issuer.asked = parse_qs(where.query)
    return f"/admin/oidc/callback?code=the%20code&state={issuer.asked['state'][0]}"


async def test_whom_the_issuer_vouches_for_is_an_administrator(door, issuer):
    assert issuer.url in (await door.get("/admin/sign-in")).text
    back = await begin(door, issuer)
    arrived = await door.get(back)
    # no redirect: the strict cookie would not come along on one that began at the issuer
    assert arrived.status_code == 200
    assert 'content="0;url=/admin/"' in arrived.text
    assert "ada@example.com" in (await door.get("/admin/")).text
    (entry,) = await door.services.audit.find(limit=1)
    assert (entry.tool, entry.key_name) == ("admin.sign_in", "ada@example.com")


async def test_the_second_time_it_is_the_same_administrator(door, issuer):
    for _ in range(2):
        await door.get(await begin(door, issuer))
    names = [one.name for one in await door.services.access.admins.all()]
    assert names == ["ada", "ada@example.com"]


async def test_what_is_remembered_meanwhile_comes_along_from_the_issuer(door, issuer):
    cookie = (await door.get("/admin/oidc")).headers["set-cookie"].lower()
    assert "samesite=lax" in cookie
    assert "httponly" in cookie
    assert "path=/admin/oidc" in cookie


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "eve@example.com"},
        {"email_verified": False},
        {"email_verified": None},
        {"aud": "another client"},
        {"iss": "https://another.example"},
        {"nonce": "of another sign-in"},
        {"exp": 1},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_who_is_not_vouched_for_stays_outside(door, issuer, claims):
    issuer.claims = claims
    refused = await door.get(await begin(door, issuer))
    assert refused.status_code == 403
    assert (await door.get("/admin/")).status_code == 303


async def test_sign_ins_over_the_issuer_and_refused_ones_are_on_record(door, issuer):
    await door.get(await begin(door, issuer))
    issuer.claims = {"email": "eve@example.com"}
    await door.get(await begin(door, issuer))
    await door.services.audit.flush()
    found = await door.services.audit.find()
    assert [(one.tool, one.outcome, one.key_name) for one in found] == [
        ("admin.sign_in", "refused", "eve@example.com"),
        ("admin.sign_in", "ok", "ada@example.com"),
    ]


async def test_a_token_signed_by_somebody_else_is_refused(door, issuer):
    issuer.signs_with = RSAKey.generate_key(2048, {"kid": "1"})
    assert (await door.get(await begin(door, issuer))).status_code == 403


async def test_an_answer_to_another_browsers_sign_in_is_refused(door, issuer):
    back = await begin(door, issuer)
    door.http.cookies.clear()
    assert (await door.get(back)).status_code == 403
    await begin(door, issuer)
    assert (await door.get(back)).status_code == 403


async def test_a_disabled_administrator_stays_outside(door, issuer):
    await door.get(await begin(door, issuer))
    await door.services.access.admins.set_enabled("ada@example.com", enabled=False)
    assert (await door.get("/admin/")).status_code == 303
    assert (await door.get(await begin(door, issuer))).status_code == 403


async def test_another_issuers_word_is_not_taken(door, issuer):
    issuer.named = "https://another.example"
    assert (await door.get("/admin/oidc")).status_code == 502


async def test_an_issuer_without_tls_is_refused_unless_it_is_local(open_front):
    async with open_front(oidc_issuer="http://sso.example", oidc_client_id="x") as front:
        refused = await front.get("/admin/oidc")
    assert refused.status_code == 502
    assert "https" in refused.text


async def test_without_an_issuer_there_is_no_such_page(stranger):
    assert (await stranger.get("/admin/oidc")).status_code == 404
    assert "Sign in with" not in (await stranger.get("/admin/sign-in")).text
