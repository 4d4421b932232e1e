"""Sign-in: tickets, API tokens and second factors."""

import asyncio
from urllib.parse import quote

import pytest

from proxmox_client.emulator import Emulator, ManualClock, Scenario
from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.state.user_config import SecondFactor, User

pytestmark = pytest.mark.anyio
SECRET = "JBSWY3DPEHPK3PXP"


@pytest.fixture
async def anonymous(lab, open_client):
    async with open_client(lab, None) as client:
        yield client


async def sign_in(anonymous, **extra):
    userid, password = anonymous.cluster.password
    return await anonymous.data(
        "POST", "/access/ticket", username=userid, password=password, **extra
    )


async def with_ticket(anonymous, ticket, method, path, csrf=None, **params):
    headers = {"Cookie": f"PVEAuthCookie={ticket}"}
    if csrf is not None:
        headers["CSRFPreventionToken"] = csrf
    content = {"data": params} if method == "POST" else {"params": params}
    return await anonymous.http.request(method, f"/api2/json{path}", headers=headers, **content)


@pytest.mark.parametrize(
    "encode", [str, lambda ticket: quote(ticket, safe="")], ids=["raw", "quoted"]
)
async def test_a_ticket_is_accepted_raw_and_quoted(anonymous, encode):
    ticket = (await sign_in(anonymous))["ticket"]
    response = await with_ticket(anonymous, encode(ticket), "GET", "/version")
    assert response.status_code == 200


async def test_a_change_needs_the_csrf_token(anonymous):
    signed = await sign_in(anonymous)
    change = ("POST", "/pools")
    for csrf in (None, "", "00000000:bad", signed["CSRFPreventionToken"] + "x", "nonsense"):
        refused = await with_ticket(anonymous, signed["ticket"], *change, csrf=csrf, poolid="x")
        assert refused.status_code == 401
        assert refused.reason_phrase == "Permission denied - invalid csrf token"
    csrf = signed["CSRFPreventionToken"]
    assert (
        await with_ticket(anonymous, signed["ticket"], *change, csrf=csrf, poolid="x")
    ).status_code == 200


async def test_the_realm_can_be_a_separate_parameter(anonymous):
    _, password = anonymous.cluster.password
    signed = await anonymous.data(
        "POST", "/access/ticket", username="root", realm="pam", password=password
    )
    assert signed["username"] == "root@pam"


async def test_a_ticket_can_be_renewed(anonymous):
    ticket = (await sign_in(anonymous))["ticket"]
    renewed = await anonymous.data("POST", "/access/ticket", username="root@pam", password=ticket)
    assert renewed["ticket"].startswith("PVE:root@pam:")


@pytest.mark.parametrize(
    "forged", ["", "PVE", "PVE:root@pam:6B02ABDE::AAAA", "PVE:root@pam:zz::AA=="]
)
async def test_a_forged_ticket_is_refused(anonymous, forged):
    assert (await with_ticket(anonymous, forged, "GET", "/version")).status_code == 401


async def test_a_ticket_expires_after_two_hours_and_five_minutes():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        cluster = pve["lab"]
        ticket = cluster.tickets.issue("root@pam", clock.now())
        await clock.advance(7200 + 299)
        assert cluster.tickets.read(ticket, clock.now()) is not None
        await clock.advance(2)
        assert cluster.tickets.read(ticket, clock.now()) is None


async def test_sessions_can_be_expired(anonymous, lab):
    ticket = (await sign_in(anonymous))["ticket"]
    await lab.state.clock.sleep(2)
    lab.expire_sessions()
    assert (await with_ticket(anonymous, ticket, "GET", "/version")).status_code == 401


async def test_a_second_factor_is_required_after_the_password(anonymous, lab):
    factor = SecondFactor("1", "totp", SECRET)
    lab.state.user_config.users["bob@pve"] = User("bob@pve", password="secret", factors=[factor])
    half = await anonymous.data("POST", "/access/ticket", username="bob@pve", password="secret")
    assert half["NeedTFA"] == 1
    assert (await with_ticket(anonymous, half["ticket"], "GET", "/version")).status_code == 401
    answer = {"username": "bob@pve", "tfa-challenge": half["ticket"]}
    wrong = await anonymous.request("POST", "/access/ticket", **answer, password="totp:000000")
    assert (wrong.status_code, wrong.json()["message"]) == (401, "authentication failure\n")
    digits = totp.code(SECRET, lab.state.now)
    full = await anonymous.data("POST", "/access/ticket", **answer, password=f"totp:{digits}")
    assert (await with_ticket(anonymous, full["ticket"], "GET", "/version")).status_code == 200


