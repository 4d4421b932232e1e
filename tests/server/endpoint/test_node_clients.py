"""The TypeScript SDK and the inspector's command line, as programs of their own."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import anyio
import pytest

REPOSITORY = Path(__file__).parents[3]
PATH = "clients/launcher/build/index.js"
pytestmark = [pytest.mark.anyio, pytest.mark.node]


@pytest.fixture(scope="module")
def node_tools():
    if shutil.which("npm") is None:
        pytest.skip("no npm: the clients come from there")
    spec = importlib.util.spec_from_file_location(
        "node_tools", REPOSITORY / "scripts" / "node_tools.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["node_tools"] = module
    spec.loader.exec_module(module)
    module.installed()
    return module


async def output(*command):
    """What a program prints; it has to end well."""
    with anyio.fail_after(60):
        done = await anyio.run_process([str(part) for part in command], check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_the_typescript_sdk_gets_the_whole_product(node_tools, served, workshop, transport):
    url = served.mcp if transport == "http" else f"{served.url}/sse/{served.key}"
    script = REPOSITORY / "tests" / "npm" / "client.mjs"
    seen = json.loads(await output(node_tools.node(), script, node_tools.folder(), url, transport))
    assert seen == {
        "server": "pvemcp",
        "tools": list(workshop.tools),
        "called": '{"data":{"vmid":101,"name":"web","cpu_usage":12.3}}',
        "asked": ["Delete thing 101."],
        "deleted": '{"data":{"success":true,"vmid":101}}',
        "progress": ["step 1"],
        "cancelled": True,
    }
    with anyio.fail_after(20):
        await workshop.cancelled.wait()


async def test_the_inspectors_command_line_lists_and_calls(node_tools, served, workshop):
    inspect = [*node_tools.script("@modelcontextprotocol/inspector", PATH)]
    inspect += ["--cli", served.mcp, "--transport", "http"]
    listed = json.loads(await output(*inspect, "--method", "tools/list"))
    assert [tool["name"] for tool in listed["tools"]] == list(workshop.tools)
    call = ["--method", "tools/call", "--tool-name", "GetThing", "--tool-arg", "vmid=101"]
    called = json.loads(await output(*inspect, *call))
    assert called["content"][0]["text"].startswith('{"data":{"vmid":101')
