"""The page Bridge and the dialog of a key: the right file and configuration for the visitor."""

import html
import io
import json
import re
import zipfile
from hashlib import sha256

import pytest

from pvemcp_server.admin.client_setup import CLIENTS, Connection

pytestmark = pytest.mark.anyio
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/150.0"
MACOS = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1"
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
CONFIG = "/admin/bridge/claude_desktop_config.json"


async def desktop_entry(front, agent):
    """Return the entry for Claude Desktop that a visitor downloads."""
    config = (await front.get(CONFIG, headers={"User-Agent": agent})).json()
    return config["mcpServers"]["pvemcp"]


@pytest.mark.parametrize(
    ("agent", "title", "command"),
    [
        (WINDOWS, "Windows", ["py", "C:\\full\\path\\pvemcp-bridge.pyz"]),
        (MACOS, "macOS", ["python3", "/full/path/pvemcp-bridge.pyz"]),
        (LINUX, "Linux", ["python3", "/full/path/pvemcp-bridge.pyz"]),
        ("curl/8.0", "Linux", ["python3", "/full/path/pvemcp-bridge.pyz"]),
    ],
)
async def test_the_system_of_the_visitor_comes_first(front, agent, title, command):
    page = (await front.get("/admin/bridge", headers={"User-Agent": agent})).text
    assert re.search(r'role="tab"[^>]*aria-selected="true"[^>]*>([^<]+)<', page)[1] == title
    entry = await desktop_entry(front, agent)
    assert [entry["command"], *entry["args"]] == command


async def test_a_binary_of_the_visitors_system_is_preferred(front):
    folder = front.services.config.state_dir / "downloads"
    folder.mkdir()
    (folder / "pvemcp-bridge-osx-x64").write_bytes(b"binary")
    page = (await front.get("/admin/bridge", headers={"User-Agent": MACOS})).text
    assert "com.apple.quarantine pvemcp-bridge-osx-x64\n./pvemcp-bridge-osx-x64 install" in page
    entry = await desktop_entry(front, MACOS)
    assert entry["command"] == "/full/path/pvemcp-bridge-osx-x64"
    assert entry["args"] == []
    assert (await desktop_entry(front, WINDOWS))["command"] == "py"


async def test_the_address_of_the_visitor_is_in_every_configuration(front):
    host = {"Host": "192.0.2.7:8811"}
    url = f"http://{host['Host']}/mcp"
    page = html.unescape((await front.get("/admin/bridge", headers=host)).text)
    assert f'"MCP_URL": "{url}"' in page
    assert f"--url {url} --api-key YOUR-API-KEY" in page
    assert url in (await front.get("/admin/keys", headers=host)).text
    download = await front.get("/admin/bridge/download/pvemcp-bridge.mcpb", headers=host)
    with zipfile.ZipFile(io.BytesIO(download.content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["user_config"]["url"]["default"] == url
    assert sha256(download.content).hexdigest() in page
    headers = {**host, "X-CSRF-Token": front.csrf, "HX-Request": "true"}
    dialog = await front.http.post("/admin/keys", data={"name": "lan"}, headers=headers)
    text = html.unescape(dialog.text)
    assert f'"MCP_URL": "{url}"' in text
    assert f'"serverUrl": "{url}"' in text
    assert "localhost" not in text


async def test_the_dialog_of_a_new_key_has_each_client_with_its_ways(front):
    dialog = html.unescape((await front.post("/admin/keys", name="laptop")).text)
    secret = re.search(r'id="shown-key">([^<]+)<', dialog)[1]
    url = re.search(r'id="shown-url">([^<]+)<', dialog)[1].removesuffix(f"/{secret}")
    connection = Connection(url, secret)
    for client in CLIENTS.values():
        assert f'aria-controls="panel-{client.name}"' in dialog
        assert client.place in dialog
        assert client.command_line(connection) in dialog
        assert client.link is None or f'href="{client.link(connection)}"' in dialog
        assert client.remote is None or client.text(connection, bridged=False) in dialog


async def test_the_files_of_the_api_are_those_of_its_list(front):
    for each in (await front.api("GET", "/bridge")).json()[:2]:
        found = await front.api("GET", f"/bridge/{each['name']}")
        assert sha256(found.content).hexdigest() == each["sha256"]
        assert len(found.content) == each["size"]
