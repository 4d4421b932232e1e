"""Approvals on the pages and through the REST API."""

import pytest

from pvemcp_server.approvals import PlannedCall
from pvemcp_server.store.records import AdminRole

pytestmark = pytest.mark.anyio

HOSTILE = "Delete backup <img src=x onerror=alert(1)> of qemu 101 (web)."


async def ask(front, vmid: int = 101) -> int:
    """Let a call of a key wait, and return its number."""
    services = front.services
    keys = {key.name: key for key in await services.access.keys.all()}
    key = keys.get("agent") or (await services.access.keys.create("agent", role="Operator"))[0]
    call = PlannedCall(
        caller=await services.access.authenticator.caller(key.id),
        client="<b>claude</b> 1.0",
        tool="DeleteBackup",
        cluster="prod",
        arguments={"vmid": vmid},
        plan=(HOSTILE,),
        shown_arguments={"vmid": vmid},
        shown_plan=(HOSTILE,),
    )
    approval, _ = await services.approvals.ask(call)
    return approval.id


async def test_approvals_are_listed_and_decided_through_the_api(front):
    one, other = await ask(front, 101), await ask(front, 102)
    listed = (await front.api("GET", "/approvals")).json()
    assert [(each["number"], each["state"]) for each in listed] == [
        (one, "waiting"),
        (other, "waiting"),
    ]
    assert (listed[0]["key"], listed[0]["plan"]) == ("agent", [HOSTILE])
    approved = (await front.api("POST", f"/approvals/{one}/approve")).json()
    assert (approved["state"], approved["decided_by"]) == ("approved", "ada")
    declined = (await front.api("POST", f"/approvals/{other}/decline")).json()
    assert declined["state"] == "declined"
    assert (await front.api("POST", f"/approvals/{other}/approve")).status_code == 404
    await front.services.audit.flush()
    entries = await front.services.audit.find()
    assert [(entry.outcome, entry.acting, entry.key_name) for entry in entries[:2]] == [
        ("declined", "ada", "agent"),
        ("accepted", "ada", "agent"),
    ]


async def test_the_webhook_is_set_and_removed_through_the_api(front):
    url = "https://127.0.0.1:9/secret-path?token=t"
    new = await front.api("PUT", "/approvals/webhook", json={"url": url})
    secret = new.json()["secret"]
    shown = (await front.api("GET", "/approvals/webhook")).json()
    assert shown["receiver"] == "https://127.0.0.1:9"
    pages = str(shown) + (await front.get("/admin/approvals")).text
    assert [word for word in (secret, "secret-path") if word in pages] == []
    refused = await front.api("PUT", "/approvals/webhook", json={"url": "http://169.254.1.1/"})
    assert (refused.status_code, "link-local" in refused.text) == (422, True)
    await front.services.audit.flush()
    [entry] = await front.services.audit.find(limit=1)
    assert entry.tool == "admin.approvals.webhook.set"
    assert [word for word in (secret, "secret-path") if word in str(entry)] == []
    assert (await front.api("DELETE", "/approvals/webhook")).status_code == 204
    assert (await front.api("GET", "/approvals/webhook")).status_code == 422


async def test_the_page_shows_text_of_guests_and_clients_as_text(front):
    number = await ask(front)
    page = (await front.get("/admin/approvals")).text
    assert f"Number {number}" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page
    assert "<b>claude" not in page


async def test_the_page_decides_and_a_second_decision_is_an_error(front):
    number = await ask(front)
    answer = await front.post(f"/admin/approvals/{number}/approve")
    assert "No call waits." in answer.text
    assert "approved" in answer.text
    again = await front.post(f"/admin/approvals/{number}/decline")
    assert "It was decided, has expired" in again.text
    front.csrf = ""
    assert (await front.api("POST", f"/approvals/{number}/approve")).status_code == 403


async def test_an_auditor_sees_approvals_and_decides_none(front):
    number = await ask(front)
    await front.become(AdminRole.AUDITOR)
    page = (await front.get("/admin/approvals")).text
    assert f"Number {number}" in page
    assert "hx-post" not in page
    for decision in ("approve", "decline"):
        answer = await front.api("POST", f"/approvals/{number}/{decision}")
        assert answer.json()["code"] == "not_permitted"
    await front.become(AdminRole.KEY_ISSUER)
    assert (await front.api("GET", "/approvals")).status_code == 403
    [waiting] = await front.services.approvals.waiting()
    assert waiting.id == number


async def test_the_overview_says_that_calls_wait(front):
    assert "for an approval" not in (await front.get("/admin/")).text
    await ask(front)
    assert "1 call waits</strong> for an approval" in (await front.get("/admin/")).text


async def test_the_page_says_when_a_setting_decides_instead(front):
    await front.services.settings.change({"unconfirmed_destructive": "deny"}, by="test")
    assert "Such calls are refused" in (await front.get("/admin/approvals")).text
