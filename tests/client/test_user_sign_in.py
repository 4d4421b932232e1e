"""Sign-in of users: what is sent where, second factors, OpenID, and secrets in texts."""

import json
import logging
import ssl
from urllib.parse import parse_qsl, quote, quote_plus

import httpx2 as httpx
import msgspec
import pytest

from proxmox_client import (
    ApiToken,
    BadParameters,
    Client,
    Conflict,
    Forbidden,
    NewToken,
    OpenIdRequest,
    ProxmoxError,
    SecondFactor,
    Ticket,
    TlsError,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
)

pytestmark = pytest.mark.anyio

LOGIN = "POST /access/ticket"
OPENID = "POST /access/openid"
SECRET = "c0rrect  h\u00f6rse"
TICKET = {
    "username": "alice@pve",
    "ticket": "PVE:alice@pve:6B02A91B::sig+/=",
    "CSRFPreventionToken": "6B02A91B:csrf",
}
WEBAUTHN = {"publicKey": {"challenge": "a:b%c", "rpId": "lab.internal", "allowCredentials": []}}


def challenged(**offered) -> dict:
    """Return the answer to a correct password of a user with second factors."""
    encoded = quote(json.dumps(offered, separators=(",", ":")), safe='{}[]",')
    return TICKET | {"ticket": f"PVE:!tfa!{encoded}:6B02A915::sig", "NeedTFA": 1}


@pytest.fixture
def visitor(client_as):
    """Return a client without an account, of three hosts."""
    return client_as(None, "pve1", "pve2", "pve3")


def sent(pve) -> list[tuple[str, dict[str, str]]]:
    """List the host and the form of each request."""
    return [(r.url.host, dict(parse_qsl(r.content.decode()))) for r in pve.requests]


async def test_a_password_is_exchanged_for_a_ticket(visitor, pve):
    # Quirk 7.
    pve.answer(LOGIN, TICKET)
    ticket = await visitor.sign_in.with_password("alice@pve", SECRET)
    assert isinstance(ticket, Ticket)
    assert sent(pve) == [("pve1", {"username": "alice@pve", "password": SECRET})]
    assert not pve.requests[0].headers.keys() & {"authorization", "cookie"}


async def test_a_ticket_signs_reads_and_writes_and_is_not_renewed(visitor, pve):
    # Quirk 8.
    alice = visitor.signed_in_as(msgspec.convert(TICKET, Ticket))
    pve.answer("GET /version", {"version": "9.2.11"})
    pve.answer("PUT /cluster/options")
    await alice.version()
    await alice.transport.put("/cluster/options", keyboard="de")
    read, write = (request.headers for request in pve.requests)
    assert read["cookie"] == write["cookie"] == f"PVEAuthCookie={TICKET['ticket']}"
    assert "csrfpreventiontoken" not in read
    assert write["csrfpreventiontoken"] == TICKET["CSRFPreventionToken"]
    pve.answers.clear()
    pve.respond("GET /nodes", 401, "Authentication failed!")
    with pytest.raises(Unauthenticated):
        await alice.nodes()
    assert not [line for line in pve.lines if line.startswith(LOGIN)]


@pytest.mark.parametrize(
    ("name", "escaped"),
    [("a;b", "a%3Bb"), ("50%25", "50%2525"), ("jürgen", "j%C3%BCrgen"), ("o'neil+x", "o'neil+x")],
)
async def test_names_of_users_are_escaped_in_headers(visitor, pve, name, escaped):
    pve.answer("GET /version", {"version": "9.2.11"})
    ticket = Ticket(ticket=f"PVE:{name}@corp:6B::s+/=", csrf_token="6B:ü\n", username=name)
    await visitor.signed_in_as(ticket).version()
    assert pve.requests[-1].headers["cookie"] == f"PVEAuthCookie=PVE:{escaped}@corp:6B::s+/="
    assert ticket.headers("PUT")["CSRFPreventionToken"] == "6B:%C3%BC%0A"
    if name.isascii():
        await visitor.signed_in_as(ApiToken(f"{name}@corp!x", "s")).version()
        sent_token = pve.requests[-1].headers["authorization"]
        assert sent_token == f"PVEAPIToken={escaped}@corp!x=s"


