"""Every page needs a session, and every change the session's CSRF token."""

import re

import pytest

from pvemcp_server.web.oauth.session import DEVICE as PERSON_DEVICE
from pvemcp_server.web.oauth.session import SESSION as PERSON_SESSION
from pvemcp_server.web.pages import routers
from pvemcp_server.web.session import CONNECT, DEVICE, SESSION, own_writing, writing

from .conftest import PASSWORD
from .description import description

pytestmark = pytest.mark.anyio

PUBLIC = {"/sign-in", "/sign-in/second-factor", "/sign-in/passkey", "/endpoint"}


def operations():
    """Yield every route of the pages, with its parameters filled in."""
    for router in routers(has_issuer=False):
        for route in router.routes:
            for method in route.methods:
                yield method, re.sub(r"\{\w+\}", "1", route.path)


def api_operations():
    """Yield every operation of the API; made in a test, for not every worker needs them."""
    for path, methods in sorted(description()["paths"].items()):
        for method in methods:
            if (method, path) != ("post", "/session"):
                yield method.upper(), re.sub(r"\{\w+\}", "x", path)


PAGES = sorted(operation for operation in operations() if operation[1] not in PUBLIC)


async def test_a_page_without_a_session_redirects_to_the_sign_in(stranger):
    for method, path in PAGES:
        answer = await stranger.http.request(method, f"/admin{path}")
        assert (answer.status_code, answer.headers.get("location")) == (303, "/admin/sign-in"), path


async def test_the_api_answers_401_without_a_session(stranger):
    for method, path in api_operations():
        answer = await stranger.http.request(method, f"/admin/api{path}", json={})
        assert (answer.status_code, answer.json()) == (401, {"error": "Sign in first."}), path


async def test_no_body_is_read_without_a_session(stranger):
    async def receive():
        raise AssertionError("the body was read")

    changes = [(method, f"/admin{path}") for method, path in PAGES if method == "POST"]
    changes += [
        (method, f"/admin/api{path}") for method, path in api_operations() if method != "GET"
    ]
    assert len(changes) > 50
    for method, path in changes:
        statuses = []

        async def send(message, statuses=statuses):
            statuses.append(message.get("status"))

        headers = [(b"host", b"localhost"), (b"content-length", b"9")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
        await stranger.app.asgi(scope, receive, send)
        assert statuses[0] in (303, 401), path


async def test_a_form_without_the_csrf_token_changes_nothing(front):
    forms = [page for page in PAGES if page[0] == "POST"]
    assert len(forms) > 20
    for method, path in forms:
        answer = await front.http.request(method, f"/admin{path}")
        assert answer.status_code in (403, 422), path  # a missing field may be reported first
    await front.services.audit.flush()
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]


def test_every_form_depends_on_the_csrf_check():
    # a form without its fields, as above, may be refused for these before its token is read
    checked_inside = {"/sign-out", "/password", "/confirm"}
    for router in routers(has_issuer=False):
        for route in router.routes:
            checks = {writing, own_writing} & set(calls_of(route.dependant))
            exempt = route.path in PUBLIC | checked_inside or route.methods == {"GET"}
            assert bool(checks) != exempt, route.path


def calls_of(dependant):
    for each in dependant.dependencies:
        yield each.call
        yield from calls_of(each)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/sign-out", {}),
        ("/password", {"current": PASSWORD, "new": "another horse", "again": "another horse"}),
        ("/confirm", {"password": PASSWORD}),
    ],
)
async def test_a_complete_form_without_the_csrf_token_changes_nothing(front, path, fields):
    await front.forget_proof()
    front.csrf = ""
    answer = await front.http.post(f"/admin{path}", data=fields)
    assert answer.status_code == 403
    await front.services.audit.flush()
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]
    assert (await front.sign_in()).status_code == 201


async def test_the_api_refuses_a_change_without_the_csrf_token(front):
    changes = [operation for operation in api_operations() if operation[0] != "GET"]
    assert len(changes) > 20
    for method, path in changes:
        answer = await front.http.request(method, f"/admin/api{path}", json={})
        assert answer.status_code in (403, 422), path
        assert answer.json().keys() == {"error"}
    await front.services.audit.flush()
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]


CHARSETS = ["utf-8", "punycode", "undefined", "raw_unicode_escape"]


@pytest.mark.parametrize("charset", CHARSETS)
async def test_no_form_is_read_in_a_character_set_of_the_client(front, stranger, charset):
    # Python decodes 200 KiB of punycode in 3 s, in which no other request is served
    body = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\\ud800-b9\r\n--x--\r\n'
    headers = {"Content-Type": f"Multipart/form-data; boundary=x; charset={charset}"}
    posts = [path for method, path in operations() if method == "POST"]
    for path in [f"/admin{path}" for path in posts] + ["/admin/api/session", "/admin/api/keys"]:
        answer = await front.http.request("POST", path, content=body, headers=headers)
        assert answer.status_code == 415, path
    answer = await stranger.http.request("POST", "/admin/sign-in", content=body, headers=headers)
    assert answer.status_code == 415


