"""Real MCP clients through the bridge to a real MCP server: the SDKs and the inspector."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

HERE = Path(__file__).parent
KEY = "trial-key-0123456789"

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture(scope="module")
def trial_url():
    """Start a server made with the SDK; give its URL, which contains the key."""
    process = subprocess.Popen(
        [sys.executable, HERE / "sdk_server.py", "--key", KEY], stdout=subprocess.PIPE, text=True
    )
    yield f"{process.stdout.readline().strip()}/{KEY}"
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def parameters(bridges, trial_url):
    command, *arguments = bridges.command()
    return StdioServerParameters(command=command, args=[*arguments, trial_url])


@pytest.fixture(params=["legacy", "auto", "2026-07-28"])
def mode(request):
    return request.param


def text(result):
    return result.content[0].text


async def agree(context, params):
    return types.ElicitResult(action="accept", content={"sure": True})


async def test_the_python_sdk_lists_calls_and_follows_progress(parameters, mode):
    steps = []

    async def on_event(progress, total, message):
        steps.append(message)

    async with Client(parameters, mode=mode) as client:
        assert len((await client.list_tools()).tools) == 8
        assert text(await client.call_tool("echo", {"text": "grün"})) == "grün"
        counted = await client.call_tool("count", {}, progress_callback=on_event)
        assert text(counted) == "counted"
        assert steps == ["step 1", "step 2", "step 3"]


async def test_fifty_calls_of_the_python_sdk_at_once(parameters, mode):
    async with Client(parameters, mode=mode) as client:
        calls = [client.call_tool("echo", {"text": str(n)}) for n in range(50)]
        answers = await asyncio.gather(*calls)
        assert [text(answer) for answer in answers] == [str(n) for n in range(50)]


async def test_an_elicitation_reaches_the_python_sdk(parameters, mode):
    async with Client(parameters, mode=mode, elicitation_callback=agree) as client:
        assert text(await client.call_tool("ask", {})) == "accept {'sure': True}"


async def test_a_cancelled_call_of_the_python_sdk_is_cancelled_at_the_server(parameters, mode):
    async with Client(parameters, mode=mode) as client:
        begun = anyio.Event()

        async def on_event(progress, total, message):
            begun.set()

        async with anyio.create_task_group() as calls:
            calls.start_soon(lambda: client.call_tool("wait", {}, progress_callback=on_event))
            await begun.wait()
            calls.cancel_scope.cancel()
        assert text(await client.call_tool("was_cancelled", {})) == "cancelled"


async def test_a_changed_list_of_tools_reaches_the_python_sdk(parameters):
    changed = anyio.Event()

    async def on_event(message):
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async with Client(parameters, mode="legacy", message_handler=on_event) as client:
        await client.call_tool("change", {})
        with anyio.fail_after(10):
            await changed.wait()


async def test_a_subscription_of_the_python_sdk_brings_changes(parameters):
    async with (
        Client(parameters, mode="2026-07-28") as client,
        client.listen(tools_list_changed=True) as subscription,
    ):
        await client.call_tool("change", {})
        with anyio.fail_after(10):
            assert type(await anext(aiter(subscription))).__name__ == "ToolsListChanged"


async def test_annotated_arguments_of_the_python_sdk_arrive_as_headers(parameters):
    async with Client(parameters, mode="2026-07-28") as client:
        await client.list_tools()
        assert text(await client.call_tool("place", {"region": "eu"})) == "eu eu"


@pytest.fixture
def node(npm_folder):
    return npm_folder / "node_modules" / "node" / "bin" / "node"


WHOLE_SESSION = {
    "progress": [1, 2, 3],
    "tools": 8,
    "echo": "grün",
    "many": [str(n) for n in range(50)],
    "count": "counted",
    "ask": "accept {'sure': True}",
    "changed": True,
    "aborted": True,
    "cancelled": "cancelled",
}


def run_json(*command, **more):
    """Run a command and parse the JSON that it prints."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.node
def test_the_typescript_sdk_has_a_whole_session(bridges, npm_folder, node, trial_url):
    client = HERE / "sdk_client.mjs"
    outcome = run_json(node, client, npm_folder, *bridges.command(), trial_url)
    assert outcome == WHOLE_SESSION


@pytest.mark.node
def test_the_typescript_sdk_2_has_a_whole_session(bridges, npm_folder, node, trial_url, mode):
    client = HERE / "sdk2_client.mjs"
    outcome = run_json(node, client, npm_folder, mode, *bridges.command(), trial_url)
    assert outcome == WHOLE_SESSION | {"modern": mode != "legacy"}


@pytest.fixture
def inspector(npm_folder):
    return npm_folder / "node_modules" / "@modelcontextprotocol" / "inspector"


def program(package, name):
    """Return the path of a command of an npm package."""
    return package / json.loads((package / "package.json").read_text())["bin"][name]


@pytest.mark.node
def test_the_inspector_lists_and_calls(bridges, inspector, node, trial_url):
    command = (node, program(inspector, "mcp-inspector"), "--cli", *bridges.command(), trial_url)
    assert len(run_json(*command, "--method", "tools/list")["tools"]) == 8
    call = ("--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=hello")
    assert run_json(*command, *call)["content"][0]["text"] == "hello"


@pytest.mark.node
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_session_calls_and_answers_an_elicitation(
    bridges, inspector, node, trial_url, tmp_path, era
):
    command, *arguments = bridges.command()
    server = {"command": command, "args": [*arguments, trial_url]}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"trial": server}}))
    base = (node, program(inspector, "mcpdo"), "--format", "json")
    home = bridges.environment(HOME=str(tmp_path), USERPROFILE=str(tmp_path))

    def mcpdo(*words):
        return run_json(*base, *words, env=home)

    try:
        connected = mcpdo("--config", config, "connect", "trial", "--era", era)
        assert connected["protocolEra"] == era
        assert len(mcpdo("@trial", "tools/list")["tools"]) == 8
        assert mcpdo("@trial", "tools/call", "echo", "text:=grün")["content"][0]["text"] == "grün"
        pending = mcpdo("@trial", "tools/call", "ask")["elicitationPending"]
        assert pending["message"] == "Are you sure?"
        answer = ("elicitation/respond", pending["elicitationId"], "sure:=true")
        assert mcpdo("@trial", *answer)["content"][0]["text"] == "accept {'sure': True}"
    finally:
        subprocess.run([*base, "daemon", "stop"], check=True, env=home, capture_output=True)
