"""Operations of weight need a recent proof of who the administrator is."""

import asyncio
import re

import pytest

from pvemcp_server.access.grants import grants_from_json
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import grants_writes
from pvemcp_server.admin.operation import operations
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.settings import declared_settings
from pvemcp_server.store.records import AdminRole

from .authenticator import Authenticator
from .conftest import ADMIN, PASSWORD
from .test_second_factor import add_app, add_passkey, audited, options_in, state_in

pytestmark = pytest.mark.anyio

WEIGHTY = {name for name, each in operations().items() if each.needs_recent_sign_in is True}


def test_changes_of_clusters_and_administrators_need_a_recent_sign_in():
    unweighty = {"clusters.try", "clusters.fingerprints"}
    unweighty |= {"admins.end_session", "admins.end_sessions"}
    for name, operation in operations().items():
        if (
            name.split(".")[0] in {"clusters", "admins"}
            and AdminRole.AUDITOR not in operation.permission.roles
        ):
            assert (name in WEIGHTY) == (name not in unweighty), name


async def test_a_rest_route_of_weight_names_what_is_missing(front):
    await front.forget_proof()
    for name, operation in operations().items():
        if operation.route:
            path = re.sub(r"\{\w+\}", "1", operation.route.path)
            answer = await front.api(operation.route.method, path, json={})
            code = answer.json().get("code") if answer.status_code == 403 else None
            assert code == ("recent_sign_in_needed" if name in WEIGHTY else None), name


async def refused(front, method: str, path: str, **body) -> bool:
    answer = await front.api(method, path, json=body)
    return answer.status_code == 403 and answer.json()["code"] == "recent_sign_in_needed"


async def test_only_keys_that_may_write_need_a_recent_sign_in(front):
    keys = front.services.access.keys
    await keys.create("writer", role="Operator")
    await keys.create("reader")
    await front.forget_proof()
    assert await refused(front, "POST", "/keys", name="x", role="Operator")
    assert not await refused(front, "POST", "/keys", name="x")
    reads = {"role": "Operator", "tools": ["*:read"]}
    assert not await refused(front, "POST", "/keys", name="y", **reads)
    grants = [{"tools": ["CallApi", "CallApi:write"], "clusters": ["*"]}]
    api = [{**grant, "resources": {"everything": True}} for grant in grants]
    await front.services.access.roles.create("Api", grants_from_json(api))
    assert await refused(front, "POST", "/keys", name="z", role="Api")
    assert not await refused(front, "POST", "/keys", name="z", role="Api", tools=["CallApi"])
    inside = {"role": "Administrator", "tools": ["ReadGuestFile"]}
    assert await refused(front, "POST", "/keys", name="y", **inside)
    assert await refused(front, "POST", "/keys/writer/regenerate")
    assert not await refused(front, "POST", "/keys/reader/regenerate")
    assert await refused(front, "PATCH", "/keys/reader", role="Operator")
    for same in ({"output_format": "Toon"}, {"enabled": False}, {"role": "Operator"}):
        assert not await refused(front, "PATCH", "/keys/writer", **same)
    for wider in (
        {"enabled": True},
        {"allow_from": ["10.0.0.0/8"]},
        {"toolsets": ["api"]},
        {"tools": ["StartVm"]},
    ):
        assert await refused(front, "PATCH", "/keys/writer", **wider) or "tools" in wider
    assert (await keys.get("writer")).enabled is False


CONCURRENT = {
    "role and tools": [{"role": "Operator"}, {"tools": ["*"]}],
    "tools and role": [{"tools": ["*"]}, {"role": "Operator"}],
}


@pytest.mark.parametrize("changes", CONCURRENT.values(), ids=CONCURRENT.keys())
async def test_concurrent_changes_grant_nothing_that_needs_a_recent_sign_in(front, changes):
    keys = front.services.access.keys
    await keys.create("reader", tools=["ListNodes"])
    await front.forget_proof()
    answers = await asyncio.gather(
        *(front.api("PATCH", "/keys/reader", json=each) for each in changes)
    )
    assert min(answer.status_code for answer in answers) == 200
    assert any(answer.status_code in (403, 422) for answer in answers)
    assert not await grants_writes(AdminContext(front.services, "ada"), "reader")