@pytest.mark.parametrize(
    ("offered", "methods"),
    [
        ({"totp": True}, ("totp",)),
        ({"totp": True, "recovery": [0, 3]}, ("totp", "recovery")),
        ({"recovery": []}, ()),
        ({"webauthn": WEBAUTHN, "recovery": [1]}, ("recovery", "webauthn")),
        ({"yubico": True, "u2f": {"challenge": {}, "keys": []}}, ("u2f", "yubico")),
        ({"totp": True, "of-the-future": {}}, ("totp",)),
    ],
)
async def test_a_second_factor_names_its_methods(visitor, pve, offered, methods):
    # Quirks 12 and 61.
    pve.answer(LOGIN, challenged(**offered))
    challenge = await visitor.sign_in.with_password("alice@pve", SECRET)
    assert isinstance(challenge, SecondFactor)
    assert challenge.methods == methods
    assert challenge.webauthn == offered.get("webauthn")
    assert challenge.recovery_keys == tuple(offered.get("recovery", ()))
    stored = msgspec.json.encode(challenge)
    assert msgspec.json.decode(stored, type=SecondFactor) == challenge


async def test_a_second_factor_is_answered_at_the_host_that_asked(visitor, pve):
    pve.answer(LOGIN, challenged(totp=True))
    pve.answer(LOGIN, TICKET)
    challenge = await visitor.sign_in.with_password("alice@pve", SECRET)
    visitor.transport.pool.leave("pve1:8006")
    ticket = await visitor.sign_in.with_second_factor(challenge, "totp", "123456")
    assert ticket.username == "alice@pve"
    answer = {"username": "alice@pve", "password": "totp:123456", "tfa-challenge": challenge.ticket}
    assert sent(pve)[1] == ("pve1", answer)


async def test_a_method_that_was_not_offered_is_never_sent(visitor, pve):
    challenge = SecondFactor(userid="a@pve", host="pve1:8006", ticket="PVE", methods=("totp",))
    with pytest.raises(BadParameters, match="recovery is no second factor of a@pve: totp"):
        await visitor.sign_in.with_second_factor(challenge, "recovery", "x")
    assert pve.requests == []


async def test_an_answer_never_goes_to_a_host_outside_the_cluster(visitor, pve):
    challenge = SecondFactor(userid="a@pve", host="evil:8006", ticket="PVE", methods=("totp",))
    with pytest.raises(Unreachable, match="not a host of this cluster"):
        await visitor.sign_in.with_second_factor(challenge, "totp", "123456")
    request = OpenIdRequest(url="https://idp", host="evil:8006", redirect_url="https://me")
    with pytest.raises(Unreachable):
        await visitor.sign_in.with_openid(request, "state", "code")
    assert pve.requests == []


async def test_openid_goes_to_one_host_in_both_steps(visitor, pve):
    # Quirk 63.
    state = '{"csrf_token":"t","realm":"sso"}'
    pve.answer(f"{OPENID}/auth-url", f"https://idp.test/auth?state={quote(state)}&nonce=n")
    pve.answer(f"{OPENID}/login", TICKET)
    request = await visitor.sign_in.openid_request("sso", "https://mcp.test/callback")
    assert (request.state, request.host) == (state, "pve1:8006")
    stored = msgspec.json.encode(request)
    assert msgspec.json.decode(stored, type=OpenIdRequest) == request
    visitor.transport.pool.leave("pve1:8006")
    ticket = await visitor.sign_in.with_openid(request, state, "c0de")
    assert ticket.username == "alice@pve"
    redirect = {"redirect-url": "https://mcp.test/callback"}
    assert sent(pve) == [
        ("pve1", {"realm": "sso", **redirect}),
        ("pve1", {"state": state, "code": "c0de", **redirect}),
    ]


UNREADABLE = challenged() | {"ticket": "PVE:!tfa!no JSON"}
ENDLESS = TICKET | {"ticket": "x" * 20_000}


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//idp.test/auth", "", "file:///etc"])
async def test_a_browser_is_sent_to_web_addresses_only(visitor, pve, url):
    pve.answer(f"{OPENID}/auth-url", url)
    with pytest.raises(UnexpectedAnswer, match="no web address"):
        await visitor.sign_in.openid_request("sso", "https://mcp.test/callback")


