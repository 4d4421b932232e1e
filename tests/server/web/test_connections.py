"""Connections of users: administrators list and end them, on the page, by REST and by name."""

import re

import pytest
from tests.server.oauth.connected import connect

from pvemcp_server.audit import Event
from pvemcp_server.oauth.connections import LeftToken
from pvemcp_server.store.records import AdminRole

pytestmark = pytest.mark.anyio
OTHER = "https://claude.example/client.json"


@pytest.fixture
async def people(front):
    """Connect alice with two clients, and bob with one of them."""
    store = front.services.store
    clients = (("alice", OTHER), ("alice", "client-of-tests"), ("bob", OTHER))
    made = []
    for number, (user, client) in enumerate(clients):
        subject, name = f"cluster:1:{user}@pve", f"{user}@pve via {number}"
        made.append(await connect(store, subject=subject, client_id=client, name=name))
        await store.keys.change(made[-1].id, person=f"{user}@pve")
    await store.watch.poll()
    return made


async def changes(front, operation: str) -> list[dict]:
    """Return the arguments of the changes of an operation, the newest first."""
    await front.services.audit.flush()
    entries = await front.services.audit.find()
    assert {entry.key_name for entry in entries} <= {"ada", "alice@pve via 0"}
    return [dict(entry.arguments) for entry in entries if entry.tool == f"admin.{operation}"]


async def test_each_connection_is_listed_with_its_user_and_calls_and_is_no_key(front, people):
    event = Event(tool="ListVms", key_id=people[0].id, key_name="alice@pve via 0")
    await front.services.audit.call(event)
    await front.services.audit.flush()
    listed = (await front.api("GET", "/connections")).json()
    assert [each["user"] for each in listed] == ["alice@pve", "alice@pve", "bob@pve"]
    assert {each["id"]: each["calls"] for each in listed if each["calls"]} == {people[0].id: 1}
    (first,) = [each for each in listed if each["calls"]]
    assert (first["role"], first["scopes"], first["client_id"]) == (
        *("Administrator", ["pve:read"], OTHER),
    )
    assert (await front.api("GET", "/keys")).json() == []
    page = (await front.get("/admin/connections")).text
    assert page.count("Administrator") >= 3
    for shown in ("/admin/audit", "/admin/roles"):
        assert "alice@pve via 0" in (await front.get(shown)).text


async def test_one_connection_is_ended_by_id_or_name_with_the_user_in_the_audit(front, people):
    await front.services.access.keys.create("laptop")
    for name in (people[0].id, "alice@pve via 1"):
        ended = await front.api("POST", f"/connections/{name}/end")
        assert (ended.status_code, ended.json()["left"]) == (200, [])
    left = [each["user"] for each in (await front.api("GET", "/connections")).json()]
    assert left == ["bob@pve"]
    recorded = await changes(front, "connections.end")
    assert [(each["user"], each["subject"]) for each in recorded] == [
        ("alice@pve", "cluster:1:alice@pve")
    ] * 2
    for unknown in (people[0].id, "laptop"):
        refused = await front.api("POST", f"/connections/{unknown}/end")
        assert (refused.status_code, "No connection" in refused.text) == (404, True)


@pytest.mark.parametrize(
    ("which", "ended"),
    [
        ({"user": "alice@pve"}, ["alice@pve via 0", "alice@pve via 1"]),
        ({"user": "cluster:1:bob@pve"}, ["bob@pve via 2"]),
        ({"client": OTHER}, ["alice@pve via 0", "bob@pve via 2"]),
        ({"user": "alice@pve", "client": OTHER}, ["alice@pve via 0"]),
    ],
)
async def test_all_connections_of_a_user_or_a_client_are_ended(front, people, which, ended):
    answer = await front.api("POST", "/connections/end", json=which)
    assert sorted(answer.json()["ended"]) == ended
    assert len((await front.api("GET", "/connections")).json()) == 3 - len(ended)
    assert len(await changes(front, "connections.end_all")) == len(ended)


async def test_a_name_that_two_users_have_ends_neither(front, people):
    await connect(front.services.store, subject="cluster:2:alice@pve", name="alice of another")
    refused = await front.api("POST", "/connections/end", json={"user": "alice@pve"})
    assert (refused.status_code, "cluster:2:alice@pve" in refused.text) == (422, True)
    assert (await front.api("POST", "/connections/end", json={})).status_code == 422
    assert len(await front.services.store.connections.all()) == 4


async def test_tokens_that_are_left_are_shown_with_the_line_that_removes_them(
    front, people, monkeypatch
):
    async def end(_connection: str, *, forget: bool) -> list[LeftToken]:
        assert forget, "an administrator ends the consent too"
        return [LeftToken("prod", "alice@pve!pvemcp-1")]

    monkeypatch.setattr(front.services.connections, "end", end)
    line = "pveum user token remove alice@pve pvemcp-1"
    answer = (await front.api("POST", f"/connections/{people[0].id}/end")).json()
    assert [each["command"] for each in answer["left"]] == [line]
    for path in (f"/{people[0].id}/end", "/end"):
        shown = await front.post(f"/admin/connections{path}", client=OTHER)
        assert line in shown.text


async def test_buttons_of_the_page_end_connections(front, people):
    page = (await front.get("/admin/connections")).text
    assert len(re.findall(r'hx-post="/admin/connections/\w+/end"', page)) == 3
    done = await front.post(f"/admin/connections/{people[2].id}/end")
    assert done.headers["hx-refresh"] == "true"
    await front.post("/admin/connections/end", user="cluster:1:alice@pve")
    assert "No user has connected" in (await front.get("/admin/connections")).text
    await front.become(AdminRole.AUDITOR)
    assert "/end" not in (await front.get("/admin/connections")).text
