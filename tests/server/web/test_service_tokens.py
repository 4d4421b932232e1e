"""Service tokens: programs use the admin REST API within their scopes, and nothing else."""

import re
from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import pytest

from pvemcp_server.access.model import Grant
from pvemcp_server.admin.operation import operations, scopes
from pvemcp_server.store.key_format import SERVICE_PREFIX, new_id, new_secret
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.pages import routers

from .description import description

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
CLOSED = {"admins", "tokens"}  # subjects that no token manages


async def present(front, secret: str, method: str, path: str, **options) -> httpx.Response:
    """Send a request with a service token, without a cookie and without a CSRF token."""
    front.http.cookies.clear()
    headers = {"Authorization": f"Bearer {secret}"}
    return await front.http.request(method, path, headers=headers, **options)


async def new_token(front, *names: str, name: str = "robot") -> str:
    _, secret = await front.services.access.service_tokens.create(name, list(names), by="ada")
    return secret


def test_scopes_follow_from_the_operations():
    assert {"keys:read", "keys:write", "audit:read", "settings:write"} <= set(scopes())
    assert {scope for scope in scopes() if scope.split(":")[0] in CLOSED} == set()
    for operation in operations().values():
        subject = operation.name.split(".")[0]
        assert bool(operation.permission.scope) == (subject not in CLOSED), operation.name


async def test_a_scope_permits_its_own_routes_only(stranger):
    """Try each route with each scope of its subject, and with all scopes of other subjects.

    All of those together would open a route that any of them opens.
    """
    subjects = {scope: scope.partition(":")[0] for scope in scopes()}
    alone = {
        (scope,): await new_token(stranger, scope, name=scope.replace(":", " "))
        for scope in scopes()
    }
    others = {}
    for subject in {operation.name.split(".")[0] for operation in operations().values()}:
        names = tuple(scope for scope in scopes() if subjects[scope] != subject)
        others[subject] = {names: await new_token(stranger, *names, name=f"not {subject}")}
    for operation in operations().values():
        if operation.route:
            subject, needed = operation.name.split(".")[0], operation.permission.scope
            own = {key: secret for key, secret in alone.items() if subjects[key[0]] == subject}
            path = "/admin/api" + re.sub(r"\{\w+\}", "1", operation.route.path)
            for names, secret in (others[subject] | own).items():
                answer = await present(stranger, secret, operation.route.method, path, json={})
                permitted = needed in names or (needed and f"{subject}:write" in names)
                refused = answer.status_code == 403 and answer.json()["code"] == "not_permitted"
                assert refused != bool(permitted), (operation.name, names)
                assert answer.status_code != 401


async def test_a_token_lets_calls_run_unasked_only_with_the_scope_of_the_setting(stranger):
    for scopes_of, status in ((["keys:write"], 403), (["keys:write", "settings:write"], 201)):
        secret = await new_token(stranger, *scopes_of, name=str(status))
        fields = {"name": "k", "unattended": "allow"}
        answer = await present(stranger, secret, "POST", "/admin/api/keys", json=fields)
        assert answer.status_code == status


async def test_a_token_widens_a_role_of_unasked_keys_only_with_the_scope_of_the_setting(stranger):
    access, grants = stranger.services.access, [Grant(frozenset({"ListVms"}))]
    for name, unattended in (("asked", "approve"), ("unasked", "allow")):
        await access.roles.create(name, grants)
        await access.keys.create(name, role=name, unattended=unattended)
    wider = {"grants": [{"tools": ["*"], "clusters": ["*"], "resources": {"everything": True}}]}
    roles, both = ["roles:write"], ["roles:write", "settings:write"]
    for role, scopes_of, status in (
        ("asked", roles, 200),
        ("unasked", roles, 403),
        ("unasked", both, 200),
    ):
        secret = await new_token(stranger, *scopes_of, name=f"{role} {status}")
        path = f"/admin/api/roles/{role}"
        assert (await present(stranger, secret, "PATCH", path, json=wider)).status_code == status


PROXMOX = {"token_id": "root@pam!all", "secret": "12345678-1234-1234-1234-123456789abc"}


