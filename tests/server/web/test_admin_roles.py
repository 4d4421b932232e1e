"""What each role of administrators may do: in the REST API, on the pages, and at each operation."""

import inspect
import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from fastapi.routing import APIRoute

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import operations
from pvemcp_server.admin.permission import (
    COMMAND_LINE,
    NO_AUTHORITY,
    CommandLineAuthority,
    RoleAuthority,
)
from pvemcp_server.errors import BadArgument, NotPermitted
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.pages import routers
from pvemcp_server.web.templates import NAVIGATION

pytestmark = pytest.mark.anyio

ROUTES = [route for router in routers(has_issuer=False) for route in router.routes]
# The sign-in, each session's own account, and a page that leads to what it may show
OF_EVERYONE = {"/endpoint", "/sign-in", "/sign-out", "/password", "/confirm", "/connect", "/"}
OF_EVERYONE |= {"/sign-in/second-factor", "/sign-in/passkey"}
each_role = pytest.mark.parametrize("role", AdminRole)


def operation_of(route: APIRoute) -> str:
    """Return the operation that a page's route asks before it does anything."""
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return next((call.operation for call in calls if hasattr(call, "operation")), "")


@each_role
async def test_a_rest_route_runs_for_the_roles_of_its_operation_only(front, role):
    await front.become(role)
    for operation in operations().values():
        if operation.route:
            path = re.sub(r"\{\w+\}", "1", operation.route.path)
            answer = await front.api(operation.route.method, path, json={})
            refused = answer.status_code == 403 and answer.json()["code"] == "not_permitted"
            assert refused == (role not in operation.permission.roles), operation.name


def test_an_auditor_runs_only_what_reads():
    asks = {"doctor", "clusters.test", "queries.run", "audit.verify"}  # reads that are no GET
    for name, operation in operations().items():
        if AdminRole.AUDITOR in operation.permission.roles and operation.route:
            assert operation.route.method == "GET" or name in asks, name


def test_whatever_changes_something_records_it():
    records = ("context.changed(", "context.recorded(", "check_and_add(", "_decide(", "call_tool(")
    records += ("_end(context, ",)
    for name, operation in operations().items():
        if AdminRole.AUDITOR not in operation.permission.roles:
            source = inspect.getsource(operation.run)
            assert any(record in source for record in records), name


async def test_what_contacts_a_host_is_recorded_also_when_it_fails(front):
    closed = "127.0.0.1:1"
    cluster = {"name": "lab", "hosts": [closed], "token_id": "a@pam!b", "token_secret": "s3cret"}
    await front.api("PUT", "/approvals/webhook", json={"url": f"http://{closed}/"})
    for path, body in {
        "/clusters/try": cluster,
        "/clusters": cluster,
        "/clusters/fingerprints": [closed],
        "/approvals/webhook/test": None,
    }.items():
        await front.api("POST", path, json=body)
        (entry,) = await front.services.audit.find(limit=1)
        assert (entry.key_name, entry.kind) == ("ada", "admin")
        assert entry.tool != "admin.approvals.webhook.set"
        assert closed in str(entry.arguments)
        assert "s3cret" not in str(entry.arguments)


def test_every_route_of_the_pages_names_its_operation():
    unnamed = {route.path for route in ROUTES if not operation_of(route)}
    assert {path for path in unnamed if not path.startswith("/account")} == OF_EVERYONE
    assert {operation_of(route) for route in ROUTES} - {""} <= operations().keys()


@each_role
async def test_a_forged_form_runs_for_the_roles_of_its_operation_only(front, role):
    await front.become(role)
    headers = {"X-CSRF-Token": front.csrf}
    for route in ROUTES:
        permission = (name := operation_of(route)) and operations()[name].permission
        if not permission:
            continue
        (method,) = route.methods
        path = "/admin" + re.sub(r"\{\w+\}", "1", route.path)
        answer = await front.http.request(method, path, headers=headers)
        refused = answer.status_code == 403 and "is not permitted to the role" in answer.text
        assert refused == (role not in permission.roles), path


