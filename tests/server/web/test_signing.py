"""Nobody gets in without signing in, and nothing is changed from a page that is not ours."""

import re

import pytest

from pvemcp_server.config import Config
from pvemcp_server.web.api import create_api
from pvemcp_server.web.pages import routers

pytestmark = pytest.mark.anyio

OPEN = {"/sign-in"}


def operations():
    """Every route of the pages, with something in place of its parameters."""
    for router in routers(Config()):
        for route in router.routes:
            for method in route.methods:
                yield method, re.sub(r"\{\w+\}", "1", route.path)


def api_operations():
    for path, methods in create_api().openapi()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{\w+\}", "x", path)


PAGES = sorted(one for one in operations() if one[1] not in OPEN)
API = sorted(one for one in api_operations() if one != ("POST", "/session"))


async def test_a_page_leads_the_signed_out_to_the_sign_in(stranger):
    for method, path in PAGES:
        answer = await stranger.http.request(method, f"/admin{path}")
        assert (answer.status_code, answer.headers.get("location")) == (303, "/admin/sign-in"), path


async def test_the_api_answers_the_signed_out_with_401(stranger):
    for method, path in API:
        answer = await stranger.http.request(method, f"/admin/api{path}", json={})
        assert (answer.status_code, answer.json()) == (401, {"error": "Sign in first."}), path


async def test_a_form_without_the_token_changes_nothing(front):
    forms = [one for one in PAGES if one[0] == "POST"]
    assert len(forms) > 20
    for method, path in forms:
        answer = await front.http.request(method, f"/admin{path}")
        assert answer.status_code in (403, 422), path  # a missing field may be told first
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]


async def test_the_api_refuses_a_change_without_the_token(front):
    changes = [one for one in API if one[0] != "GET"]
    assert len(changes) > 20
    for method, path in changes:
        answer = await front.http.request(method, f"/admin/api{path}", json={})
        assert answer.status_code in (403, 422), path
        assert answer.json().keys() == {"error"}
    assert [entry.tool for entry in await front.services.audit.find()] == ["admin.sign_in"]


async def test_a_token_of_another_session_is_refused(open_front):
    async with open_front() as front:
        await front.sign_in()
        first = front.csrf
        await front.sign_in()
        assert front.csrf != first
        front.csrf = first
        refused = await front.api("POST", "/keys", json={"name": "mine"})
    assert refused.status_code == 403


async def test_a_one_time_password_opens_nothing_but_the_change_of_it(stranger):
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


async def test_a_wrong_password_and_an_unknown_name_are_answered_alike(stranger):
    answers = [
        await stranger.http.post("/admin/sign-in", data={"name": name, "password": "wrong"})
        for name in ("ada", "nobody")
    ]
    assert [one.status_code for one in answers] == [403, 403]
    assert answers[0].text.replace("ada", "nobody") == answers[1].text


@pytest.mark.parametrize(
    ("path", "body"), [("/admin/sign-in", "data"), ("/admin/api/session", "json")]
)
async def test_sign_ins_and_refused_ones_are_on_record(stranger, path, body):
    """By name, unless it is no administrator's: that may be a password in the wrong field."""
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


@pytest.mark.parametrize(
    ("url", "secure"), [("https://mcp.example", True), ("http://127.0.0.1:8811", False)]
)
async def test_the_cookie_is_kept_from_scripts_and_other_sites(open_front, url, secure):
    async with open_front(public_url=url) as front:
        cookie = (await front.sign_in()).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/admin" in cookie
    assert ("secure" in cookie) is secure


async def test_every_answer_carries_a_strict_policy(front):
    for path in ("/admin/", "/admin/api/keys", "/admin/static/style.css"):
        headers = (await front.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert (await front.get("/admin/keys")).headers["cache-control"] == "no-store"


async def test_a_page_of_another_origin_may_not_post_here(front):
    headers = {"Origin": "https://evil.example", "X-CSRF-Token": front.csrf}
    refused = await front.http.post("/admin/keys", data={"name": "x"}, headers=headers)
    assert refused.status_code == 403


@pytest.mark.parametrize("path", ["/", "/admin"])
async def test_the_way_to_the_pages_names_no_scheme_for_a_proxy_may_add_tls(stranger, path):
    answer = await stranger.get(path)
    assert (answer.status_code, answer.headers["location"]) == (307, "/admin/")
    assert "location" not in (await stranger.get("/admin/keys/")).headers