async def test_a_csrf_token_of_another_session_is_refused(open_front):
    async with open_front() as front:
        await front.sign_in()
        first = front.csrf
        await front.sign_in()
        assert front.csrf != first
        front.csrf = first
        refused = await front.api("POST", "/keys", json={"name": "mine"})
    assert refused.status_code == 403


OWN_ACCOUNT = ("/account", "/confirm", "/password", "/sign-out")


@pytest.mark.parametrize("due", ["password", "second factor"])
async def test_nothing_opens_before_what_is_due(stranger, due):
    """Walk every route but those of the own account with a session and its CSRF token."""
    access, password = stranger.services.access, "correct horse battery"
    if due == "password":
        password = await access.admins.reset_password("ada")
    else:
        required = {"require_second_factor": True}
        await stranger.services.settings.change(required, by="ada")
    await stranger.sign_in(password=password)
    headers = {"X-CSRF-Token": stranger.csrf}
    leads_to = {"password": "/admin/password", "second factor": "/admin/account"}[due]
    rest = [each for each in api_operations() if not each[1].startswith("/session")]
    for method, path in PAGES:
        if not path.startswith(OWN_ACCOUNT) or path.startswith("/account/sessions"):
            answer = await stranger.http.request(method, f"/admin{path}", headers=headers)
            location = answer.headers.get("location")
            assert (answer.status_code, location) == (303, leads_to), (method, path)
    for method, path in [*rest, ("GET", "/openapi.json")]:
        answer = await stranger.api(method, path, json={})
        assert (answer.status_code, f"{due} first" in answer.json()["error"]) == (403, True), path


async def test_a_one_time_password_only_allows_changing_it(stranger):
    shown = await stranger.services.access.admins.reset_password("ada")
    assert (await stranger.sign_in(password=shown)).json()["must_change"]
    page = await stranger.get("/admin/keys")
    program = await stranger.get("/admin/api/keys")
    assert (page.status_code, page.headers["location"]) == (303, "/admin/password")
    assert program.status_code == 403
    same = await stranger.post("/admin/password", current=shown, new=shown, again=shown)
    assert "choose another" in same.text
    fields = {"current": shown, "new": "another long password", "again": "another long password"}
    changed = await stranger.post("/admin/password", **fields)
    assert changed.headers["location"] == "/admin/"
    assert (await stranger.get("/admin/keys")).status_code == 200


async def test_the_form_signs_in_and_out(stranger):
    fields = {"name": "ada", "password": "correct horse battery"}
    signed_in = await stranger.http.post("/admin/sign-in", data=fields)
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/admin/")
    page = await stranger.get("/admin/")
    token = re.search(r'"X-CSRF-Token": "(\w+)"', page.text)[1]
    await stranger.http.post("/admin/sign-out", data={"csrf": token})
    assert (await stranger.get("/admin/")).status_code == 303


async def test_a_wrong_current_password_changes_nothing_and_is_audited(front):
    new = "correct horse battery 2"
    answer = await front.post("/admin/password", current="wrong", new=new, again=new)
    assert "The current password is wrong." in answer.text
    await front.services.audit.flush()
    (entry,) = await front.services.audit.find(limit=1)
    assert (entry.tool, entry.outcome) == ("admin.admins.change_password", "refused")
    assert (await front.sign_in()).status_code == 201


async def test_a_wrong_password_and_an_unknown_name_get_one_answer(stranger):
    answers = [
        await stranger.http.post("/admin/sign-in", data={"name": name, "password": "wrong"})
        for name in ("ada", "unknown")
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].text.replace("ada", "unknown") == answers[1].text


@pytest.mark.parametrize(
    ("path", "body"), [("/admin/sign-in", "data"), ("/admin/api/session", "json")]
)
async def test_too_many_sign_ins_get_429_and_a_known_browser_goes_on(front, path, body):
    """Guess at the address of a browser that has signed in before, then use that browser."""
    wrong = {"name": "ada", "password": "wrong"}
    cookies = dict(front.http.cookies)
    assert "pvemcp_device" in cookies
    front.http.cookies.clear()
    answers = [await front.http.post(path, **{body: wrong}) for _ in range(6)]
    assert [answer.status_code for answer in answers[:-1]] == [answers[0].status_code] * 5
    assert answers[-1].status_code == 429
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 30
    assert "Too many attempts: try again in" in answers[-1].text
    right = {"name": "ada", "password": "correct horse battery"}
    assert (await front.http.post(path, **{body: right})).status_code == 429
    front.http.cookies.set("pvemcp_device", cookies["pvemcp_device"])
    assert (await front.http.post(path, **{body: right})).status_code in (201, 303)