async def test_a_token_gives_unasked_keys_another_identity_only_with_the_scope_of_the_setting(
    stranger,
):
    access, store = stranger.services.access, stranger.services.store
    await access.clusters.create("prod", ["127.0.0.1"], **PROXMOX)
    await access.clusters.add_identity("prod", "strong", **PROXMOX)
    for name, unattended in (("asked", "approve"), ("unasked", "allow")):
        await access.roles.create(name, [Grant(frozenset({"ListVms"}))])
        await access.keys.create(name, role=name, unattended=unattended)
    bind, unbind = "identities/strong/bindings", "unbind"
    holders = [{kind: name} for kind in ("key", "role") for name in ("asked", "unasked")]
    requests = [(path, to) for to in holders for path in (bind, unbind)]
    requests.append(("identities/strong/default", {}))
    for scopes_of in (["clusters:write"], ["clusters:write", "settings:write"]):
        secret = await new_token(stranger, *scopes_of, name=str(len(scopes_of)))
        for path, to in requests:
            where = f"/admin/api/clusters/prod/{path}"
            answer = await present(stranger, secret, "POST", where, json=to or None)
            is_refused = len(scopes_of) == 1 and "asked" not in to.values()
            assert (answer.status_code == 403) == is_refused, (scopes_of, path, to, answer.text)
    assert [each.name for each in await store.identities.all() if each.is_default] == ["strong"]


async def test_a_token_with_every_scope_opens_no_page_session_or_mcp(stranger):
    secret = await new_token(stranger, *scopes())
    await stranger.services.settings.change({"enabled": True}, by="ada")
    for router in routers(has_issuer=False):
        for route in router.routes:
            for method in route.methods:
                path = "/admin" + re.sub(r"\{\w+\}", "1", route.path)
                if not route.path.startswith(("/sign-in", "/endpoint")):
                    answer = await present(stranger, secret, method, path)
                    assert answer.headers.get("location") == "/admin/sign-in", path
    for method in ("GET", "DELETE"):
        assert (await present(stranger, secret, method, "/admin/api/session")).status_code == 401
    for path in ("/mcp", f"/mcp/{secret}", "/sse"):
        assert (await present(stranger, secret, "POST", path, json={})).status_code == 401
    described = description()["paths"]
    refused = await present(
        stranger, secret, "POST", "/admin/api/session/confirm", json={"password": "x"}
    )
    assert ("/session/confirm" in described, refused.status_code) == (True, 401)


async def test_an_owner_creates_a_token_that_is_shown_once(front):
    new = {"name": "robot", "scopes": ["keys:write", "audit:read"]}
    created = await front.api("POST", "/tokens", json=new)
    secret = created.json()["secret"]
    assert (created.status_code, secret.startswith("pvemcp_admin_")) == (201, True)
    listed = await front.api("GET", "/tokens")
    assert secret not in listed.text
    assert listed.json()[0]["created_by"] == "ada"
    assert secret not in (await front.get("/admin/service-tokens")).text
    (record,) = await front.services.store.service_tokens.all()
    assert secret.encode() not in record.digest
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    assert (entry.tool, secret in str(entry.arguments)) == ("admin.tokens.create", False)


async def test_a_page_creates_and_revokes_a_token(front):
    fields = {"name": "robot", "scopes[]": ["keys:read"], "expires": ""}
    shown = await front.post("/admin/service-tokens", **fields)
    secret = re.search(r"pvemcp_admin_\w+", shown.text)[0]
    (token,) = await front.services.access.service_tokens.all()
    assert token.expires - token.created == timedelta(days=90)
    cookies = dict(front.http.cookies)
    assert (await present(front, secret, "GET", "/admin/api/keys")).status_code == 200
    front.http.cookies = cookies
    assert "just now" in (await front.get("/admin/service-tokens")).text
    await front.post(f"/admin/service-tokens/{token.id}/revoke")
    assert (await present(front, secret, "GET", "/admin/api/keys")).status_code == 401


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["admins:write"]}, "scopes"),
        ({"expires": (datetime.now(UTC) + timedelta(days=400)).isoformat()}, "expires"),
        ({"expires": "2020-01-01T00:00:00Z"}, "expires"),
        ({"name": "/"}, "name"),
    ],
)
async def test_a_wrong_field_of_a_token_is_refused(front, wrong, field):
    new = {"name": "robot", "scopes": ["keys:read"], **wrong}
    refused = await front.api("POST", "/tokens", json=new)
    assert (refused.status_code, field in refused.json()["error"]) == (422, True)
    assert await front.services.access.service_tokens.all() == []


