"""Clients of Node.js sign in: the TypeScript SDKs, and mcp-remote as a program of its own."""

import json
import os
from pathlib import Path

import anyio
import pytest

from .consent import consenting

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "tests" / "npm" / "oauth.mjs"
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
    assert "pve:read" in first
    assert "pve:write" not in first
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
