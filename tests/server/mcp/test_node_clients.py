"""The TypeScript SDK as a program of its own."""

import json
from pathlib import Path

import anyio
import pytest

REPOSITORY = Path(__file__).parents[3]
pytestmark = [pytest.mark.anyio, pytest.mark.node]


async def output(*command):
    """Run a program, which must exit with 0; return its output."""
    with anyio.fail_after(60):
        done = await anyio.run_process([str(part) for part in command], check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("transport", "version"),
    [("http", "a session"), ("sse", "a session"), ("modern", "2026-07-28")],
    ids=["version-1-http", "version-1-sse", "version-2"],
)
async def test_the_typescript_sdk_gets_the_whole_product(
    node_tools, served, fake_tools, transport, version
):
    url = f"{served.url}/sse/{served.key}" if transport == "sse" else served.mcp
    script = REPOSITORY / "tests" / "npm" / "client.mjs"
    seen = json.loads(await output(node_tools.node(), script, node_tools.folder(), url, transport))
    assert seen == {
        "version": version,
        "server": "pvemcp",
        "tools": list(fake_tools.tools),
        "called": '{"data":{"vmid":101,"name":"web","cpu_usage":12.3}}',
        "asked": ["Delete thing 101.", "Delete thing 102."],
        "deleted": '{"data":{"success":true,"vmid":101}}',
        "kept": "The user declined; nothing was changed.",
        "progress": ["step 1"],
        "cancelled": True,
    }
    assert fake_tools.done == ["Delete thing 101."]
    with anyio.fail_after(20):
        await fake_tools.cancelled.wait()
