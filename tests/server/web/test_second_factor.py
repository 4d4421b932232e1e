"""Second factors over HTTP: enrolment, sign-in in two steps, passkeys, and what is required."""

import json
import re
from datetime import timedelta
from html import unescape

import anyio
import pytest
from pyotp import TOTP

from pvemcp_server.access.sign_in_limits import FREE_FAILURES
from pvemcp_server.admin.authentication import SECOND_STEP_LIFE
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.passkeys import passkey_site

from .authenticator import Authenticator
from .conftest import ADMIN, PASSWORD, Front

pytestmark = pytest.mark.anyio

STEP = "/admin/sign-in/second-factor"
PASSKEY = "/admin/sign-in/passkey"


def options_in(answer) -> str:
    """Return the options for the browser that a page carries."""
    return unescape(re.search(r'data-options="([^"]+)"', answer.text)[1])


def state_in(answer) -> str:
    return re.search(r'name="state" value="([^"]+)"', answer.text)[1]


def codes_in(answer) -> list[str]:
    return re.search(r'id="recovery-codes"[^>]*>([^<]+)<', answer.text)[1].split()


class App:
    """An authenticator app; the server's clock for codes moves on with each code that it shows."""

    def __init__(self, front: Front, secret: str) -> None:
        self._totp = TOTP(secret)
        self._factors = front.services.access.second_factors

    def code(self) -> str:
        """Return the code of the next step, when it has come."""
        time = self._factors._clock() + timedelta(seconds=30)
        self._factors._clock = lambda: time
        return self._totp.at(time)


async def add_app(front: Front) -> tuple[App, list[str]]:
    """Add an authenticator app; return it with the recovery codes, if there are new ones."""
    shown = await front.post("/admin/account/apps", name="phone")
    app = App(front, re.search(r'id="app-secret">(\w+)<', shown.text)[1])
    assert "<svg" in shown.text
    fields = {"state": state_in(shown), "code": app.code()}
    added = await front.post("/admin/account/apps/finish", **fields)
    return app, codes_in(added) if "recovery-codes" in added.text else []


async def add_passkey(front: Front, passkey: Authenticator):
    shown = await front.post("/admin/account/passkeys", name="key")
    fields = {"state": state_in(shown), "credential": passkey.create(options_in(shown))}
    return await front.post("/admin/account/passkeys/finish", **fields)


async def first_step(front: Front) -> None:
    """Enter the right password in a browser without a session."""
    front.http.cookies.delete("pvemcp_session")
    fields = {"name": ADMIN, "password": PASSWORD}
    answer = await front.http.post("/admin/sign-in", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, STEP)
    assert "pvemcp_session" not in front.http.cookies


async def is_signed_in(front: Front) -> bool:
    return (await front.get("/admin/")).status_code == 200


async def audited(front: Front, tool: str) -> list[dict]:
    await front.services.audit.flush()
    found = await front.services.audit.find()
    return [
        dict(entry.arguments or {}, outcome=entry.outcome) for entry in found if entry.tool == tool
    ]


async def test_an_app_and_each_recovery_code_sign_in_once(front):
    app, codes = await add_app(front)
    assert len(set(codes)) == 10
    code = app.code()
    for proof in (code, codes[0]):
        await first_step(front)
        assert not await is_signed_in(front)
        done = await front.http.post(STEP, data={"code": proof})
        assert (done.status_code, done.headers["location"]) == (303, "/admin/")
        assert await is_signed_in(front)
        await first_step(front)
        again = await front.http.post(STEP, data={"code": proof})
        assert (again.status_code, "is wrong" in again.text) == (403, True)
    seconds = [entry.get("second") for entry in await audited(front, "admin.sign_in")]
    assert [second for second in seconds if second] == ["recovery code", "totp"]
    page = (await front.get("/admin/sign-in")).text + (await front.get("/admin/audit")).text
    assert not [each for each in codes if each in page]


