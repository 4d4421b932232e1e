"""Sign-in of users at an emulated cluster: every factor, every refusal, and tokens of one's own."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2 as httpx
import msgspec
import pytest

from proxmox_client import (
    ApiToken,
    BadParameters,
    Client,
    Conflict,
    Forbidden,
    NoQuorum,
    NotFound,
    ResponseError,
    SecondFactor,
    Ticket,
    Tls,
    TlsError,
    Totp,
    Unauthenticated,
    Unreachable,
)
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.auth.webauthn import SecurityKey
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.state.user_config import AclEntry, Realm, User
from proxmox_client.emulator.state.user_config import SecondFactor as Factor

pytestmark = pytest.mark.anyio

SECRET = "JBSWY3DPEHPK3PXP"
PASSWORD = "c0rrect-horse"
REDIRECT = "https://mcp.lab.internal/oauth/proxmox"
ORIGIN = "https://pve1.lab.internal:8006"


@pytest.fixture(scope="module")
async def house(anyio_backend):
    """Start a cluster of three nodes, shared by the module; each test adds its own user."""
    scenario = Scenario.cluster("lab", version="9.2", nodes=3, guests=12)
    # a 401 takes 3 s of this clock, and a WebAuthn challenge is valid for 120 s
    async with Emulator(scenario, clock=Clock(30)) as pve:
        state = pve["lab"].state
        state.user_config.realms |= {
            "corp": Realm("corp", "ldap", "Example directory", default=True),
            "sso": Realm("sso", "openid", "Single sign-on"),
            "keys": Realm("keys", "ldap", tfa="yubico"),
            "codes": Realm("codes", "ldap", tfa="oath"),
        }
        state.pools["web"] = Pool("web", vmids={100, 101})
        state.options["webauthn"] = {"id": "lab.internal", "rp": "Lab", "origin": ORIGIN}
        yield pve["lab"]


@pytest.fixture
async def visitor(house) -> AsyncIterator[Client]:
    """Open a client without an account."""
    async with Client(house.hosts, tls=Tls(fingerprints=house.fingerprints.values())) as client:
        yield client


@pytest.fixture
def user(house, request) -> User:
    """Add a user with a password, named after the test."""
    name = request.node.name.partition("[")[0].removeprefix("test_")[-40:]
    added = User(f"{name}@pve", password=PASSWORD)
    house.state.user_config.users[added.userid] = added
    return added


async def signed_in(visitor, user) -> tuple[Ticket, Client]:
    ticket = await visitor.sign_in.with_password(user.userid, PASSWORD)
    assert isinstance(ticket, Ticket)
    return ticket, visitor.signed_in_as(ticket)


async def challenge_of(visitor, user, *methods) -> SecondFactor:
    challenge = await visitor.sign_in.with_password(user.userid, PASSWORD)
    assert isinstance(challenge, SecondFactor)
    assert challenge.methods == methods
    return challenge


async def test_realms_are_read_without_an_account(visitor):
    # Quirk 13.
    realms = {realm.realm: realm for realm in await visitor.access.realms()}
    assert {name: realm.type for name, realm in realms.items()} == {
        "pam": "pam",
        "pve": "pve",
        "corp": "ldap",
        "sso": "openid",
        "keys": "ldap",
        "codes": "ldap",
    }
    assert [name for name, realm in realms.items() if realm.default] == ["corp"]
    assert [name for name, realm in realms.items() if realm.is_openid] == ["sso"]
    assert realms["keys"].tfa == "yubico"
    with pytest.raises(Unauthenticated, match="No ticket"):
        await visitor.version()


async def test_a_ticket_has_the_rights_of_its_user(visitor, house, user):
    house.state.user_config.acl.append(AclEntry("/pool/web", "user", user.userid, "PVEVMUser"))
    ticket, client = await signed_in(visitor, user)
    assert ticket.username == user.userid
    assert {guest.vmid for guest in (await client.cluster.resources()).guests} == {100, 101}
    assert (await client.access.permissions("/vms/100"))["/vms/100"].keys() >= {"VM.PowerMgmt"}
    task = await client.qemu("pve1", 100).power("reset")
    assert (await task.wait()).ok
    assert task.upid.user == user.userid
    with pytest.raises(Forbidden):
        await client.qemu("pve1", 102).power("reset")


async def test_a_user_makes_uses_and_removes_own_tokens(visitor, house, user):
    # Quirk 64.
    house.state.user_config.acl.append(AclEntry("/", "user", user.userid, "PVEAuditor"))
    _, client = await signed_in(visitor, user)
    expire = int(house.state.now) + 30 * 86400
    made = await client.access.create_token(
        user.userid, "mcp-1", comment="Claude on mcp.lab", expire=expire, privsep=False
    )
    assert made.token_id == f"{user.userid}!mcp-1"
    (listed,) = await client.access.tokens(user.userid)
    assert (listed.token_id, listed.comment) == ("mcp-1", "Claude on mcp.lab")
    assert (listed.expire, listed.privsep) == (expire, False)
    by_token = visitor.signed_in_as(made.credential)
    assert (await by_token.access.permissions()) == (await client.access.permissions())
    for attempt in (
        by_token.access.tokens(user.userid),
        by_token.access.create_token(user.userid, "more"),
        by_token.access.delete_token(user.userid, "mcp-1"),
    ):
        with pytest.raises(Forbidden, match=r"^Permission check failed$"):
            await attempt
    with pytest.raises(Conflict, match=r"^Token already exists\.$"):
        await client.access.create_token(user.userid, "mcp-1")
    with pytest.raises(BadParameters) as caught:
        await client.access.create_token(user.userid, "x")
    assert caught.value.errors.keys() == {"tokenid"}
    with pytest.raises(Forbidden):
        await client.access.create_token("root@pam", "evil")
    await client.access.delete_token(user.userid, "mcp-1")
    with pytest.raises(Unauthenticated):
        await by_token.version()
    with pytest.raises(NotFound, match="no such token 'mcp-1'"):
        await client.access.delete_token(user.userid, "mcp-1")


@pytest.mark.parametrize("name", ["a;b", "50%25", "o'neil+x"])
async def test_a_user_with_an_unusual_name_signs_in_and_uses_a_token(visitor, house, name):
    user = User(f"{name}@corp", password="päss  wörd&=+%")
    house.state.user_config.users[user.userid] = user
    ticket = await visitor.sign_in.with_password(user.userid, user.password)
    client = visitor.signed_in_as(ticket)
    made = await client.access.create_token(user.userid, "mcp-1")
    assert (await visitor.signed_in_as(made.credential).version()).release


async def test_another_account_removes_a_token_with_user_modify(visitor, house, user):
    _, client = await signed_in(visitor, user)
    await client.access.create_token(user.userid, "mcp-1")
    service = visitor.signed_in_as(ApiToken(*house.token))
    await service.access.delete_token(user.userid, "mcp-1")
    assert await client.access.tokens(user.userid) == []
    await client.access.create_token(user.userid, "mcp-2")
    del house.state.user_config.users[user.userid]
    with pytest.raises(NotFound, match="no such user"):
        await service.access.delete_token(user.userid, "mcp-2")


async def test_no_token_is_made_without_quorum(visitor, house, user):
    _, client = await signed_in(visitor, user)
    house.lose_quorum()
    try:
        with pytest.raises(NoQuorum):
            await client.access.create_token(user.userid, "mcp-1")
    finally:
        house.restore_quorum()


ENDS = {
    "disabled": lambda config, user, token: setattr(user, "enabled", False),  # noqa: ARG005
    "user expired": lambda config, user, token: setattr(user, "expire", 1),  # noqa: ARG005
    "token expired": lambda config, user, token: setattr(token, "expire", 1),  # noqa: ARG005
    "user removed": lambda config, user, token: config.users.pop(user.userid),  # noqa: ARG005
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_token_ends_at_the_next_call(visitor, house, user, end):
    # Quirk 60.
    _, client = await signed_in(visitor, user)
    made = await client.access.create_token(user.userid, "mcp-1", privsep=False)
    by_token = visitor.signed_in_as(made.credential)
    await by_token.version()
    end(house.state.user_config, user, user.tokens["mcp-1"])
    with pytest.raises(Unauthenticated, match=r"^Authentication failed!$"):
        await by_token.version()
    if end is not ENDS["token expired"]:
        with pytest.raises(Unauthenticated, match=r"^Authentication failed!$"):
            await client.version()


async def test_every_refusal_has_the_same_words(visitor, house):
    # Quirk 60.
    refused = (
        User("wrong@pve", password="another"),
        User("without-password@pve"),
        User("disabled@pve", password=PASSWORD, enabled=False),
        User("expired@pve", password=PASSWORD, expire=1),
        User("of-no-realm@gone", password=PASSWORD),
        User("of-a-provider@sso", password=PASSWORD),
        User("without-factor@codes", password=PASSWORD),
    )
    users = house.state.user_config.users
    users |= {user.userid: user for user in refused}
    for userid in (*(user.userid for user in refused), "unknown@pve"):
        with pytest.raises(Unauthenticated) as caught:
            await visitor.sign_in.with_password(userid, PASSWORD)
        assert (caught.value.status, str(caught.value)) == (401, "authentication failure"), userid


async def test_a_code_is_accepted_once(visitor, house, user):
    # Quirks 12 and 62.
    user.factors.append(Factor("1", "totp", SECRET))
    challenge = await challenge_of(visitor, user, "totp")
    code = Totp(SECRET, clock=house.state.clock.now)()
    ticket = await visitor.sign_in.with_second_factor(challenge, "totp", code)
    assert (await visitor.signed_in_as(ticket).version()).release == "9.2"
    with pytest.raises(Unauthenticated):
        await visitor.sign_in.with_second_factor(challenge, "totp", code)
    half = Ticket(username=user.userid, ticket=challenge.ticket)
    with pytest.raises(Unauthenticated):
        await visitor.signed_in_as(half).version()


async def test_wrong_codes_lock_until_a_recovery_key_is_used(visitor, house, user):
    # Quirk 62.
    user.factors += [Factor("1", "totp", SECRET), Factor("2", "recovery", "aaaa-1 bbbb-2 cccc-3")]
    challenge = await challenge_of(visitor, user, "totp", "recovery")
    assert challenge.recovery_keys == (0, 1, 2)
    user.totp_failures = 6
    for _ in range(2):
        with pytest.raises(Unauthenticated, match=r"^authentication failure$"):
            await visitor.sign_in.with_second_factor(challenge, "totp", "000")
    service = visitor.signed_in_as(ApiToken(*house.token))
    (row,) = [each for each in await service.access.users() if each.userid == user.userid]
    assert row.totp_locked
    code = Totp(SECRET, clock=house.state.clock.now)()
    with pytest.raises(Unauthenticated):
        await visitor.sign_in.with_second_factor(challenge, "totp", code)
    await visitor.sign_in.with_second_factor(challenge, "recovery", "bbbb-2")
    with pytest.raises(Unauthenticated):
        await visitor.sign_in.with_second_factor(challenge, "recovery", "bbbb-2")
    assert (await challenge_of(visitor, user, "totp", "recovery")).recovery_keys == (0, 2)
    code = Totp(SECRET, clock=house.state.clock.now)()
    assert await visitor.sign_in.with_second_factor(challenge, "totp", code)


async def test_many_wrong_factors_lock_the_user_for_an_hour(visitor, house, user):
    user.factors.append(Factor("1", "recovery", "aaaa-1"))
    user.tfa_failures = 99
    challenge = await challenge_of(visitor, user, "recovery")
    for key in ("wrong", "aaaa-1"):
        with pytest.raises(Unauthenticated):
            await visitor.sign_in.with_second_factor(challenge, "recovery", key)
    service = visitor.signed_in_as(ApiToken(*house.token))
    (row,) = [each for each in await service.access.users() if each.userid == user.userid]
    assert row.locked_until == pytest.approx(house.state.now + 3600, abs=120)
    await service.transport.put(f"/access/users/{user.userid}/unlock-tfa")
    assert await visitor.sign_in.with_second_factor(challenge, "recovery", "aaaa-1")


async def test_a_security_key_answers_at_the_node_that_asked(visitor, house, user):
    # Quirk 61.
    key = SecurityKey()
    user.factors.append(key.factor())
    challenge = await challenge_of(visitor, user, "webauthn")
    assert challenge.webauthn["publicKey"]["rpId"] == "lab.internal"
    assertion = key.sign(challenge.webauthn, ORIGIN)
    visitor.transport.pool.leave(challenge.host)
    assert await visitor.sign_in.with_second_factor(challenge, "webauthn", assertion)
    wrong = {
        "used": lambda options: assertion,  # noqa: ARG005
        "another origin": lambda options: key.sign(options, "https://mcp.example"),
        "another key": lambda options: SecurityKey().sign(options, ORIGIN),
        "no JSON": lambda options: "[]",  # noqa: ARG005
    }
    for answer in wrong.values():
        challenge = await challenge_of(visitor, user, "webauthn")
        value = answer(challenge.webauthn)
        with pytest.raises(Unauthenticated):
            await visitor.sign_in.with_second_factor(challenge, "webauthn", value)
    challenge = await challenge_of(visitor, user, "webauthn")
    elsewhere = next(host for host in house.hosts if host != challenge.host)
    moved = msgspec.structs.replace(challenge, host=elsewhere)
    value = key.sign(challenge.webauthn, ORIGIN)
    with pytest.raises(Unauthenticated):
        await visitor.sign_in.with_second_factor(moved, "webauthn", value)


@pytest.mark.parametrize(
    ("settings", "page", "accepted"),
    [
        ({}, "https://mcp.localhost", True),
        ({}, "https://localhost:8443", True),
        ({}, "https://mcp.example", False),
        ({"origin": "https://localhost"}, "https://mcp.localhost", True),
        ({"origin": "https://localhost"}, "https://mcp.localhost:8443", False),
        ({"origin": "https://localhost", "allow-subdomains": "0"}, "https://mcp.localhost", False),
        ({"origin": "https://pve.localhost"}, "https://mcp.localhost", False),
        ({"origin": "http://localhost:8080"}, "http://localhost:8080", True),
    ],
)
async def test_a_key_may_sign_where_the_settings_or_the_host_of_the_answer_say(
    house, user, monkeypatch, settings, page, accepted
):
    # Quirk 65.
    monkeypatch.setitem(house.state.options, "webauthn", {"id": "localhost", "rp": "x", **settings})
    key = SecurityKey()
    user.factors.append(key.factor())
    hosts = [host.replace("127.0.0.1", "localhost") for host in house.hosts]
    async with Client(hosts, tls=Tls(fingerprints=house.fingerprints.values())) as visitor:
        challenge = await challenge_of(visitor, user, "webauthn")
        host, value = urlsplit(page).netloc, key.sign(challenge.webauthn, page)
        answer = visitor.sign_in.with_second_factor(challenge, "webauthn", value, page_host=host)
        if accepted:
            assert (await answer).username == user.userid
            return
        with pytest.raises(Unauthenticated):
            await answer


async def test_a_key_is_not_offered_by_an_address_but_still_required(visitor, house, user):
    # Quirk 65.
    user.factors.append(SecurityKey().factor())
    house.state.options["webauthn"] = {"id": "lab.internal", "rp": "Lab"}
    try:
        await challenge_of(visitor, user)
    finally:
        house.state.options["webauthn"]["origin"] = ORIGIN


async def test_a_yubico_realm_takes_codes_of_the_registered_key(visitor, house):
    user = User("anna@keys", password=PASSWORD, factors=[Factor("1", "yubico", "cccccccccccb")])
    house.state.user_config.users[user.userid] = user
    challenge = await challenge_of(visitor, user, "yubico")
    with pytest.raises(Unauthenticated):
        await visitor.sign_in.with_second_factor(challenge, "yubico", "x" * 44)
    assert await visitor.sign_in.with_second_factor(challenge, "yubico", "cccccccccccb" + "x" * 32)


def provided(house, request, name) -> dict[str, str]:
    """Return the code and state that the provider sends back after a sign-in."""
    return dict(httpx.URL(house.openid.sign_in(request.url, name)).params)


async def test_openid_signs_in_through_the_node_that_began(visitor, house):
    # Quirk 63.
    users = house.state.user_config.users
    users["erin@sso"] = User("erin@sso")
    users["dora@sso"] = User("dora@sso", enabled=False)
    request = await visitor.sign_in.openid_request("sso", REDIRECT)
    answer = provided(house, request, "erin")
    assert answer["state"] == request.state
    visitor.transport.pool.leave(request.host)
    ticket = await visitor.sign_in.with_openid(request, **answer)
    assert ticket.username == "erin@sso"
    made = await visitor.signed_in_as(ticket).access.create_token("erin@sso", "mcp-1")
    assert made.token_id == "erin@sso!mcp-1"
    with pytest.raises(Unauthenticated, match=r"^authentication failure$"):
        await visitor.sign_in.with_openid(request, **answer)
    for name in ("dora", "unknown"):
        request = await visitor.sign_in.openid_request("sso", REDIRECT)
        with pytest.raises(Unauthenticated):
            await visitor.sign_in.with_openid(request, **provided(house, request, name))
    with pytest.raises(NotFound, match="authentication domain 'gone' does not exist"):
        await visitor.sign_in.openid_request("gone", REDIRECT)
    with pytest.raises(ResponseError, match=r"wrong realm type \(pve != openid\)"):
        await visitor.sign_in.openid_request("pve", REDIRECT)


async def test_the_page_of_the_provider_leads_back_to_the_application(visitor, house):
    house.state.user_config.realms["new"] = Realm("new", "openid", autocreate=True)
    house.state.user_config.users["<b>@new"] = User("<b>@new")
    request = await visitor.sign_in.openid_request("new", REDIRECT)
    context = Tls(fingerprints=house.fingerprints.values()).context()
    async with httpx.AsyncClient(verify=context, timeout=60) as browser:
        page = await browser.get(request.url)
        assert "&lt;b&gt;" in page.text
        assert "<b>" not in page.text
        chosen = await browser.get(f"{request.url}&login=frida")
    assert chosen.headers["location"].startswith(f"{REDIRECT}?")
    answer = dict(httpx.URL(chosen.headers["location"]).params)
    ticket = await visitor.sign_in.with_openid(request, **answer)
    assert ticket.username == "frida@new"


@asynccontextmanager
async def stopped_first(house):
    first = house.state.nodes["pve1"]
    hosts = list(house.hosts)
    await house.node_down(first.name)
    try:
        yield hosts
    finally:
        await house.node_up(first.name)


async def test_a_host_that_is_down_is_followed_by_the_next(house, user):
    tls = Tls(fingerprints=house.fingerprints.values())
    async with stopped_first(house) as hosts, Client(hosts, tls=tls) as visitor:
        _, client = await signed_in(visitor, user)
        assert (await client.version()).release
    async with Client(house.hosts[:1], tls=Tls()) as visitor:
        with pytest.raises(TlsError):
            await visitor.sign_in.with_password(user.userid, PASSWORD)


async def test_a_broken_answer_is_not_followed_by_another_attempt(visitor, house, user):
    fault = house.fault("drop", path="/access/ticket")
    try:
        with pytest.raises(Unreachable):
            await visitor.sign_in.with_password(user.userid, PASSWORD)
        assert fault.hits == 1
    finally:
        house.faults.remove(fault)


async def test_no_secret_reaches_a_log(visitor, house, user, caplog):
    caplog.set_level(logging.DEBUG)
    user.factors.append(Factor("1", "recovery", "aaaa-1"))
    challenge = await challenge_of(visitor, user, "recovery")
    ticket = await visitor.sign_in.with_second_factor(challenge, "recovery", "aaaa-1")
    client = visitor.signed_in_as(ticket)
    made = await client.access.create_token(user.userid, "mcp-1")
    await visitor.signed_in_as(made.credential).version()
    hidden = (PASSWORD, "aaaa-1", challenge.ticket, ticket.ticket, ticket.csrf_token, made.secret)
    assert not [secret for secret in hidden if secret in caplog.text]