class Hosts:
    """Hosts by their failures; those without one answer with a ticket."""

    def __init__(self, **failures):
        self.failures = failures
        self.received: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        failure = self.failures.get(request.url.host)
        if not isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout):
            self.received.append(request.url.host)
        if isinstance(failure, Exception):
            raise failure
        return failure or httpx.Response(200, json={"data": TICKET})

    def visitor(self) -> Client:
        return Client(["pve1", "pve2", "pve3"], http_transport=httpx.MockTransport(self))


@pytest.mark.parametrize(
    ("failure", "receives", "error"),
    [
        (httpx.ConnectError("refused"), ["pve2"], None),
        (httpx.ConnectTimeout("late"), ["pve2"], None),
        (httpx.ReadTimeout("late"), ["pve1"], Unreachable),
        (httpx.ReadError("reset"), ["pve1"], Unreachable),
        (httpx.WriteError("reset"), ["pve1"], Unreachable),
        (httpx.RemoteProtocolError("half"), ["pve1"], Unreachable),
        (httpx.Response(401, json={"message": "authentication failure\n"}), ["pve1"], Exception),
        (httpx.Response(595), ["pve1"], ProxmoxError),
        (httpx.Response(503), ["pve1"], Unreachable),
        (httpx.Response(500, text="RPCEnvironment init request failed"), ["pve1"], Unreachable),
        (httpx.Response(200, text="<html>"), ["pve1"], Unreachable),
        (httpx.Response(200, json={"data": None}), ["pve1"], UnexpectedAnswer),
        (httpx.Response(200, json={"data": {"username": "a@pve"}}), ["pve1"], UnexpectedAnswer),
        (httpx.Response(200, json={"data": UNREADABLE}), ["pve1"], UnexpectedAnswer),
        (httpx.Response(200, json={"data": ENDLESS}), ["pve1"], UnexpectedAnswer),
    ],
)
async def test_only_a_host_without_a_connection_is_followed_by_the_next(failure, receives, error):
    hosts = Hosts(pve1=failure)
    async with hosts.visitor() as visitor:
        if error is None:
            assert (await visitor.sign_in.with_password("a@pve", SECRET)).username == "alice@pve"
        else:
            with pytest.raises(error) as caught:
                await visitor.sign_in.with_password("a@pve", SECRET)
            assert SECRET not in f"{caught.value!r} {caught.value}"
    assert hosts.received == receives


async def test_an_untrusted_certificate_gets_no_password():
    untrusted = httpx.ConnectError("no trust")
    untrusted.__cause__ = ssl.SSLCertVerificationError("is not pinned")
    hosts = Hosts(pve1=untrusted, pve2=untrusted, pve3=untrusted)
    async with hosts.visitor() as visitor:
        with pytest.raises(TlsError, match="is not pinned"):
            await visitor.sign_in.with_password("a@pve", SECRET)
    assert hosts.received == []


async def test_a_user_without_a_realm_and_broken_text_are_rejected_locally(visitor, pve):
    with pytest.raises(BadParameters) as caught:
        await visitor.sign_in.with_password("alice", SECRET)
    assert caught.value.errors.keys() == {"username"}
    with pytest.raises(BadParameters) as caught:
        await visitor.sign_in.with_password("alice@pve", f"{SECRET}\ud800")
    assert SECRET not in repr(caught.value)
    assert pve.requests == []


REFUSALS = {
    "status": (401, "authentication failure", {}),
    "echo in the message": (500, f"bad password {SECRET}", {}),
    "echo in the errors": (400, "Parameter verification failed.", {"password": f"not {SECRET}"}),
    "echo in the status line": (403, SECRET, {}),
    "echo of an outage": (503, SECRET, {}),
    "echo of the form": (500, f"bad form password={quote_plus(SECRET)}", {}),
    "echo with other blanks": (500, " ".join(SECRET.split()), {}),
}


