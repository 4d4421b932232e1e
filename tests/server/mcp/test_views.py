"""Views of MCP Apps: who is offered them, and what their files may hold."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.extension import advertise
from tests.cases import walk

from pvemcp_server import views
from pvemcp_server.access.model import Grant
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.views.catalog import EXTENSION, MIME_TYPE, VIEWS

MOST_BYTES = 150_000
MOST_TOKENS = 300
CHARACTERS_PER_TOKEN = 3.0  # of JSON; fewer than any tokenizer has
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|"
    r"XMLHttpRequest|WebSocket|localStorage|\bimport\b"
)


# What a message of the user may hold: nothing that a guest or a host of Proxmox chooses
OF_USER = {
    "number + 1", "row.severity", "row.area", "state.tool",  # of this server
    "row.vmid", "guest.vmid", "where", "state.status.cluster",  # numbers, and names of the settings
}  # fmt: skip


VIEWS_SHOWN = advertise(EXTENSION, {"mimeTypes": [MIME_TYPE]})


@pytest.fixture(params=["auto", "legacy"])
async def clients(request, demo_served):
    """Connect a client that shows views and one that does not, in both eras."""
    async with (
        Client(demo_served.mcp, mode=request.param, extensions=[VIEWS_SHOWN]) as shows,
        Client(demo_served.mcp, mode=request.param) as plain,
    ):
        yield shows, plain


@pytest.mark.anyio
async def test_only_clients_that_show_views_pay_for_them(clients):
    shows, plain = clients
    with_views = {tool.name: tool for tool in (await shows.list_tools()).tools}
    without = {tool.name: tool for tool in (await plain.list_tools()).tools}
    for name, tool in with_views.items():
        uri = f"ui://{tools()[name].view}" if tools()[name].view else None
        assert (tool.meta or {}).get("ui", {}).get("resourceUri") == uri
        assert not without[name].meta
    grown = len(json.dumps([tool.meta for tool in with_views.values() if tool.meta]))
    assert grown / CHARACTERS_PER_TOKEN < MOST_TOKENS

    call = ("ListVms", {"cluster_name": "home-lab"})
    shown, without_view = await shows.call_tool(*call), await plain.call_tool(*call)
    assert [block.text for block in shown.content] == [block.text for block in without_view.content]
    assert without_view.structured_content is None
    assert {"columns", "rows", "notes", "tool", "tools"} == set(shown.structured_content)
    named = json.loads(shown.content[0].text)["data"]
    assert shown.structured_content["columns"] == named["headers"]
    assert len(shown.structured_content["rows"]) == len(named["rows"])
    assert (await shows.call_tool("ListPools", {})).structured_content is None


@pytest.mark.anyio
async def test_a_view_is_read_like_a_resource(clients):
    shows, plain = clients
    offered = {str(each.uri): each for each in (await shows.list_resources()).resources}
    assert {view.uri for view in VIEWS.values()} <= set(offered)
    assert not any(
        str(each.uri).startswith("ui:") for each in (await plain.list_resources()).resources
    )
    for view in VIEWS.values():
        (page,) = (await shows.read_resource(view.uri)).contents
        assert (page.mime_type, page.text) == (MIME_TYPE, view.html)
    with pytest.raises(MCPError, match="Resource not found"):
        await shows.read_resource("ui://nothing")


@pytest.mark.anyio
async def test_a_view_of_tools_that_are_not_granted_does_not_exist(demo_served):
    await demo_served.state.access.roles.create("one", [Grant(frozenset({"ListVms"}))])
    key = await demo_served.new_key("one", role="one")
    async with Client(f"{demo_served.url}/mcp/{key}", extensions=[VIEWS_SHOWN]) as client:
        listed = [str(each.uri) for each in (await client.list_resources()).resources]
        assert [uri for uri in listed if uri.startswith("ui:")] == ["ui://inventory"]
        with pytest.raises(MCPError, match="Resource not found"):
            await client.read_resource("ui://plan")
        answer = await client.call_tool("ListVms", {})
        assert answer.structured_content["tools"] == ["ListVms"]


def test_each_view_of_a_tool_exists_and_each_view_has_a_tool():
    assert {tool.view for tool in tools().values() if tool.view} == set(VIEWS)


@walk("name", sorted(VIEWS))
def test_a_view_is_one_small_file_that_sends_no_request_and_writes_no_markup(name):
    page = VIEWS[name].html
    assert len(page.encode()) < MOST_BYTES
    assert page.count("<script") == page.count("</script") == 1
    assert page.count("<style") == page.count("</style") == 1
    assert not re.search(r"""(src|href)\s*=\s*["']""", page)
    assert "default-src 'none'" in page
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; style-src" in page
    ours = page.replace((files(views) / "files" / "uplot.min.js").read_text().strip(), "")
    assert not FORBIDDEN.search(ours)


def test_no_text_of_a_guest_becomes_a_message_of_the_user():
    folder = files(views) / "files"
    scripts = [each.read_text() for each in folder.iterdir() if each.name.endswith(".js")]
    asked = [line for script in scripts for line in re.findall(r"(?<![\w.])ask\(.*", script)]
    messages = [re.match(r"ask\((`.*?\.?`)\)\.(?:catch|then)\(", line) for line in asked]
    assert [line for line, found in zip(asked, messages, strict=True) if not found] == [
        "ask(text) {"
    ]
    parts = " ".join(found[1] for found in messages if found)
    held = set(re.findall(r"\$\{([^{}?]+)\}", parts))
    assert held == OF_USER