async def test_a_change_by_a_token_names_the_token(stranger):
    secret = await new_token(stranger, "keys:write")
    body = {"name": "laptop", "role": "Operator"}
    made = await present(stranger, secret, "POST", "/admin/api/keys", json=body)
    assert made.status_code == 201  # a program cannot be asked who it is
    await stranger.services.audit.flush()
    (entry,) = await stranger.services.audit.find(limit=1)
    assert (entry.tool, entry.key_name, entry.acting) == (
        "admin.keys.create",
        "token:robot",
        "token:robot",
    )


async def test_a_revoked_or_expired_token_is_refused_at_once_in_every_process(stranger):
    secret = await new_token(stranger, "keys:read")
    store = stranger.services.store
    (token,) = await store.service_tokens.all()
    # another process changes the row, and this one has not noticed anything
    await store.service_tokens.change(token.id, expires=datetime.now(UTC))
    assert (await present(stranger, secret, "GET", "/admin/api/keys")).status_code == 401
    await store.service_tokens.change(token.id, expires=datetime.now(UTC) + timedelta(days=1))
    assert (await present(stranger, secret, "GET", "/admin/api/keys")).status_code == 200
    await store.service_tokens.remove(token.id)
    refused = await present(stranger, secret, "GET", "/admin/api/keys")
    assert refused.json() == {"error": "This service token is unknown, expired or revoked."}


async def test_wrong_tokens_are_limited_and_never_refuse_a_valid_one(stranger):
    secret = await new_token(stranger, "keys:read")
    key = (await stranger.services.access.keys.create("laptop"))[1]
    wrong = (f"{secret[:-1]}{'x' if secret[-1] != 'x' else 'y'}", key)
    wrong += (new_secret(new_id(), SERVICE_PREFIX),)
    statuses = []
    for number in range(30):
        method = ("GET", "POST")[number % 2]
        answer = await present(stranger, wrong[number % 3], method, "/admin/api/keys", json={})
        statuses.append(answer.status_code)
    assert statuses[:20] == [401] * 20
    assert 429 in statuses[20:]
    assert (await present(stranger, secret, "GET", "/admin/api/keys")).status_code == 200
    await stranger.services.audit.flush()
    reasons = [entry.reason for entry in await stranger.services.audit.find() if entry.reason]
    assert len(reasons) <= 22
    assert secret not in str(reasons)


async def test_wrong_tokens_at_its_address_hide_no_use_of_a_known_one(stranger):
    await stranger.services.settings.change({"calls_per_minute_per_address": 1}, by="ada")
    secret = await new_token(stranger, "keys:read", name="robot")
    (token,) = await stranger.services.store.service_tokens.all()
    await stranger.services.store.service_tokens.change(token.id, expires=datetime.now(UTC))
    unknown = new_secret(new_id(), SERVICE_PREFIX)
    forged = new_secret(token.id, SERVICE_PREFIX)
    tries = (unknown, unknown, forged, forged, secret, secret)
    answers = [await present(stranger, each, "GET", "/admin/api/keys") for each in tries]
    assert [answer.status_code for answer in answers] == [401, 429] * 3
    await stranger.services.audit.flush()
    entry = (await stranger.services.audit.find())[0]
    assert (entry.key_name, entry.reason) == ("token:robot", "expired service token")


async def test_a_wrong_token_is_not_replaced_by_the_session(front):
    headers = {"Authorization": f"Bearer {new_secret(new_id(), SERVICE_PREFIX)}"}
    assert (await front.get("/admin/api/keys", headers=headers)).status_code == 401
    assert (await front.get("/admin/api/keys")).status_code == 200


@pytest.mark.parametrize("ended", ["removed", "disabled", "no owner"])
async def test_a_token_ends_with_the_account_of_its_administrator(front, ended):
    admins = front.services.access.admins
    await admins.create("grace", PASSWORD, must_change=False)
    await front.sign_in("grace")
    body = {"name": "robot", "scopes": ["keys:read"]}
    secret = (await front.api("POST", "/tokens", json=body)).json()["secret"]
    session = front.http.cookies["pvemcp_session"]
    assert (await present(front, secret, "GET", "/admin/api/keys")).status_code == 200
    match ended:
        case "removed":
            await admins.remove("grace")
            await admins.create("grace", PASSWORD, must_change=False)
        case "disabled":
            await admins.set_enabled("grace", enabled=False)
        case "no owner":
            await admins.set_role("grace", AdminRole.AUDITOR)
    assert (await present(front, secret, "GET", "/admin/api/keys")).status_code == 401
    if ended != "no owner":
        front.http.cookies["pvemcp_session"] = session
        assert (await front.get("/admin/api/session")).status_code == 401
