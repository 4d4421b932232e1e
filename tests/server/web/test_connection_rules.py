"""Connection rules: which roles users may choose, and what ends with a rule."""

import pytest
from tests.server.oauth.connected import connect, granted

from pvemcp_server.errors import AccessDenied
from pvemcp_server.oauth.person import Account, Person, Place
from pvemcp_server.oauth.rules import role_choices
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole

pytestmark = pytest.mark.anyio
RULE = {"kind": "realm", "name": "pve", "role": "Operator"}
CLUSTER = {"token_id": "root@pam!all", "secret": "12345678-1234-1234-1234-123456789abc"}


async def add(front, **changes):
    return await front.api("POST", "/connection-rules", json=RULE | changes)


async def connected(front, userid: str, *clusters: str, role: str = "Operator"):
    """Connect a user with an account on each of the clusters."""
    store = front.services.store
    record = await connect(store, role=role, subject=f"cluster:1:{userid}", name=f"{userid} here")
    for name in clusters:
        cluster = await front.services.access.clusters.get(name)
        await store.identities.add(
            cluster_id=cluster.id,
            connection_id=record.id,
            name=f"connection {record.id}",
            token_id=f"{userid}!pvemcp-1",
            secret="x",
        )
    return record


@pytest.fixture
async def silent(front):
    """Configure two clusters that do not answer."""
    for name in ("lab", "prod"):
        await front.services.access.clusters.create(name, ["127.0.0.1:1"], **CLUSTER)
    await front.services.store.watch.poll()
    return front


async def test_a_rule_is_checked_added_listed_and_offered(equipped):
    added = (await add(equipped, cluster="prod")).json()
    assert (added["warnings"], added["cluster"]) == ([], "prod")
    assert (await equipped.api("GET", "/connection-rules")).json()[0]["role"] == "Operator"
    page = await equipped.get("/admin/connection-rules")
    assert "<strong>pve</strong>" in page.text
    store = equipped.services.store
    accounts = {}
    for record in await store.clusters.all():
        ticket = type("Ticket", (), {"username": "alice@pve"})
        accounts[record.name] = Account(Place.of(record), ticket)
    alice = Person("cluster:1:alice@pve", "alice@pve", utc_now(), accounts)
    choices = await role_choices(store, alice)
    assert [(each.role.name, each.clusters) for each in choices] == [
        *(("Read-only", None), ("Operator", {"prod"})),
    ]
    group = (await add(equipped, kind="group", name="nobodies", cluster="prod")).json()
    assert group["warnings"] == ["prod shows no group nobodies to its default account."]
    unknown = await add(equipped, name="nowhere", cluster="prod")
    assert (unknown.status_code, "No realm" in unknown.text) == (422, True)


async def test_wrong_rules_are_refused_and_name_the_field(silent):
    await add(silent, kind="admin", name="owner")

    async def refused(field: str, changes: dict):
        answer = await add(silent, **changes)
        assert (answer.status_code, field in answer.json()["error"]) == (422, True)

    cases = [
        ("role", {"role": "Read-only"}),
        ("kind", {"kind": "everyone"}),
        ("name", {"kind": "admin", "name": "emperor"}),
        ("cluster", {"kind": "admin", "name": "owner", "cluster": "lab"}),
        ("name", {"kind": "admin", "name": "owner"}),
        ("name", {"kind": "user", "name": "alice"}),
        ("name", {"name": " "}),
        ("name", {"name": "a\x00"}),
        ("name", {"name": "x" * 256}),
    ]
    for case in cases:
        await refused(*case)
    for changes in ({"role": "None"}, {"cluster": "none"}):
        assert (await add(silent, **changes)).status_code == 404
    assert len(await silent.services.store.person_rules.all()) == 1


async def test_a_silent_cluster_is_a_warning(silent):
    user = {"kind": "user", "name": "alice@corp"}
    for changes, count in (({}, 1), (user, 1), ({"kind": "group"}, 2)):
        warnings = (await add(silent, **changes)).json()["warnings"]
        assert len(warnings) == count, changes
        assert {"lab", "prod"} <= set(" ".join(warnings).replace(",", " ").split())
    shown = await silent.post("/admin/connection-rules", **RULE | {"role": "Administrator"})
    assert "is not known" in shown.text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 403),
        ({"kind": "claim", "name": "staff", "role": "Read-only"}, 403),
        ({"role": "Looks"}, 201),
    ],
)
async def test_a_rule_that_lets_users_write_needs_a_recent_sign_in(silent, changes, status):
    grants = [{"tools": ["ListVms"], "clusters": ["*"], "resources": {"everything": True}}]
    await silent.api("POST", "/roles", json={"name": "Looks", "grants": grants})
    await silent.forget_proof()
    assert (await add(silent, **changes)).status_code == status


