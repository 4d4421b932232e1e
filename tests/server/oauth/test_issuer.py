"""Tokens of an external authorization server: each attack is refused, and keys are read bounded."""

import asyncio
import json
import warnings
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import digest

import anyio
import httpx2 as httpx
import pytest
from joserfc import jwk
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from proxmox_client import Tls
from pvemcp_server.errors import AccessDenied, IssuerUnavailable
from pvemcp_server.oauth.issuer import (
    ALGORITHMS,
    CURVES,
    MOST_BYTES,
    OF_ID_TOKENS,
    RSA,
    TokenVerifier,
    metadata_urls,
)
from pvemcp_server.oauth.issuer_users import claim_values
from pvemcp_server.oauth.published_keys import _imported
from pvemcp_server.settings import is_secure_url

from .issuer import ISSUER, KEYS, Body, Issuer

pytestmark = pytest.mark.anyio
HERE = "https://mcp.example/mcp"
METADATA = f"{ISSUER}/.well-known/openid-configuration"
NOW = 1_900_000_000


@pytest.fixture(scope="module")
def shared():
    return Issuer()


@pytest.fixture
def issuer(shared):
    """Provide an issuer with one key, which was not contacted yet."""
    fresh = Issuer.__new__(Issuer)
    fresh.__dict__ |= {"private": dict(shared.private), "requests": [], "answers": {}}
    fresh.now = NOW
    fresh.metadata = {"issuer": ISSUER, "jwks_uri": KEYS}
    fresh.transport = httpx.MockTransport(fresh._answer)
    return fresh


class Monotonic:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Monotonic()


@pytest.fixture
def verifier(issuer, clock):
    return TokenVerifier(issuer.transport, clock=lambda: NOW, monotonic=clock)


async def verify(verifier, token):
    return await verifier.verify(token, issuer=ISSUER, audience={HERE})


async def refuse(verifier, token, case):
    """Expect that a token is refused."""
    try:
        await verify(verifier, token)
    except AccessDenied:
        return
    pytest.fail(f"accepted: {case}")


def raw(header: dict, claims: dict, sign=lambda _: b"") -> str:
    """Return a token that no library would make."""

    def encoded(text: bytes) -> str:
        return urlsafe_b64encode(text).rstrip(b"=").decode()

    start = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{start}.{encoded(sign(start.encode()))}"


async def test_a_token_of_a_published_key_is_verified_and_the_keys_are_kept(issuer, verifier):
    issuer.add_key("two")
    for kid, header in (("one", {}), ("two", {"typ": "JWT"}), ("one", {"typ": None})):
        claims = await verify(verifier, issuer.token(kid, header, aud=["other", HERE]))
        assert claims["sub"] == "u-1"
    assert issuer.requests == [METADATA, KEYS]


async def test_each_algorithm_of_a_public_key_is_verified(issuer, verifier):
    pairs = {"EdDSA": "Ed25519", "Ed25519": "Ed25519", **CURVES}
    for algorithm, curve in pairs.items():
        kind = OKPKey if curve == "Ed25519" else ECKey
        issuer.private[algorithm] = kind.generate_key(curve, {"kid": algorithm})
    assert {*pairs, *RSA} == ALGORITHMS
    for algorithm in ALGORITHMS:
        kid = "one" if algorithm in RSA else algorithm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            token = issuer.token(kid, {"alg": algorithm})
        await verify(verifier, token)


WRONG = {
    "another audience": {"aud": "https://other.example/mcp"},
    "a longer audience": {"aud": f"{HERE}/"},
    "no audience": {"aud": None},
    "an audience that is no text": {"aud": [{"a": 1}]},
    "another issuer": {"iss": "https://evil.example"},
    "a longer issuer": {"iss": f"{ISSUER}/"},
    "expired": {"exp": NOW - 90},
    "no expiry": {"exp": None},
    "expiry as text": {"exp": str(NOW + 300)},
    "expiry as true": {"exp": True},
    "endless": {"exp": 1e300},
    "not valid yet": {"nbf": NOW + 600},
    "issued in the future": {"iat": NOW + 600},
    "no subject": {"sub": None},
    "a subject that is no text": {"sub": 7},
    "an ID token": {"typ": "ID"},
    "a refresh token": {"typ": "Refresh"},
    "an offline token": {"typ": "Offline"},
    "a logout token": {"typ": "Logout"},
}


async def test_tokens_with_wrong_claims_are_refused(issuer, verifier):
    await verify(verifier, issuer.token(exp=NOW - 30, nbf=NOW + 30))  # clocks differ
    for case, claims in WRONG.items():
        await refuse(verifier, issuer.token(**claims), case)


async def test_id_tokens_that_do_not_say_so_are_refused(issuer, verifier):
    for claim in OF_ID_TOKENS:
        for header in ({"typ": None}, {"typ": "JWT"}, {"typ": ""}):
            await refuse(verifier, issuer.token(header=header, **{claim: "x"}), f"{claim} {header}")
            await verify(verifier, issuer.token(header=header))
        for header, kind in (("at+jwt", None), ("application/at+jwt", None), ("JWT", "Bearer")):
            said = issuer.token(header={"typ": header}, typ=kind, **{claim: "x"})
            await verify(verifier, said)


