"""Errors name the field that they are about; a session that ended says so."""

import re

import pytest

pytestmark = pytest.mark.anyio
WRONG = re.compile(r'<p data-field="([^"]+)" data-message="([^"]+)">')


async def clusters_form(front, emulated, **changed: str) -> dict[str, str]:
    """Return the form of a new cluster for the emulated one, as a browser sends it."""
    token_id, secret = emulated.token
    (host, *_), (pin, *_) = emulated.hosts, emulated.fingerprints.values()
    fields = {"name": "office", "kind": "pve", "hosts": host, "tls_mode": "pinned"}
    return fields | {"fingerprint": pin, "token_id": token_id, "token_secret": secret} | changed


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"hosts": "127.0.0.1:9"}, "hosts", "does not answer"),
        ({"hosts": "127.0.0.1:nine"}, "hosts", "port"),
        ({"fingerprint": ""}, "fingerprints", "tick those"),
        ({"fingerprint": ":".join(["AB"] * 32)}, "fingerprints", "pin it"),
        ({"fingerprint": "AB:CD"}, "fingerprints", "32 pairs of hex digits"),
        ({"token_id": "reader"}, "token_id", "user@realm!name"),
        ({"token_secret": "0" * 8}, "token_secret", "token is wrong"),
        ({"name": ""}, "name", ""),
    ],
)
async def test_an_error_of_a_new_cluster_names_the_field_that_it_is_about(
    front, emulator, changed, field, reason
):
    fields = await clusters_form(front, emulator["home-lab"], **changed)
    refused = await front.post("/admin/clusters", **fields)
    assert refused.headers["hx-retarget"] == "#errors"
    [(named, message)] = WRONG.findall(refused.text)
    assert (named, reason in message) == (field, True), message
    assert "--" not in message  # an option of the command line
    assert "_ssl.c" not in message


async def test_the_form_of_a_cluster_makes_the_account_itself(front, emulator):
    emulated = emulator["prod"]
    fields = await clusters_form(front, emulated, user="alice@pve", role="Read-only")
    wrong = await front.post("/admin/clusters/account", **fields, password="not it")
    assert WRONG.findall(wrong.text)[0][0] == "password"
    unseen = await front.post(
        "/admin/clusters/account", **(fields | {"fingerprint": ""}), password="proxmox-demo"
    )
    assert WRONG.findall(unseen.text)[0][0] == "fingerprints"
    unchecked = await front.post(
        "/admin/clusters/account", **(fields | {"tls_mode": "insecure"}), password="proxmox-demo"
    )
    assert WRONG.findall(unchecked.text)[0][0] == "tls_mode"
    made = await front.post("/admin/clusters/account", **fields, password="proxmox-demo")
    assert "PVEAuditor" in made.text or "VM.Audit" in made.text, made.text
    token = dict(re.findall(r'id="(token_\w+)"[^>]* value="([^"]+)"', made.text))
    assert token["token_id"] == "mcp-read-only@pve!pvemcp"
    added = await front.post("/admin/clusters", **(fields | token))
    assert added.headers["hx-redirect"] == "/admin/clusters"


async def test_every_wrong_field_of_a_form_is_named(front):
    refused = await front.post(
        "/admin/keys", name="x", role="Read-only", unattended="maybe", destructive_per_day="many"
    )
    assert {field for field, _ in WRONG.findall(refused.text)} == {
        "unattended",
        "destructive_per_day",
    }


async def test_a_session_that_ended_says_so_and_a_stranger_is_only_asked(front, stranger):
    for session in await front.services.store.sessions.all():
        await front.services.store.sessions.remove(session.digest)
    part = await front.post("/admin/keys", name="x", role="Read-only")
    assert part.headers["hx-redirect"] == "/admin/sign-in?ended=1"
    page = await front.get("/admin/keys")
    assert page.headers["location"] == "/admin/sign-in?ended=1"
    assert "Your session has ended." in (await front.get("/admin/sign-in?ended=1")).text
    stranger.http.cookies.clear()
    assert (await stranger.get("/admin/keys")).headers["location"] == "/admin/sign-in"