async def test_the_second_step_needs_the_browser_of_the_first(front):
    app, _ = await add_app(front)
    await first_step(front)
    cookies = dict(front.http.cookies)
    front.http.cookies.clear()
    assert (await front.get(STEP)).headers["location"] == "/admin/sign-in"
    refused = await front.http.post(STEP, data={"code": app.code()})
    assert (refused.status_code, refused.headers["location"]) == (303, "/admin/sign-in")
    front.http.cookies.set("pvemcp_sign_in", cookies["pvemcp_sign_in"])
    done = await front.http.post(STEP, data={"code": app.code()})
    assert done.headers["location"] == "/admin/"
    assert 'pvemcp_sign_in=""; ' in str(done.headers.get_list("set-cookie"))


async def test_a_first_step_is_good_for_one_sign_in_within_five_minutes(front, monkeypatch):
    _, codes = await add_app(front)
    await first_step(front)
    cookie = front.http.cookies["pvemcp_sign_in"]
    assert (await front.http.post(STEP, data={"code": codes[0]})).status_code == 303
    front.http.cookies.clear()
    front.http.cookies.set("pvemcp_sign_in", cookie)
    again = await front.http.post(STEP, data={"code": codes[1]})
    assert again.headers["location"] == "/admin/sign-in"
    assert not await is_signed_in(front)
    assert len(await front.services.store.recovery_codes.all()) == len(codes) - 1
    states = front.services.access.sealed_states
    monkeypatch.setattr(states, "_clock", lambda: utc_now() + SECOND_STEP_LIFE)
    late = await front.http.post(STEP, data={"code": codes[2]})
    assert late.headers["location"] == "/admin/sign-in"