async def test_a_decision_about_a_key_holds_for_the_record_that_was_read(front):
    keys = front.services.access.keys
    read, _ = await keys.create("reader")
    await keys.change("reader", name="other")
    for late in (keys.change(read, role="Operator"), keys.regenerate(read)):
        with pytest.raises(BadArgument, match="at the same time"):
            await late
    assert (await keys.change("other", role="Operator")).digest == read.digest
    await keys.remove("other")
    with pytest.raises(UnknownName):
        await keys.change(read, enabled=False)


async def test_settings_of_safety_need_a_recent_sign_in(front):
    await front.forget_proof()
    weighty = {
        setting.name
        for setting in declared_settings()
        if await refused(front, "PATCH", "/settings", **{setting.name: setting.default})
    }
    groups = {setting.group for setting in declared_settings() if setting.name in weighty}
    assert groups == {"Safety", "Sign-in", "Connections", "Records"}
    assert weighty >= {"unconfirmed_destructive", "longest_key_life_days", "require_second_factor"}
    assert weighty >= {"local_sign_in", "audit_syslog", "audit_syslog_fingerprint", "audit_file"}
    assert "row_cap" not in weighty
    assert await refused(front, "PATCH", "/settings", row_cap=20, audit_retention_days=1)


def test_approving_needs_a_recent_sign_in_and_declining_does_not():
    assert {name for name in WEIGHTY if name.startswith("approvals")} == {
        *("approvals.approve", "approvals.webhook.set", "approvals.webhook.remove"),
    }


async def test_a_trial_call_that_writes_needs_a_recent_sign_in(front):
    await front.forget_proof()
    assert await refused(front, "POST", "/tools/DeleteBackup/call", arguments={})
    assert await refused(front, "POST", "/tools/ReadGuestFile/call", arguments={})
    assert not await refused(front, "POST", "/tools/ListVms/call", arguments={})