@pytest.mark.parametrize(
    "authority", [NO_AUTHORITY, *(CommandLineAuthority(each) for each in AdminRole)]
)
async def test_an_operation_itself_refuses_whom_it_does_not_name(front, authority):
    context = AdminContext(front.services, "eve", authority=authority)
    for operation in operations().values():
        if authority.role not in operation.permission.roles:
            arguments = dict.fromkeys(list(operation.parameters)[1:])
            with pytest.raises(NotPermitted):
                await operation.run(context, **arguments)


@each_role
async def test_a_page_shows_only_what_the_role_permits(equipped, role):
    await equipped.services.access.keys.create("laptop")
    await equipped.services.access.roles.create("Mine", ())
    await equipped.become(role)
    forms = [route for route in ROUTES if "POST" in route.methods and operation_of(route)]
    shown = (await equipped.get("/admin/", follow_redirects=True)).text
    for entry in NAVIGATION.values():
        permitted = role in operations()[entry.operation].permission.roles
        assert (
            f'href="{entry.path}"><svg' in shown or f'{entry.path}" aria-c' in shown
        ) == permitted
        if not permitted:
            continue
        page = (await equipped.get(entry.path)).text
        for path in re.findall(r'hx-post="/admin([^"?]+)', page):
            names = {operation_of(route) for route in forms if route.path_regex.match(path)}
            assert names, path
            assert any(may_run(role, name) for name in names), path


class Tags(HTMLParser):
    """The elements of a page that are open, and those that are closed without being so."""

    VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})

    def __init__(self):
        super().__init__()
        self.open = []
        self.wrong = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_startendtag(self, tag, attrs):
        pass


@each_role
async def test_each_element_of_a_page_is_closed_whatever_the_role_hides(equipped, role):
    await equipped.services.access.keys.create("laptop")
    await equipped.services.access.roles.create("Mine", ())
    await equipped.become(role)
    paths = [
        entry.path
        for entry in NAVIGATION.values()
        if role in operations()[entry.operation].permission.roles
    ]
    for path in ("/admin/account", *paths):
        tags = Tags()
        tags.feed((await equipped.get(path)).text)
        assert (path, tags.wrong, tags.open) == (path, [], [])


def may_run(role: AdminRole, name: str) -> bool:
    permission = operations()[name].permission
    return role in permission.roles or bool(permission.own)


async def test_a_key_issuer_makes_keys_and_sees_roles_and_clusters_by_name(equipped):
    await equipped.become(AdminRole.KEY_ISSUER)
    at_home = await equipped.get("/admin/")
    assert (at_home.status_code, at_home.headers["location"]) == (303, "/admin/keys")
    page = (await equipped.get("/admin/keys")).text
    assert "<option>Operator</option>" in page
    assert 'value="prod"' in page
    assert "Generate key" in page
    assert "Turn on" not in page
    made = await equipped.api("POST", "/keys", json={"name": "laptop", "clusters": ["prod"]})
    assert made.status_code == 201
    choices = (await equipped.api("GET", "/key-choices")).json()
    assert sorted(choices["clusters"]) == ["home-lab", "prod"]
    unknown = await equipped.api("POST", "/keys", json={"name": "x", "role": "Mine"})
    assert unknown.status_code == 404
    everything = [await equipped.api("GET", path) for path in ("/clusters", "/roles", "/settings")]
    assert [answer.status_code for answer in everything] == [403, 403, 403]