async def test_forged_tokens_are_refused(issuer, verifier):
    pem = issuer.private["one"].as_pem(private=False)
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    good, other = issuer.token(), issuer.token(groups=["admins"])
    hs256 = {"alg": "HS256", "kid": "one"}
    impostor = Issuer()
    impostor.private = {"one": stranger}
    head, _, signature = good.split(".")
    forged = {
        "alg none": raw({"alg": "none"}, issuer.claims()),
        "alg None with a kid": raw({"alg": "None", "kid": "one"}, issuer.claims()),
        "HS256 with the public key": raw(hs256, issuer.claims(), lambda s: digest(pem, s, sha256)),
        "an empty signature": f"{good.rpartition('.')[0]}.",
        "a signature of other claims": f"{head}.{other.split('.')[1]}.{signature}",
        "a key of another": impostor.token(),
        "a key in the header": impostor.token(
            header={"jwk": stranger.as_dict(private=False), "jku": "https://evil.example/keys"}
        ),
        "an algorithm that is no text": raw({"alg": ["RS256"], "kid": "one"}, issuer.claims()),
        "a kid that is no text": raw({"alg": "RS256", "kid": {"a": 1}}, issuer.claims()),
        "an unknown extension": issuer.token(header={"crit": ["b64"], "b64": True}),
        "a logout token": issuer.token(header={"typ": "logout+jwt"}),
        "certificates that are no list": raw(
            {"alg": "RS256", "kid": "one", "x5c": 7, "x5t": [], "cty": {}}, issuer.claims()
        ),
        "no object": raw([], {}),
        "other letters": f"ä.{good}",
        "too long": issuer.token(padding="x" * 20_000),
        "deep": raw({"alg": "RS256"}, json.loads("[" * 500 + "]" * 500)),
    }
    for case, token in forged.items():
        await refuse(verifier, token, case)
    assert issuer.requests == [METADATA, KEYS]
    await verify(verifier, good)


async def test_what_cannot_be_ours_makes_no_request(issuer, verifier):
    for token in (issuer.token(iss="https://evil.example"), raw({"alg": "none"}, {}), "a.b.c"):
        with pytest.raises(AccessDenied):
            await verify(verifier, token)
    assert issuer.requests == []


async def test_unknown_keys_are_looked_for_once_a_minute(issuer, verifier, clock):
    await verify(verifier, issuer.token())
    issuer.add_key("two")
    clock.now += 61
    for number in range(50):
        with pytest.raises(AccessDenied, match="does not publish"):
            await verify(verifier, issuer.token(header={"kid": f"unknown {number}"}))
    assert issuer.requests == [METADATA, KEYS] * 2
    await verify(verifier, issuer.token("two"))  # it was found with the first unknown one
    del issuer.private["one"]
    clock.now += 601
    revoked = Issuer()
    revoked.private = {"one": RSAKey.generate_key(2048, {"kid": "one"})}
    with pytest.raises(AccessDenied):
        await verify(verifier, revoked.token())


async def test_two_requests_at_once_read_the_keys_once(issuer, verifier):
    import asyncio

    await asyncio.gather(*(verify(verifier, issuer.token()) for _ in range(5)))
    assert issuer.requests == [METADATA, KEYS]


def answer(text: bytes, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=Body(text))


