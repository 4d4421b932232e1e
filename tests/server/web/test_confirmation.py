"""Operations of weight need a recent proof of who the administrator is."""

import re

import pytest

from pvemcp_server.admin.operation import operations
from pvemcp_server.store.records import AdminRole

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
    reads = {"role": "Operator", "toolset": ["*:read"]}
    assert not await refused(front, "POST", "/keys", name="y", **reads)
    assert await refused(front, "POST", "/keys/writer/regenerate")
    assert not await refused(front, "POST", "/keys/reader/regenerate")
    assert await refused(front, "PATCH", "/keys/reader", role="Operator")
    for same in ({"output_format": "Toon"}, {"enabled": False}, {"role": "Operator"}):
        assert not await refused(front, "PATCH", "/keys/writer", **same)
    for wider in ({"enabled": True}, {"allow_from": ["10.0.0.0/8"]}, {"toolset": ["StartVm"]}):
        assert await refused(front, "PATCH", "/keys/writer", **wider) or "toolset" in wider
    assert (await keys.get("writer")).enabled is False


async def test_settings_of_safety_need_a_recent_sign_in(front):
    await front.forget_proof()
    assert await refused(front, "PATCH", "/settings", unconfirmed_destructive="allow")
    assert await refused(front, "PATCH", "/settings", row_cap=20, audit_retention_days=1)
    assert not await refused(front, "PATCH", "/settings", row_cap=20)


async def test_a_trial_call_that_writes_needs_a_recent_sign_in(front):
    await front.forget_proof()
    assert await refused(front, "POST", "/tools/DeleteBackup/call", arguments={})
    assert not await refused(front, "POST", "/tools/ListVms/call", arguments={})


async def test_a_program_confirms_and_sends_the_request_again(front):
    await front.forget_proof()
    assert await refused(front, "POST", "/admins", name="grace")
    wrong = await front.api("POST", "/session/confirm", json={"password": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (422, "password: is wrong.")
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
    wrong = await front.post("/admin/confirm/password", password="wrong")
    assert (wrong.headers["hx-retarget"], "password is wrong" in wrong.text) == ("#errors", True)
    confirmed = await front.post("/admin/confirm/password", password="correct horse battery")
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
        await front.post("/admin/confirm/password", password="wrong")
    locked = await front.post("/admin/confirm/password", password="correct horse battery")
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