async def test_a_key_issuer_freezes_and_an_owner_unfreezes_after_a_recent_sign_in(equipped):
    await equipped.become(AdminRole.KEY_ISSUER)
    await equipped.forget_proof()
    assert "Freeze all writes" in (await equipped.get("/admin/keys")).text
    await equipped.post("/admin/clusters/freeze", reason="<b>fi\u202e\x1b\nre</b>")
    await equipped.post("/admin/clusters/prod/freeze")
    shown = (await equipped.get("/admin/keys")).text
    assert "All writes are frozen" in shown
    assert "&lt;b&gt;fi re&lt;/b&gt;" in shown  # as text, without what is invisible
    assert "Unfreeze" not in shown
    (everywhere, own) = (await equipped.api("GET", "/freezes")).json()
    assert (everywhere["cluster"], everywhere["by"]) == (None, "ada")
    assert own["cluster"] == "prod"

    await equipped.become(AdminRole.OWNER)
    page = (await equipped.get("/admin/clusters")).text
    assert page.count('<span class="badge bad">frozen</span>') == 2
    assert "Unfreeze all clusters" in page
    assert "Freeze all writes" not in page
    asked = await equipped.post("/admin/clusters/unfreeze")
    assert "Confirm it's you" in asked.text.replace("&#39;", "'")
    assert len((await equipped.api("GET", "/freezes")).json()) == 2
    await equipped.sign_in()
    await equipped.post("/admin/clusters/unfreeze")
    page = (await equipped.get("/admin/clusters")).text
    assert page.count('<span class="badge bad">frozen</span>') == 1
    await equipped.post("/admin/clusters/prod/unfreeze")
    assert (await equipped.api("GET", "/freezes")).json() == []


