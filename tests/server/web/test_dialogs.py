"""The dialogs of the pages: questions, what is shown once, the wait for a key's first call."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from pvemcp_server.web import templates
from pvemcp_server.web.static_files import FOLDER

TEMPLATES = {path.name: path.read_text() for path in (templates.HERE / "templates").iterdir()}
SCRIPT = (FOLDER / "pages.js").read_text()
pytestmark = pytest.mark.anyio


async def test_no_page_uses_a_dialog_of_the_browser():
    native = re.compile(r"(?<![\w.])(confirm|alert|prompt)\(|hx-prompt")
    texts = TEMPLATES | {"pages.js": SCRIPT}
    assert [name for name, text in texts.items() if native.search(text)] == []


async def test_each_question_ends_its_title_with_a_question_mark():
    every = "\n".join(TEMPLATES.values())
    questions = re.findall(r"hx-confirm='([^']*)'|hx-confirm=\"((?:{{.*?}}|[^\"])*)", every)
    assert len(questions) > 10
    assert [question for question in questions if "?" not in "".join(question)] == []


async def test_what_is_shown_once_is_closed_by_its_own_button_only():
    shown = {
        name: text
        for name, text in TEMPLATES.items()
        if "only time" in text or "shown only" in text
    }
    assert {"key_shown.html", "account_codes.html", "webhook_shown.html"} <= set(shown)
    for name, text in shown.items():
        assert re.search(r'<dialog data-now data-once [^>]*closedby="none"', text), name
        assert text.count("data-close") == 1, name
        assert 'class="once-hint' in text, name


async def test_turning_the_endpoint_off_asks_and_turning_it_on_does_not(front):
    await front.post("/admin/overview/endpoint", enabled="true")
    assert "hx-confirm=" in (await front.get("/admin/")).text
    off = await front.post("/admin/overview/endpoint", enabled="false")
    assert "hx-confirm=" not in off.text


async def test_the_first_call_of_a_key_is_waited_for(front):
    shown = await front.post("/admin/keys", name="laptop", role="Read-only")
    path = re.search(r'hx-get="(/admin/keys/[^"]*/first-call\?since=[^"]*)"', shown.text)[1]
    assert (await front.get(path)).status_code == 204
    (key,) = await front.services.access.keys.all()
    uses = {key.id: (datetime.now(UTC), "192.0.2.7")}
    await front.services.store.keys.record_uses(uses)
    connected = await front.get(path)
    assert connected.status_code == 286  # htmx asks no more
    assert "192.0.2.7" in connected.text


async def test_the_wait_for_a_first_call_ends(front):
    await front.post("/admin/keys", name="laptop", role="Read-only")
    (key,) = await front.services.access.keys.all()
    since = quote((datetime.now(UTC) - timedelta(minutes=11)).isoformat())
    ended = await front.get(f"/admin/keys/{key.id}/first-call?since={since}")
    assert ended.status_code == 286
    assert "No call came" in ended.text
    assert (await front.get(f"/admin/keys/{key.id}/first-call?since=yesterday")).status_code == 422
