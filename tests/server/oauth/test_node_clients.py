"""Clients of Node.js sign in: the TypeScript SDKs, mcp-remote and the inspector."""

import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import STDOUT

import anyio
import pytest
from anyio.streams.text import TextReceiveStream
from tests.ports import free_port

from pvemcp_server.oauth.scopes import Scope

from .consent import consenting

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "tests" / "npm" / "oauth.mjs"
INSPECTOR = "clients/launcher/build/index.js"
SECONDS = 60
pytestmark = [pytest.mark.anyio, pytest.mark.node]


@pytest.fixture
def consent(served):
    with consenting(served) as consent:
        yield consent


async def run(node_tools, url, transport, **environment):
    """Run the script; return what it has seen."""
    command = [node_tools.node(), SCRIPT, node_tools.folder(), url, transport]
    with anyio.fail_after(SECONDS):
        done = await anyio.run_process(
            [str(part) for part in command], check=False, env=os.environ | environment
        )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["http", "modern"], ids=["version-1", "version-2"])
async def test_the_typescript_sdk_signs_in_refreshes_and_steps_up(
    node_tools, served, consent, fake_tools, transport
):
    seen = await run(node_tools, f"{served.url}/mcp", transport)
    assert "error" not in seen, seen
    assert [json.loads(text)["data"]["vmid"] for text in seen["texts"]] == [101] * 3
    assert seen["refreshed"]
    first, second = (set(scope.split()) for scope in seen["scopes"])
    assert {*Scope} <= first
    assert {"pve:read", "pve:write"} <= second
    assert fake_tools.done == ["Start thing 101."]
    assert {asked["resource"] for asked in consent.asked} == {f"{served.url}/mcp"}


@pytest.mark.parametrize("transport", ["http", "sse", "modern"])
async def test_the_typescript_sdk_shows_our_words_for_a_wrong_key(
    node_tools, served, consent, transport
):
    path = "/sse" if transport == "sse" else "/mcp"
    seen = await run(node_tools, served.url + path, transport, CREDENTIAL="pvemcp_wrong")
    assert "The API key is wrong" in seen["error"]
    assert consent.asked == []
    assert await served.state.store.oauth_clients.all() == []


@asynccontextmanager
async def remote(node_tools, url, home, *options):
    """Run mcp-remote; yield how to send it a message and read its answers, and what it prints."""
    command = [*node_tools.script("mcp-remote", "dist/proxy.js"), url, str(free_port()), *options]
    environment = os.environ | {"MCP_REMOTE_CONFIG_DIR": str(home), "BROWSER": "true"}
    async with await anyio.open_process(command, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


async def authorization_url(process):
    """Return the URL that the program asks its user to open."""
    printed = ""
    async for line in TextReceiveStream(process.stderr):
        printed += line
        if found := re.search(r"https?://\S+/oauth/authorize\?\S+", printed):
            return found[0]
    raise AssertionError(printed)


async def answer_of(process, number, method, **params):
    """Send a request to the program; return the answer."""
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    await process.stdin.send(json.dumps(message).encode() + b"\n")
    received = ""
    async for text in TextReceiveStream(process.stdout):
        received += text
        for line in received.splitlines():
            if line.endswith("}") and json.loads(line).get("id") == number:
                return json.loads(line)
    raise AssertionError(received)


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "x", "version": "1"},
}


async def test_mcp_remote_signs_in_and_calls(node_tools, served, consent, tmp_path):
    with anyio.fail_after(SECONDS):
        async with remote(node_tools, f"{served.url}/mcp", tmp_path) as process:
            url = await authorization_url(process)
            called_back = await served.http.get(url, follow_redirects=True)
            assert called_back.status_code == 200
            opened = await answer_of(process, 1, "initialize", **INITIALIZE)
            assert opened["result"]["serverInfo"]["name"] == "pvemcp"
            call = {"name": "GetThing", "arguments": {"vmid": 101}}
            called = await answer_of(process, 2, "tools/call", **call)
    assert '"vmid":101' in called["result"]["content"][0]["text"]
    assert "pve:read" in consent.asked[0]["scope"]


async def test_mcp_remote_shows_our_words_for_a_wrong_key(node_tools, served, consent, tmp_path):
    header = ["--header", "X-API-Key:pvemcp_wrong"]
    printed = ""
    with anyio.fail_after(SECONDS):
        async with remote(node_tools, f"{served.url}/mcp", tmp_path, *header) as process:
            async for text in TextReceiveStream(process.stderr):
                printed += text
                if "The API key is wrong" in printed:
                    break
    assert "The API key is wrong" in printed
    assert consent.asked == []


async def inspector(node_tools, served, home, era, *options):
    """Run the inspector's command line for one call, with the user's part; return its output."""
    command = node_tools.script("@modelcontextprotocol/inspector", INSPECTOR)
    command += ["--cli", f"{served.url}/mcp", "--transport", "http", "--protocol-era", era]
    command += ["--method", "tools/call", "--tool-name", "GetThing", "--tool-arg", "vmid=101"]
    environment = {
        "HOME": str(home),
        "MCP_INSPECTOR_SECRET_STORE": "memory",
        "MCP_AUTO_OPEN_ENABLED": "true",
        "BROWSER": "true",
    }
    opened, printed = [], ""
    with anyio.fail_after(SECONDS):
        async with await anyio.open_process(
            [*command, *options], env=os.environ | environment, stderr=STDOUT
        ) as process:
            async for text in TextReceiveStream(process.stdout):
                printed += text
                found = re.search(r"http\S+/oauth/authorize\?\S+", printed)
                if found and not opened:
                    opened.append(await served.http.get(found[0], follow_redirects=True))
    return printed


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_signs_in_and_calls(node_tools, served, consent, tmp_path, era):
    printed = await inspector(node_tools, served, tmp_path, era)
    assert '\\"vmid\\":101' in printed
    assert len(consent.asked) == 1


async def test_the_inspector_shows_our_words_for_a_wrong_key(node_tools, served, consent, tmp_path):
    header = ("--header", "X-API-Key: pvemcp_wrong")
    assert "The API key is wrong" in await inspector(
        node_tools, served, tmp_path, "modern", *header
    )
    assert consent.asked == []