async def test_the_end_of_a_rule_ends_what_no_other_rule_allows(silent):
    rules = [
        {"name": "pve"},
        {"name": "pve", "cluster": "lab"},
        {"kind": "user", "name": "bob@pve"},
        {"kind": "group", "name": "ops"},
        {"name": "pve", "role": "Administrator"},
    ]
    ids = [(await add(silent, **rule)).json()["id"] for rule in rules]
    for user, clusters in (("alice@pve", ["lab"]), ("bob@pve", ["prod"]), ("eve@pve", ["prod"])):
        await connected(silent, user, *clusters)
    await connected(silent, "both@pve", "lab", "prod")
    await connected(silent, "reader@pve", "prod", role="Read-only")
    await connected(silent, "admin@pve", "prod", role="Administrator")
    removed = await silent.api("POST", f"/connection-rules/{ids[0]}/remove")
    assert sorted(removed.json()["ended"]) == ["both@pve here", "eve@pve here"]
    names = {key.name for key in await silent.services.store.keys.all()}
    assert names == {f"{each}@pve here" for each in ("alice", "bob", "reader", "admin")}
    await silent.services.audit.flush()
    (entry,) = await silent.services.audit.find(limit=1)
    assert (entry.tool, entry.arguments["role"]) == ("admin.connection_rules.remove", "Operator")
    assert (await silent.api("POST", f"/connection-rules/{ids[0]}/remove")).status_code == 404
    await silent.post(f"/admin/connection-rules/{ids[1]}/remove")
    assert "alice@pve here" not in {key.name for key in await silent.services.store.keys.all()}


async def test_a_role_that_a_connection_has_is_not_removed(silent):
    await silent.api("POST", "/roles", json={"name": "Mine", "grants": []})
    await connected(silent, "alice@pve", role="Mine")
    refused = await silent.api("DELETE", "/roles/Mine")
    assert (refused.status_code, "alice@pve here" in refused.text) == (422, True)


@pytest.mark.parametrize("end", ["removed", "disabled", "auditor", "owner"])
async def test_connections_of_an_administrator_end_with_account_and_role(front, end):
    store, admins = front.services.store, front.services.access.admins
    await add(front, kind="admin", name="owner")
    grace = await admins.create("grace", "correct horse battery")
    made = await connect(store, role="Operator", subject=f"admin:{grace.id}", name="grace here")
    await store.connections.change(made.id, admin_id=grace.id)
    match end:
        case "removed":
            await front.api("DELETE", "/admins/grace")
        case "disabled":
            await front.api("PUT", "/admins/grace/enabled?enabled=false")
        case role:
            await front.api("PUT", f"/admins/grace/role?role={role}")
    is_kept = end == AdminRole.OWNER
    assert (await store.keys.find(id=made.id) is not None) == is_kept


async def test_a_connection_is_refused_while_its_administrator_may_not_sign_in(front, monkeypatch):
    access, store = front.services.access, front.services.store
    (ada,) = await store.admins.all()
    made = await connect(store, subject=f"admin:{ada.id}", name="ada here")
    await store.connections.change(made.id, admin_id=ada.id)
    resource = "https://mcp.example/mcp"
    token = (await granted(front.services.oauth.tokens, made, resource)).access_token
    caller = await access.authenticator.authenticate_token(token, "192.0.2.1", resource)
    assert await access.authenticator.still_admits(caller)
    monkeypatch.setattr(access.external, "admits", lambda _: False)  # as without local_sign_in
    with pytest.raises(AccessDenied, match="may not sign in"):
        await access.authenticator.authenticate_token(token, "192.0.2.1", resource)
    assert not await access.authenticator.still_admits(caller)
    assert not access.authenticator.knows(token, "192.0.2.1")


WRONG_ISSUERS = (
    *("http://login.example", "https://login.example/?tenant=1", "login.example", "https://"),
    *("https://user@login.example", "https://169.254.169.254/", "https://[fd00:ec2::254]/realm"),
)


async def test_an_issuer_that_is_not_safe_to_ask_is_no_setting(front, monkeypatch):
    async def change(issuer: str):
        return await front.api("PATCH", "/settings", json={"external_issuer": issuer})

    for issuer in WRONG_ISSUERS:
        answer = await change(issuer)
        assert (answer.status_code, "external_issuer" in answer.text) == (422, True), issuer
    alone = await change("https://127.0.0.1/realms/office")
    assert (alone.status_code, "external_audience" in alone.text) == (422, True)
    both = {"external_issuer": "https://127.0.0.1/realms/office", "external_audience": "proxmox"}
    assert (await front.api("PATCH", "/settings", json=both)).status_code == 200
    monkeypatch.setattr("pvemcp_server.settings.find_spec", lambda _: None)
    missing = await change("https://127.0.0.1/realms/other")
    assert "pip install 'pvemcp-server[oidc]'" in missing.json()["error"]