async def test_a_program_confirms_and_sends_the_request_again(front):
    await front.forget_proof()
    assert await refused(front, "POST", "/admins", name="grace")
    wrong = await front.api("POST", "/session/confirm", json={"password": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (422, "password: or the code is wrong.")
    assert await refused(front, "POST", "/admins", name="grace")
    confirmed = await front.api(
        "POST", "/session/confirm", json={"password": "correct horse battery"}
    )
    assert confirmed.json()["csrf"] == front.csrf
    assert (await front.api("POST", "/admins", json={"name": "grace"})).status_code == 201
    await front.services.audit.flush()
    found = [entry for entry in await front.services.audit.find() if "confirm" in entry.tool]
    assert {entry.outcome for entry in found} == {"ok", "refused"}


async def test_a_page_asks_in_a_dialog_and_keeps_the_form(front):
    await front.forget_proof()
    asked = await front.post("/admin/administrators", name="grace")
    assert (asked.status_code, asked.headers["hx-retarget"]) == (200, "#confirmation")
    assert "Confirm it's you" in asked.text
    assert len(await front.services.access.admins.all()) == 1
    wrong = await front.post("/admin/confirm", password="wrong")
    assert (wrong.headers["hx-retarget"], "password is wrong" in wrong.text) == ("#errors", True)
    confirmed = await front.post("/admin/confirm", password="correct horse battery")
    assert (confirmed.status_code, confirmed.headers["hx-trigger"]) == (204, "confirmed")
    shown = await front.post("/admin/administrators", name="grace")
    assert "shown-password" in shown.text


async def test_showing_a_form_of_weight_needs_no_recent_sign_in(equipped):
    await equipped.forget_proof()
    for path in ("/clusters/new", "/clusters/prod/edit", "/roles/new", "/settings"):
        assert (await equipped.get(f"/admin{path}")).status_code == 200


async def test_wrong_confirmations_are_limited_as_wrong_passwords_are(front):
    await front.forget_proof()
    for _ in range(10):  # five of this browser, and five of its address
        await front.post("/admin/confirm", password="wrong")
    locked = await front.post("/admin/confirm", password="correct horse battery")
    assert "Too many attempts" in locked.text
    by_rest = await front.api("POST", "/session/confirm", json={"password": "x"})
    assert by_rest.status_code == 429
    assert await refused(front, "POST", "/admins", name="grace")


async def test_a_confirmation_counts_for_its_own_session_only(front):
    first, csrf = dict(front.http.cookies), front.csrf
    await front.sign_in()
    await front.forget_proof()
    await front.api("POST", "/session/confirm", json={"password": "correct horse battery"})
    assert not await refused(front, "POST", "/admins", name="grace")
    front.http.cookies, front.csrf = first, csrf
    assert await refused(front, "POST", "/admins", name="bob")


async def test_with_second_factors_a_page_asks_for_password_and_code(front):
    app, codes = await add_app(front)
    await front.forget_proof()
    assert 'name="code"' in (await front.post("/admin/administrators", name="grace")).text
    for wrong in (
        {"password": PASSWORD},
        {"code": app.code()},
        {"password": PASSWORD, "code": "000000"},
        {"password": "wrong", "code": codes[1]},
    ):
        assert (await front.post("/admin/confirm", **wrong)).headers["hx-retarget"] == "#errors"
    assert await refused(front, "POST", "/admins", name="grace")
    for right in (app.code(), codes[0]):
        await front.forget_proof()
        done = await front.post("/admin/confirm", password=PASSWORD, code=right)
        assert done.headers["hx-trigger"] == "confirmed"
    seconds = [each.get("second") for each in await audited(front, "admin.confirm")]
    assert [second for second in seconds if second] == ["recovery code", "totp"]
    assert not await refused(front, "POST", "/admins", name="grace")


async def test_with_second_factors_a_password_alone_renews_no_proof(front):
    await add_app(front)
    await front.forget_proof()
    proved = {each.verified_at for each in await front.services.store.sessions.all()}
    body = {"password": PASSWORD}
    await front.api("POST", "/session", json={"name": ADMIN, **body})
    await front.api("POST", "/session/confirm", json=body)
    await front.post("/admin/sign-in", name=ADMIN, **body)
    await front.post("/admin/confirm", **body)
    new = "correct horse battery 2"
    await front.post("/admin/password", current=PASSWORD, new=new, again=new)
    sessions = await front.services.store.sessions.all()
    assert {each.verified_at for each in sessions} == proved
    front.csrf = (await front.api("GET", "/session")).json()["csrf"]
    assert await refused(front, "POST", "/admins", name="grace")


async def test_a_program_confirms_with_password_and_code(front):
    app, _ = await add_app(front)
    await front.forget_proof()
    for code, text in (("", "of your second factor"), ("000000", "is wrong")):
        body = {"password": PASSWORD, "code": code}
        answer = await front.api("POST", "/session/confirm", json=body)
        assert (answer.status_code, text in answer.json()["error"]) == (422, True)
        assert await refused(front, "POST", "/admins", name="grace")
    body = {"password": PASSWORD, "code": app.code()}
    assert (await front.api("POST", "/session/confirm", json=body)).status_code == 200


@pytest.mark.parametrize(("verifies", "password"), [(True, ""), (False, PASSWORD)])
async def test_a_passkey_confirms_alone_once_it_has_verified_its_user(front, verifies, password):
    passkey = Authenticator(verifies=verifies)
    await add_passkey(front, passkey)
    await front.forget_proof()
    asked = await front.post("/admin/administrators", name="grace")
    proof = {"state": state_in(asked), "credential": passkey.get(options_in(asked))}
    if not verifies:
        refusal = await front.post("/admin/confirm", **proof)
        assert "passkey is wrong" in refusal.text
    done = await front.post("/admin/confirm", password=password, **proof)
    assert done.headers["hx-trigger"] == "confirmed"
    await front.forget_proof()
    again = await front.post("/admin/confirm", password=password, **proof)
    assert again.headers["hx-retarget"] == "#errors"
    assert await refused(front, "POST", "/admins", name="grace")


async def test_a_passkey_answers_for_its_own_session_and_account_only(front):
    await front.services.access.admins.create("bob", PASSWORD, must_change=False)
    passkey = Authenticator()
    await front.sign_in("bob")
    await add_passkey(front, passkey)
    await front.forget_proof()
    asked = await front.post("/admin/administrators", name="grace")
    proof = {"state": state_in(asked), "credential": passkey.get(options_in(asked))}
    await front.sign_in()
    await add_passkey(front, Authenticator())
    await front.forget_proof()
    for state in (proof["state"], state_in(await front.post("/admin/administrators", name="x"))):
        answer = await front.post("/admin/confirm", state=state, credential=proof["credential"])
        assert answer.headers["hx-retarget"] == "#errors"
    assert await refused(front, "POST", "/admins", name="grace")