async def test_only_who_may_change_the_setting_gives_a_key_more_destructive_calls(front):
    key, _ = await front.services.access.keys.create("laptop", role="Operator")
    path, most = f"/keys/{key.id}", {"destructive_per_day": 101}
    await front.become(AdminRole.KEY_ISSUER)
    for method, where, body in (("PATCH", path, most), ("POST", "/keys", {"name": "x", **most})):
        answer = await front.api(method, where, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    fewer = await front.api("PATCH", path, json={"destructive_per_day": 3})
    assert fewer.json()["destructive_per_day"] == 3
    rights = await front.get(f"/admin{path}/rights")
    assert "Calls that lose data: 0 of 3 sent today." in rights.text
    await front.forget_proof()
    answer = await front.api("PATCH", path, json={"destructive_per_day": 4})
    assert answer.json()["code"] == "recent_sign_in_needed"
    await front.become(AdminRole.OWNER)
    await front.sign_in()
    assert (await front.api("PATCH", path, json=most)).json()["destructive_per_day"] == 101
    await front.become(AdminRole.KEY_ISSUER)
    wider = ("PATCH", path, {"role": "Administrator"})
    for method, where, body in (wider, ("POST", f"{path}/regenerate", None)):
        assert (await front.api(method, where, json=body)).json()["code"] == "not_permitted"
    await front.become(AdminRole.OWNER)
    await front.post(f"/admin{path}/change", name="laptop", role="Operator")
    assert (await front.api("GET", path)).json()["destructive_per_day"] is None


async def test_only_who_may_change_the_setting_lets_calls_of_a_key_run_unasked(front):
    access = front.services.access
    for name in ("asks", "runs", "spare"):
        await access.keys.create(name, unattended=None if name == "asks" else "allow")
    await front.become(AdminRole.KEY_ISSUER)
    assert 'value="allow"' not in (await front.get("/admin/keys")).text
    assert 'value="allow" selected' in (await front.get("/admin/keys/runs/edit")).text
    tries = [
        ("POST", "/keys", {"name": "new", "unattended": "allow"}),
        ("PATCH", "/keys/asks", {"unattended": "allow"}),
        ("POST", "/keys/runs/regenerate", None),
        ("PATCH", "/keys/runs", {"role": "Operator"}),
        ("PATCH", "/keys/runs", {"expires": "2099-01-01T00:00:00+00:00"}),
        ("PATCH", "/keys/runs", {"allow_from": ["10.0.0.0/8"]}),
    ]
    before = await access.keys.all()
    for method, path, body in tries:
        answer = await front.api(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted"), path
    forged = await front.post("/admin/keys/asks/change", name="asks", unattended="allow")
    assert "is not permitted to the role key-issuer" in forged.text
    assert await access.keys.all() == before
    permitted = [
        ("PATCH", "/keys/runs", {"name": "ran"}),
        ("PATCH", "/keys/ran", {"enabled": False}),
        ("PATCH", "/keys/spare", {"unattended": "approve", "role": "Operator"}),
        ("POST", "/keys/spare/regenerate", None),
    ]
    for method, path, body in permitted:
        assert (await front.api(method, path, json=body)).status_code == 200, path
    enabled = await front.api("PATCH", "/keys/ran", json={"enabled": True})
    assert enabled.status_code == 403
    await front.become(AdminRole.OWNER)
    for method, path, body in (*tries[:2], ("POST", "/keys/ran/regenerate", None)):
        assert (await front.api(method, path, json=body)).status_code in (200, 201), path


async def test_every_role_sees_and_ends_its_own_sessions_only(front):
    access = front.services.access
    await access.admins.create("grace", "correct horse battery", must_change=False)
    await front.sign_in()
    await front.become(AdminRole.KEY_ISSUER)
    page = (await front.get("/admin/account")).text
    assert page.count('aria-label="End the session of') == 1
    assert "grace" not in page
    assert (await front.get("/admin/administrators")).status_code == 403
    assert len((await front.api("GET", "/admins/ada/sessions")).json()) == 2
    assert (await front.api("GET", "/admins/grace/sessions")).status_code == 403
    assert (await front.api("POST", "/admins/grace/end-sessions")).status_code == 403
    assert (await front.api("POST", "/admins/ada/end-sessions")).json() == {"ended": 1}


async def test_a_refused_operation_is_in_the_audit(front):
    await front.become(AdminRole.AUDITOR)
    await front.api("DELETE", "/keys/laptop")
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    assert (entry.tool, entry.key_name, entry.outcome) == ("admin.keys.remove", "ada", "refused")
    assert "auditor" in entry.reason


async def test_the_last_owner_keeps_the_role_and_the_account(front):
    admins = front.services.access.admins
    await admins.create("grace", "correct horse battery", role=AdminRole.AUDITOR)
    for method, path in (
        ("PUT", "/admins/ada/role?role=auditor"),
        ("PUT", "/admins/ada/enabled?enabled=false"),
        ("DELETE", "/admins/ada"),
    ):
        refused = await front.api(method, path)
        assert (refused.status_code, "only owner" in refused.json()["error"]) == (422, True)
    promoted = await front.api("PUT", "/admins/grace/role?role=owner")
    assert promoted.json()["role"] == "owner"
    demoted = await front.post("/admin/administrators/ada/role", role="key-issuer")
    assert demoted.headers["hx-refresh"] == "true"
    assert (await front.api("GET", "/session")).json()["role"] == "key-issuer"
    with pytest.raises(BadArgument, match="only owner"):
        await admins.set_role("grace", AdminRole.KEY_ISSUER)


async def test_the_first_administrator_is_an_owner_and_a_command_acts_as_one(stranger):
    assert (await stranger.services.access.admins.get("ada")).role is AdminRole.OWNER
    for operation in operations().values():
        assert COMMAND_LINE.permits(operation.permission), operation.name
    assert COMMAND_LINE.is_recent


@pytest.mark.parametrize(
    ("minutes", "is_recent"), [(-1, True), (-11, False), (1, True), (11, False)]
)
def test_no_proof_counts_for_longer_once_the_clock_is_set_back(minutes, is_recent):
    verified_at = utc_now() + timedelta(minutes=minutes)
    assert RoleAuthority(AdminRole.OWNER, verified_at).is_recent == is_recent