@pytest.mark.parametrize(("status", "message", "errors"), REFUSALS.values(), ids=REFUSALS)
async def test_no_secret_is_in_an_error_a_repr_or_a_log(
    visitor, pve, caplog, status, message, errors
):
    caplog.set_level(logging.DEBUG)
    pve.answer_error(LOGIN, status, message, errors=errors)
    pve.answer_error(f"{OPENID}/login", status, message, errors=errors)
    challenge = SecondFactor(
        userid="a@pve", host="pve1:8006", ticket="PVE:!tfa!s3al", methods=("recovery",)
    )
    request = OpenIdRequest(url="https://idp?state=st4te", host="pve1:8006", redirect_url="x")
    texts = [repr(challenge), repr(request)]
    for attempt in (
        visitor.sign_in.with_password("a@pve", SECRET),
        visitor.sign_in.with_second_factor(challenge, "recovery", SECRET),
        visitor.sign_in.with_openid(request, "st4te", SECRET),
    ):
        with pytest.raises(ProxmoxError) as caught:
            await attempt
        texts += [repr(caught.value), str(caught.value), repr(vars(caught.value))]
        assert getattr(caught.value, "status", 503) == status
    token = NewToken(token_id="a@pve!x", secret="tok3n")
    ticket = msgspec.convert(TICKET, Ticket)
    alice = visitor.signed_in_as(ticket)
    secretive = (token, token.credential, ticket, alice, vars(alice.transport))
    texts += [*map(repr, secretive), caplog.text]
    hidden = ("c0rrect", "tok3n", "s3al", "st4te", "sig+", ":csrf")
    assert not [text for text in texts if any(word in text for word in hidden)]


async def test_a_token_is_made_once_and_removed(client, pve):
    # Quirk 64.
    path = "/access/users/alice%40pve/token/mcp-1"
    data = {"full-tokenid": "alice@pve!mcp-1", "value": "s", "info": {"privsep": "0"}}
    pve.answer(f"POST {path}", data)
    made = await client.access.create_token(
        "alice@pve", "mcp-1", comment="Claude", expire=1796078302, privsep=False
    )
    assert made.credential == ApiToken("alice@pve!mcp-1", "s")
    assert pve.lines == [f"POST {path} comment=Claude&expire=1796078302&privsep=0"]
    pve.answers.clear()
    errors = {"tokenid": "Token already exists."}
    pve.answer_error(f"POST {path}", 400, "Parameter verification failed.", errors=errors)
    with pytest.raises(Conflict, match=r"^Token already exists\.$"):
        await client.access.create_token("alice@pve", "mcp-1")
    pve.answer_error(f"DELETE {path}", 403, "Permission check failed")
    with pytest.raises(Forbidden):
        await client.access.delete_token("alice@pve", "mcp-1")


async def test_every_recorded_sign_in_and_token_is_decoded(exchanges, visitor, client, pve):
    """Replay recorded answers: tickets, challenges, refusals, new tokens and their errors."""
    kinds: dict[str, int] = {}
    for exchange in (each for version in exchanges.values() for each in version):
        path, form = exchange["path"], exchange["params"] or {}
        is_token = exchange["method"] == "POST" and "/token/" in path
        is_sign_in = (exchange["method"], path) == ("POST", "/access/ticket")
        # the client refuses what lacks a realm or a password
        if not is_token and not (is_sign_in and "@" in form["username"] and "password" in form):
            continue
        pve.answers.clear()
        body = json.dumps(exchange["body"]).encode() if exchange["body"] else b""
        line = f"POST {quote(path, safe='/')}"
        pve.respond(line, exchange["status"], exchange["reason"], body)
        try:
            if is_token:
                _, _, _, userid, _, name = path.split("/")
                found = await client.access.create_token(userid, name)
            elif challenge := form.get("tfa-challenge"):
                second = SecondFactor(
                    userid=form["username"], host="pve1:8006", ticket=challenge, methods=("totp",)
                )
                found = await visitor.sign_in.with_second_factor(second, "totp", "1")
            else:
                found = await visitor.sign_in.with_password(form["username"], form["password"])
        except ProxmoxError as error:
            found = error
        kinds[type(found).__name__] = kinds.get(type(found).__name__, 0) + 1
    expected = {"Ticket", "SecondFactor", "Unauthenticated", "NewToken", "Conflict", "Forbidden"}
    assert kinds.keys() == expected | {"BadParameters", "NodeUnreachable", "Unreachable"}
