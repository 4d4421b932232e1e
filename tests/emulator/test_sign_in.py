"""Tickets, tokens and second factors."""

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
async def nobody(lab, asker):
    async with asker(lab, None) as opened:
        yield opened


async def sign_in(nobody, **extra):
    userid, password = nobody.cluster.password
    return await nobody.data("POST", "/access/ticket", username=userid, password=password, **extra)


async def with_ticket(nobody, ticket, method, path, csrf=None, **params):
    headers = {"Cookie": f"PVEAuthCookie={ticket}"}
    if csrf is not None:
        headers["CSRFPreventionToken"] = csrf
    content = {"data": params} if method == "POST" else {"params": params}
    return await nobody.http.request(method, f"/api2/json{path}", headers=headers, **content)


@pytest.mark.parametrize(
    "encode", [str, lambda ticket: quote(ticket, safe="")], ids=["raw", "quoted"]
)
async def test_a_ticket_signs_in_raw_and_quoted(nobody, encode):
    ticket = (await sign_in(nobody))["ticket"]
    response = await with_ticket(nobody, encode(ticket), "GET", "/version")
    assert response.status_code == 200


async def test_a_change_needs_the_token_that_came_with_the_ticket(nobody):
    signed = await sign_in(nobody)
    change = ("POST", "/pools")
    for csrf in (None, "", "00000000:bad", signed["CSRFPreventionToken"] + "x", "nonsense"):
        refused = await with_ticket(nobody, signed["ticket"], *change, csrf=csrf, poolid="x")
        assert refused.status_code == 401
        assert refused.reason_phrase == "Permission denied - invalid csrf token"
    csrf = signed["CSRFPreventionToken"]
    assert (
        await with_ticket(nobody, signed["ticket"], *change, csrf=csrf, poolid="x")
    ).status_code == 200


async def test_the_user_may_be_given_with_the_realm_apart(nobody):
    _, password = nobody.cluster.password
    signed = await nobody.data(
        "POST", "/access/ticket", username="root", realm="pam", password=password
    )
    assert signed["username"] == "root@pam"


async def test_a_ticket_is_renewed_by_itself(nobody):
    ticket = (await sign_in(nobody))["ticket"]
    renewed = await nobody.data("POST", "/access/ticket", username="root@pam", password=ticket)
    assert renewed["ticket"].startswith("PVE:root@pam:")


@pytest.mark.parametrize(
    "forged", ["", "PVE", "PVE:root@pam:6B02ABDE::AAAA", "PVE:root@pam:zz::AA=="]
)
async def test_a_forged_ticket_is_refused(nobody, forged):
    assert (await with_ticket(nobody, forged, "GET", "/version")).status_code == 401


async def test_a_ticket_lives_two_hours_and_a_little():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        cluster = pve["lab"]
        ticket = cluster.tickets.issue("root@pam", clock.now())
        await clock.advance(7200 + 299)
        assert cluster.tickets.read(ticket, clock.now()) is not None
        await clock.advance(2)
        assert cluster.tickets.read(ticket, clock.now()) is None


async def test_sessions_can_be_ended_from_outside(nobody, lab):
    ticket = (await sign_in(nobody))["ticket"]
    await lab.state.clock.sleep(2)
    lab.expire_sessions()
    assert (await with_ticket(nobody, ticket, "GET", "/version")).status_code == 401


async def test_a_second_factor_is_asked_for_after_the_password(nobody, lab):
    factor = SecondFactor("1", "totp", SECRET)
    lab.state.user_config.users["bob@pve"] = User("bob@pve", password="secret", factors=[factor])
    half = await nobody.data("POST", "/access/ticket", username="bob@pve", password="secret")
    assert half["NeedTFA"] == 1
    assert (await with_ticket(nobody, half["ticket"], "GET", "/version")).status_code == 401
    answer = {"username": "bob@pve", "tfa-challenge": half["ticket"]}
    wrong = await nobody.ask("POST", "/access/ticket", **answer, password="totp:000000")
    assert (wrong.status_code, wrong.json()["message"]) == (401, "authentication failure\n")
    digits = totp.code(SECRET, lab.state.now)
    full = await nobody.data("POST", "/access/ticket", **answer, password=f"totp:{digits}")
    assert (await with_ticket(nobody, full["ticket"], "GET", "/version")).status_code == 200


async def test_a_recovery_key_is_good_once(nobody, lab):
    factor = SecondFactor("1", "recovery", "abcd-ef01")
    lab.state.user_config.users["bob@pve"] = User("bob@pve", password="secret", factors=[factor])
    answers = []
    for _ in range(2):
        half = lab.tickets.issue_half("bob@pve", ["recovery"], lab.state.now)
        answer = {"username": "bob@pve", "tfa-challenge": half, "password": "recovery:abcd-ef01"}
        answers.append((await nobody.ask("POST", "/access/ticket", **answer)).status_code)
    assert answers == [200, 401]


def test_totp_gives_the_codes_of_rfc_6238():
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
async def test_a_token_must_be_right_and_alive(lab, asker, change, works):
    name, secret = lab.token
    token = lab.state.user_config.users["mcp@pve"].tokens["emulator"]
    for key, value in change.items():
        setattr(token, key, value)
    async with asker(lab, (name, secret)) as opened:
        response = await opened.ask("GET", "/version")
    assert response.status_code == (200 if works else 401)
    assert response.reason_phrase == ("OK" if works else "Authentication failed!")


async def test_a_disabled_user_s_token_is_refused(lab, admin):
    lab.state.user_config.users["mcp@pve"].enabled = False
    assert (await admin.ask("GET", "/version")).status_code == 401


async def test_the_old_separator_of_backup_server_tokens_is_refused(lab, nobody):
    name, secret = lab.token
    headers = {"Authorization": f"PVEAPIToken={name}:{secret}"}
    assert (await nobody.http.get("/api2/json/version", headers=headers)).status_code == 401


async def test_a_refused_sign_in_is_answered_three_seconds_late():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        gateway = Gateway(pve["lab"], pve["lab"].state.nodes["pve1"])
        answering = asyncio.create_task(gateway.answer(Request("GET", "/api2/json/version")))
        await clock.advance(2.9)
        assert not answering.done()
        await clock.advance(0.2)
        response = await answering
    assert (response.status, response.reason) == (401, "No ticket")
