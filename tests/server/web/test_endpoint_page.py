"""A browser at the endpoint gets a page that describes it, and the key leaves its address."""

import pytest

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/pvemcp_00000000_x", "/mcp/wrong/", "/sse/wrong"])
async def test_a_browser_is_led_to_a_page_without_the_key(front, path):
    answer = await front.http.get(path, headers=BROWSER)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/endpoint")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "wrong" not in answer.text


async def test_the_page_names_the_address_that_the_browser_used(front):
    answer = await front.http.get("/admin/endpoint", headers=BROWSER)
    assert answer.status_code == 200
    assert f"{str(front.http.base_url).rstrip('/')}/mcp</code>" in answer.text
    assert "switched off" in answer.text
    await front.services.settings.change({"enabled": True}, by="test")
    again = await front.http.get("/admin/endpoint", headers=BROWSER)
    assert "switched off" not in again.text
    assert "add it as a connector" in again.text


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "*/*", ""])
async def test_a_program_gets_its_usual_answer(front, accept):
    await front.services.settings.change({"enabled": True}, by="test")
    answer = await front.http.get("/mcp", headers={"Accept": accept})
    assert answer.status_code == 401