async def test_the_cookie_between_the_steps_is_strict_and_httponly(front):
    await add_app(front)
    answer = await front.http.post("/admin/sign-in", data={"name": ADMIN, "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    for part in ("samesite=strict", "httponly", "path=/admin/sign-in", "max-age=300"):
        assert part in cookie
    assert ADMIN not in cookie


@pytest.mark.parametrize("path", ["/admin/sign-in", "/admin/api/session"])
async def test_a_right_password_without_its_second_step_is_audited(front, path):
    await add_app(front)
    front.http.cookies.clear()
    body = "json" if "api" in path else "data"
    await front.http.post(path, **{body: {"name": ADMIN, "password": PASSWORD}})
    (entry,) = await front.services.audit.find(limit=1)
    assert (entry.tool, entry.key_name) == ("admin.sign_in.first_step", ADMIN)


async def test_wrong_codes_lock_as_wrong_passwords_do_and_are_audited(front):
    app, _ = await add_app(front)
    await first_step(front)
    for _ in range(FREE_FAILURES):
        assert (await front.http.post(STEP, data={"code": "000000"})).status_code == 403
    front.http.cookies.delete("pvemcp_device")
    for _ in range(FREE_FAILURES):
        assert (await front.http.post(STEP, data={"code": "000000"})).status_code == 403
    locked = await front.http.post(STEP, data={"code": app.code()})
    assert (locked.status_code, "Retry-After" in locked.headers) == (429, True)
    refusals = [entry["outcome"] for entry in await audited(front, "admin.sign_in")]
    assert refusals.count("refused") == 2 * FREE_FAILURES


@pytest.mark.parametrize("path", ["apps", "passkeys", "recovery-codes", "factors/1/remove"])
async def test_a_change_of_factors_needs_a_recent_sign_in(front, path):
    await add_app(front)
    await front.forget_proof()
    refused = await front.post(f"/admin/account/{path}", name="x")
    assert refused.headers["hx-retarget"] == "#confirmation"
    assert len(await front.services.store.second_factors.all()) == 1


@pytest.mark.parametrize("role", AdminRole)
async def test_each_role_changes_its_own_factors(front, role):
    await front.become(role)
    _, codes = await add_app(front)
    await add_app(front)
    factors = await front.services.store.second_factors.all()
    assert len(factors) == 2
    new = await front.post("/admin/account/recovery-codes")
    assert set(codes_in(new)).isdisjoint(codes)
    for factor in factors:
        assert (await front.post(f"/admin/account/factors/{factor.id}/remove")).status_code == 204
    assert (await front.sign_in()).status_code == 201
    changes = await audited(front, "admin.account.remove_second_factor")
    assert {change["kind"] for change in changes} == {"totp"}


async def test_an_enrolment_belongs_to_its_session_and_counts_once(front):
    shown = await front.post("/admin/account/apps", name="phone")
    app = App(front, re.search(r'id="app-secret">(\w+)<', shown.text)[1])
    state = state_in(shown)
    first = front.http.cookies["pvemcp_session"], front.csrf
    await front.sign_in()
    stolen = await front.post("/admin/account/apps/finish", state=state, code=app.code())
    assert "begin again" in stolen.text
    front.http.cookies.clear()
    front.http.cookies.set("pvemcp_session", first[0])
    front.csrf = first[1]
    for code in (app.code(), app.code()):
        await front.post("/admin/account/apps/finish", state=state, code=code)
    assert len(await front.services.store.second_factors.all()) == 1


async def test_concurrent_ends_of_an_enrolment_add_one_factor(front):
    # two factors with one secret would accept each of its codes twice
    shown = await front.post("/admin/account/apps", name="phone", confirmation=PASSWORD)
    app = App(front, re.search(r'id="app-secret">(\w+)<', shown.text)[1])
    fields = {"state": state_in(shown), "code": app.code()}
    answers = []

    async def finish():
        answers.append(await front.post("/admin/account/apps/finish", **fields))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(finish)
    assert sum("recovery-codes" in answer.text for answer in answers) == 1
    assert sum("begin again" in answer.text for answer in answers) == 3
    assert len(await front.services.store.second_factors.all()) == 1


async def test_the_first_factor_ends_all_other_sessions(front):
    other = front.http.cookies["pvemcp_session"]
    await front.sign_in()
    await add_app(front)
    assert await is_signed_in(front)
    front.http.cookies.clear()
    front.http.cookies.set("pvemcp_session", other)
    assert not await is_signed_in(front)


async def test_a_passkey_is_a_second_factor(front):
    passkey = Authenticator(verifies=False)
    assert "recovery-codes" in (await add_passkey(front, passkey)).text
    await first_step(front)
    options = options_in(await front.get(STEP))
    done = await front.http.post(STEP, data={"credential": passkey.get(options)})
    assert (done.status_code, done.headers["location"]) == (303, "/admin/")
    assert await is_signed_in(front)


async def test_a_passkey_that_verifies_its_user_signs_in_alone(front):
    passkey = Authenticator()
    await add_passkey(front, passkey)
    front.http.cookies.clear()
    assert "Sign in with a passkey" in (await front.get("/admin/sign-in")).text
    answer = passkey.get(options_in(await front.get(PASSKEY)))
    cookie = front.http.cookies["pvemcp_sign_in"]
    done = await front.http.post(PASSKEY, data={"credential": answer})
    assert (done.status_code, done.headers["location"]) == (303, "/admin/")
    assert await is_signed_in(front)
    entry, *_ = await audited(front, "admin.sign_in")
    assert entry["by"] == "passkey"
    front.http.cookies.clear()
    front.http.cookies.set("pvemcp_sign_in", cookie)
    assert (await front.http.post(PASSKEY, data={"credential": answer})).status_code == 403


async def test_a_passkey_alone_has_to_verify_its_user(front):
    passkey = Authenticator()
    await add_passkey(front, passkey)
    front.http.cookies.clear()
    passkey.verifies = False
    answer = passkey.get(options_in(await front.get(PASSKEY)))
    assert (await front.http.post(PASSKEY, data={"credential": answer})).status_code == 403
    assert not await is_signed_in(front)
    await front.services.audit.flush()
    entry = (await front.services.audit.find())[0]
    assert (entry.key_name, entry.outcome) == ("ada", "refused"), "its owner is named"


def stale(passkey: Authenticator, options: str) -> str:
    return passkey.get(json.dumps({**json.loads(options), "challenge": "AAAA"}))


def foreign(passkey: Authenticator, options: str) -> str:
    passkey.origin = "https://evil.example"
    return passkey.get(options)


def cloned(passkey: Authenticator, options: str) -> str:
    passkey.counter = 0
    return passkey.get(options)


def unknown(passkey: Authenticator, options: str) -> str:
    return Authenticator().get(options)


def resigned(passkey: Authenticator, options: str) -> str:
    return Authenticator(credential=passkey.credential, counter=9).get(options)


@pytest.mark.parametrize("answer_of", [stale, foreign, cloned, unknown, resigned])
async def test_a_wrong_answer_of_a_passkey_is_refused(front, answer_of):
    passkey = Authenticator(counter=3)
    await add_passkey(front, passkey)
    front.http.cookies.clear()
    alone = answer_of(passkey, options_in(await front.get(PASSKEY)))
    assert (await front.http.post(PASSKEY, data={"credential": alone})).status_code == 403
    await first_step(front)
    second = answer_of(passkey, options_in(await front.get(STEP)))
    assert (await front.http.post(STEP, data={"credential": second})).status_code == 403
    assert not await is_signed_in(front)


@pytest.mark.parametrize("answer", ["{}", "[]", '{"id": "\\ud800"}', '{"id": "\\u0000"}'])
async def test_a_malformed_answer_of_a_passkey_is_refused(front, answer):
    await add_passkey(front, Authenticator())
    shown = await front.post("/admin/account/passkeys", name="b")
    fields = {"state": state_in(shown), "credential": answer}
    assert "not valid" in (await front.post("/admin/account/passkeys/finish", **fields)).text
    await front.forget_proof()
    fields["state"] = state_in(await front.post("/admin/administrators", name="grace"))
    assert "is wrong" in (await front.post("/admin/confirm", **fields)).text
    front.http.cookies.clear()
    await front.get(PASSKEY)
    assert (await front.http.post(PASSKEY, data={"credential": answer})).status_code == 403
    await first_step(front)
    assert (await front.http.post(STEP, data={"credential": answer})).status_code == 403


async def test_a_passkey_of_another_administrator_is_no_second_factor(front):
    await front.services.access.admins.create("bob", PASSWORD, must_change=False)
    passkey = Authenticator()
    await front.sign_in("bob")
    await add_passkey(front, passkey)
    await front.sign_in()
    await add_passkey(front, Authenticator())
    await first_step(front)
    options = options_in(await front.get(STEP))
    assert (
        await front.http.post(STEP, data={"credential": passkey.get(options)})
    ).status_code == 403


@pytest.mark.parametrize(
    ("origin", "party", "reason"),
    [
        ("https://mcp.example", "mcp.example", ""),
        ("https://mcp.example:8443", "mcp.example", ""),
        ("http://localhost:8811", "localhost", ""),
        ("http://mcp.example", None, "plain http"),
        ("http://127.0.0.1:8811", None, "http://localhost:8811/admin/"),
        ("https://192.0.2.1", None, "IP address"),
        ("http://[::1]:8811", None, "http://localhost:8811/admin/"),
    ],
)
def test_passkeys_need_a_name_and_https_or_localhost(origin, party, reason):
    site = passkey_site(origin)
    assert (site.party and site.party.id) == party
    assert reason in site.reason
    assert bool(site.reason) is (party is None)
    below = passkey_site(origin, "/pve")
    assert (below.party, below.reason) == (
        site.party,
        site.reason.replace("/admin/", "/pve/admin/"),
    )


async def test_without_https_the_page_says_why_there_are_no_passkeys(open_front):
    async with open_front(allowed_hosts=("mcp.lan",)) as front:
        front.http.base_url = "http://mcp.lan"
        await front.sign_in()
        page = (await front.get("/admin/account")).text
        assert "Passkeys need https" in page
        assert "Add passkey" not in page
        refused = await front.post("/admin/account/passkeys", name="x")
        assert "Passkeys need https" in refused.text
        assert (await front.get(PASSKEY)).headers["location"] == "/admin/sign-in"


async def test_a_program_signs_in_with_a_code(front):
    app, codes = await add_app(front)
    needed = await front.sign_in()
    assert (needed.status_code, "code" in needed.json()["error"]) == (401, True)
    for code, status in [("000000", 401), (app.code(), 201), (codes[0], 201), (codes[0], 401)]:
        credentials = {"name": ADMIN, "password": PASSWORD, "code": code}
        answer = await front.http.post("/admin/api/session", json=credentials)
        assert answer.status_code == status


async def test_a_required_factor_is_set_up_before_anything_else(front):
    changed = await front.api("PATCH", "/settings", json={"require_second_factor": True})
    assert changed.status_code == 200
    for path in (
        "/",
        "/keys",
        "/settings",
        "/administrators",
        "/audit/export.csv",
        "/openapi.json",
    ):
        page = await front.get(f"/admin{path}")
        assert page.status_code in (303, 404), path
        assert page.headers.get("location", "/admin/account") == "/admin/account"
    for method, path in [("GET", "/keys"), ("POST", "/keys"), ("GET", "/openapi.json")]:
        refused = await front.api(method, path, json={"name": "x"})
        assert (refused.status_code, "second factor" in refused.json()["error"]) == (403, True)
    ended = await front.post("/admin/account/sessions/end-others")
    assert ended.headers["HX-Redirect"] == "/admin/account"
    page = (await front.get("/admin/account")).text
    assert "A second factor is required" in page
    assert 'aria-label="Pages"' not in page
    await add_app(front)
    assert await is_signed_in(front)
    assert 'aria-label="Pages"' in (await front.get("/admin/account")).text


async def test_second_factors_are_listed_and_removed_by_another_administrator(front):
    await add_app(front)
    await front.services.access.admins.create("bob", PASSWORD, must_change=False)
    own = await front.api("DELETE", "/admins/ada/second-factors")
    assert (own.status_code, "page Account" in own.json()["error"]) == (422, True)
    ada = front.http.cookies["pvemcp_session"]
    await front.sign_in("bob")
    [listed] = (await front.api("GET", "/admins/ada/second-factors")).json()
    assert (listed["kind"], listed["name"]) == ("totp", "phone")
    assert "Remove second factors of ada" in (await front.get("/admin/administrators")).text
    assert (await front.api("DELETE", "/admins/ada/second-factors")).status_code == 204
    [change] = await audited(front, "admin.admins.remove_second_factors")
    assert (change["name"], change["removed"]) == ("ada", 1)
    front.http.cookies.clear()
    front.http.cookies.set("pvemcp_session", ada)
    assert not await is_signed_in(front)
    assert (await front.sign_in()).status_code == 201
    assert await front.services.store.recovery_codes.all() == []


async def test_one_session_or_all_others_end(front):
    tokens = []
    for _ in range(3):
        await front.sign_in()
        tokens.append(front.http.cookies["pvemcp_session"])
    sessions = (await front.api("GET", "/admins/ada/sessions")).json()
    other = next(session["id"] for session in sessions if not session["current"])
    assert not [token for token in tokens if token.startswith(other)]
    assert (await front.post(f"/admin/account/sessions/{other}/end")).status_code == 204
    assert (await front.api("DELETE", f"/admins/ada/sessions/{other}")).status_code == 404
    assert len((await front.api("GET", "/admins/ada/sessions")).json()) == len(sessions) - 1
    await front.post("/admin/account/sessions/end-others")
    [kept] = (await front.api("GET", "/admins/ada/sessions")).json()
    assert kept["current"]