@pytest.mark.parametrize(
    ("path", "body"), [("/admin/sign-in", "data"), ("/admin/api/session", "json")]
)
async def test_sign_ins_and_refusals_are_audited(stranger, path, body):
    """Record the name of an administrator only: another may be a password in the wrong field."""
    for name, password in [
        ("ada", "wrong"),
        ("correct horse battery", "wrong"),
        ("ada", "correct horse battery"),
    ]:
        await stranger.http.post(path, **{body: {"name": name, "password": password}})
    await stranger.services.audit.flush()
    found = await stranger.services.audit.find()
    assert {one.tool for one in found} == {"admin.sign_in"}
    assert sorted((one.outcome, str(one.key_name)) for one in found) == [
        ("ok", "ada"),
        ("refused", "None"),
        ("refused", "ada"),
    ]


async def test_a_sign_out_is_audited(stranger):
    await stranger.sign_in()
    await stranger.api("DELETE", "/session")
    await stranger.sign_in()
    await stranger.post("/admin/sign-out")
    found = [(entry.tool, entry.key_name) for entry in await stranger.services.audit.find()]
    assert found == [("admin.sign_out", "ada"), ("admin.sign_in", "ada")] * 2


async def test_no_value_of_a_cookie_breaks_a_page(stranger):
    # another site at this host can set them
    for name in (SESSION, DEVICE, CONNECT, PERSON_SESSION, PERSON_DEVICE):
        for value in (b"\xff", b"a=%ff", b'"\\377"', b"x.\xb2.y"):
            headers = [(b"cookie", name.encode() + b"=" + value)]
            for path in ("/admin/sign-in", "/admin/connect", "/admin/"):
                answer = await stranger.http.get(path, headers=headers)
                assert answer.status_code < 500, (name, value, path)


@pytest.mark.parametrize(
    ("url", "secure"), [("https://mcp.example", True), ("http://127.0.0.1:8811", False)]
)
async def test_the_session_cookie_is_httponly_and_strict(open_front, url, secure):
    async with open_front(public_url=url) as front:
        cookie = (await front.sign_in()).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    name = "__host-pvemcp_session=" if secure else "pvemcp_session="
    assert cookie.startswith(name)
    assert f"path={'/' if secure else '/admin'};" in cookie
    assert ("secure" in cookie) is secure


async def test_over_https_the_host_cookie_signs_in_and_out(open_front):
    async with open_front(public_url="https://localhost") as front:
        front.http.base_url = "https://localhost"
        assert (await front.sign_in()).headers["strict-transport-security"] == "max-age=31536000"
        assert (await front.api("GET", "/keys")).status_code == 200
        ended = (await front.api("DELETE", "/session")).headers["set-cookie"]
        assert ended.startswith('__Host-pvemcp_session="";')
        assert "Secure" in ended
        assert (await front.api("GET", "/keys")).status_code == 401


async def test_hsts_is_not_sent_over_http(stranger):
    assert "strict-transport-security" not in (await stranger.get("/admin/sign-in")).headers


async def test_every_answer_has_a_strict_content_security_policy(front):
    for path in ("/admin/", "/admin/api/keys", "/admin/static/style.css"):
        headers = (await front.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert (await front.get("/admin/keys")).headers["cache-control"] == "no-store"


async def test_a_page_that_may_call_the_endpoint_calls_nothing_else(open_front):
    async with open_front(allowed_origins=("https://chat.example",)) as front:
        headers = {"Origin": "https://chat.example"}
        for path in ("/admin/sign-in", "/admin/api/session", "/version"):
            answer = await front.http.post(path, headers=headers, data={"name": "ada"})
            assert (answer.status_code, "origin" in answer.text) == (403, True)
        answer = await front.http.post("/mcp", headers=headers, json={})
        assert answer.status_code == 503
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"


async def test_a_form_from_another_origin_is_refused(front):
    headers = {"Origin": "https://evil.example", "X-CSRF-Token": front.csrf}
    refused = await front.http.post("/admin/keys", data={"name": "x"}, headers=headers)
    assert refused.status_code == 403


@pytest.mark.parametrize("path", ["/", "/admin"])
async def test_the_redirect_to_the_pages_names_no_scheme(stranger, path):
    answer = await stranger.get(path)
    assert (answer.status_code, answer.headers["location"]) == (307, "/admin/")
    assert "location" not in (await stranger.get("/admin/keys/")).headers