UNUSABLE = {
    "an oversized JWKS": (KEYS, answer(b'{"keys": [' + b" " * MOST_BYTES + b"]}")),
    "a redirect of the JWKS": (KEYS, answer(b"", 302, location="http://169.254.169.254/keys")),
    "a redirect of the metadata": (METADATA, answer(b"", 301, location="http://10.0.0.1/")),
    "a broken JWKS": (KEYS, answer(b"{")),
    "no list": (KEYS, answer(b'{"keys": {}}')),
    "too many keys": (KEYS, answer(b'{"keys": [' + b"1," * 200 + b"1]}")),
    "an error": (KEYS, answer(b"", 500)),
    "metadata of another": (METADATA, answer(b'{"issuer": "https://evil.example"}')),
    "a JWKS over http": (
        METADATA,
        answer(json.dumps({"issuer": ISSUER, "jwks_uri": "http://10.0.0.1/keys"}).encode()),
    ),
    "a JWKS of the cloud": (
        METADATA,
        answer(json.dumps({"issuer": ISSUER, "jwks_uri": "https://169.254.169.254/"}).encode()),
    ),
    "a JWKS in a file": (
        METADATA,
        answer(json.dumps({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}).encode()),
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_keys_that_are_not_usable_verify_nothing_and_are_not_followed(issuer, case, clock):
    url, response = UNUSABLE[case]
    issuer.answers[url] = response
    verifier = TokenVerifier(issuer.transport, clock=lambda: NOW, monotonic=clock)
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await verify(verifier, issuer.token())
    assert set(issuer.requests) <= {METADATA, KEYS}
    assert len(issuer.requests) <= 2
    issuer.answers.clear()
    clock.now += 61
    await verify(verifier, issuer.token())


async def test_the_last_keys_count_for_an_hour_while_the_issuer_is_silent(issuer, verifier, clock):
    token = issuer.token(exp=NOW + 10_000)
    await verify(verifier, token)
    issuer.answers[METADATA] = answer(b"", 503)
    clock.now += 3500
    await verify(verifier, token)
    clock.now += 200
    with pytest.raises(IssuerUnavailable):
        await verify(verifier, token)


async def test_a_slow_issuer_is_not_waited_for(issuer):
    import anyio

    async def hang(_):
        await anyio.sleep_forever()

    verifier = TokenVerifier(httpx.MockTransport(hang), seconds=0.05)
    with pytest.raises(IssuerUnavailable):
        await verify(verifier, issuer.token())


async def test_weak_private_and_foreign_keys_are_passed_over(issuer, verifier):
    usable = issuer.jwks["keys"]
    modulus = urlsafe_b64encode(((1 << 1023) | 1).to_bytes(128)).rstrip(b"=").decode()
    weak = {"kty": "RSA", "kid": "weak", "n": modulus, "e": "AQAB"}
    private = issuer.private["one"].as_dict(private=True) | {"kid": "private"}
    extra = [weak, private, {"kty": "oct", "k": "AAAA", "kid": "shared"}, {"kty": "FUTURE"}, 7]
    extra += [usable[0] | {"kid": "enc", "use": "enc"}, usable[0] | {"kid": "ps", "alg": "PS256"}]
    extra += [{"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}]
    long = issuer.private["one"].as_dict(private=False)["n"]
    extra += [
        {"kty": "RSA", "kid": "slow", "n": long, "e": long}
    ]  # verifies a hundred times longer
    extra += [{"kty": "EC", "kid": "huge", "crv": "P-256", "x": long * 100, "y": long * 100}]
    keys = answer(json.dumps({"keys": [*extra, *usable]}).encode())
    issuer.answers[KEYS] = keys
    await verify(verifier, issuer.token())
    for kid in ("weak", "private", "shared", "enc", "ps", "broken", "slow", "huge"):
        with pytest.raises(AccessDenied):
            await verify(verifier, issuer.token(header={"kid": kid}))


def test_a_key_whose_numbers_take_long_is_not_imported(issuer, monkeypatch):
    long = issuer.jwks["keys"][0]["n"]
    monkeypatch.setattr(jwk, "import_key", None)  # a call of it would fail
    slow = [
        {"kty": "RSA", "n": long, "e": long},
        {"kty": "RSA", "n": long * 5, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": long * 5, "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": long * 5},
        {"kty": "OKP", "crv": "Ed25519", "x": long * 5},
    ]
    assert [_imported(values) for values in slow] == [None] * len(slow)
    with pytest.raises(TypeError):
        jwk.import_key(issuer.jwks["keys"][0])


def test_an_issuer_is_an_https_url_or_loopback():
    for url in ("https://login.example", "https://login.example:8443/realms/x", ISSUER):
        assert is_secure_url(url), url
    for url in ("http://login.example", "ftp://x", "https://", "https://a@b", "https://a/#b", "x"):
        assert not is_secure_url(url), url
    assert metadata_urls("https://login.example/tenant/v2.0") == (
        "https://login.example/tenant/v2.0/.well-known/openid-configuration",
        "https://login.example/.well-known/oauth-authorization-server/tenant/v2.0",
    )


def test_claims_are_found_by_name_and_in_other_claims():
    claims = {"groups": ["a", 1, "b"], "realm_access": {"roles": ["c"]}, "x.y": "d", "n": 5}
    for path, values in {
        "groups": ["a", "b"],
        "realm_access.roles": ["c"],
        "x.y": ["d"],
        "n": [],
        "none.at.all": [],
    }.items():
        assert claim_values(claims, path) == values


async def test_an_issuer_whose_head_never_ends_is_given_up(endless_head, monkeypatch):
    url, authority = endless_head
    trusted = Tls(ca_pem=authority).context()
    monkeypatch.setattr(Tls, "context", lambda _: trusted)
    with anyio.fail_after(5), pytest.raises(IssuerUnavailable, match="16 KiB of headers"):
        await TokenVerifier().check(url)


async def test_only_the_head_of_an_answer_is_limited_to_16_kib(shared):
    async def serve(reader, writer):
        url = f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        is_of_keys = b"/keys" in await reader.readuntil(b"\r\n\r\n")
        keys = shared.jwks | {"padding": "x" * 200_000}
        body = json.dumps(keys if is_of_keys else {"issuer": url, "jwks_uri": f"{url}/keys"})
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(f"{head}{body}".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await TokenVerifier().check(url) == 1