async def test_a_recovery_key_is_valid_once(anonymous, lab):
    factor = SecondFactor("1", "recovery", "abcd-ef01")
    lab.state.user_config.users["bob@pve"] = User("bob@pve", password="secret", factors=[factor])
    statuses = []
    for _ in range(2):
        half = lab.tickets.issue_half("bob@pve", {"recovery": [0]}, lab.state.now)
        answer = {"username": "bob@pve", "tfa-challenge": half, "password": "recovery:abcd-ef01"}
        statuses.append((await anonymous.request("POST", "/access/ticket", **answer)).status_code)
    assert statuses == [200, 401]


async def test_a_challenge_is_written_as_in_recordings(anonymous, lab):
    factors = [SecondFactor("1", "totp", SECRET), SecondFactor("2", "recovery", "- bbbb-2")]
    lab.state.user_config.users["bob@pve"] = User("bob@pve", password="secret", factors=factors)
    half = await anonymous.data("POST", "/access/ticket", username="bob@pve", password="secret")
    assert half["ticket"].startswith('PVE:!tfa!{"recovery"%3A[1],"totp"%3Atrue}:')
    assert half.keys() == {"username", "NeedTFA", "ticket", "CSRFPreventionToken"}


@pytest.mark.parametrize("change", [{"enabled": False}, {"expire": 1}])
async def test_a_disabled_user_is_refused_with_words_and_in_a_session_without_body(
    anonymous, lab, change
):
    user = User("bob@pve", password="secret")
    lab.state.user_config.users[user.userid] = user
    form = {"username": user.userid, "password": user.password}
    ticket = (await anonymous.data("POST", "/access/ticket", **form))["ticket"]
    for name, value in change.items():
        setattr(user, name, value)
    at_sign_in = await anonymous.request("POST", "/access/ticket", **form)
    assert at_sign_in.status_code == 401
    assert at_sign_in.json() == {"data": None, "message": "authentication failure\n"}
    in_session = await with_ticket(anonymous, ticket, "GET", "/version")
    assert (in_session.status_code, in_session.content) == (401, b"")
    assert in_session.reason_phrase == "Authentication failed!"


async def test_second_factors_of_others_are_listed_with_a_privilege_only(anonymous, admin, lab):
    factors = [SecondFactor("1", "recovery", "aaaa-1")]
    for name in ("bob@pve", "eve@pve"):
        user = lab.state.user_config.users[name] = User(name, password="secret")
        user.factors = [*factors]
    signed = lab.tickets.issue("bob@pve", lab.state.now)
    own = (await with_ticket(anonymous, signed, "GET", "/access/tfa")).json()["data"]
    assert [row["userid"] for row in own] == ["bob@pve"]
    assert len(await admin.get("/access/tfa")) == 2


def test_totp_matches_the_codes_of_rfc_6238():
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    expected = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}
    assert {when: totp.code(secret, when) for when in expected} == expected


@pytest.mark.parametrize(
    ("change", "works"),
    [
        ({}, True),
        ({"expire": 1}, False),
        ({"secret": "another"}, False),
    ],
)
async def test_a_token_must_be_correct_and_not_expired(lab, open_client, change, works):
    name, secret = lab.token
    token = lab.state.user_config.users["mcp@pve"].tokens["emulator"]
    for key, value in change.items():
        setattr(token, key, value)
    async with open_client(lab, (name, secret)) as client:
        response = await client.request("GET", "/version")
    assert response.status_code == (200 if works else 401)
    assert response.reason_phrase == ("OK" if works else "Authentication failed!")


async def test_the_token_of_a_disabled_user_is_refused(lab, admin):
    lab.state.user_config.users["mcp@pve"].enabled = False
    assert (await admin.request("GET", "/version")).status_code == 401


async def test_the_token_separator_of_the_backup_server_is_refused(lab, anonymous):
    name, secret = lab.token
    headers = {"Authorization": f"PVEAPIToken={name}:{secret}"}
    assert (await anonymous.http.get("/api2/json/version", headers=headers)).status_code == 401


async def test_a_failed_sign_in_is_answered_after_three_seconds():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        gateway = Gateway(pve["lab"], pve["lab"].state.nodes["pve1"])
        response = asyncio.create_task(gateway.answer(Request("GET", "/api2/json/version")))
        await clock.advance(2.9)
        assert not response.done()
        await clock.advance(0.2)
        answer = await response
    assert (answer.status, answer.reason) == (401, "No ticket")
