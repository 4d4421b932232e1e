"""The main job: `make run`, paste what it prints, ask which VMs are running."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2 as httpx
import pytest
from mcp import Client, StdioServerParameters

BRIDGE = Path(sys.executable).with_name("pvemcp-bridge")
MODES = ("auto", "legacy")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"},
}
pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("product")]


async def running_vms(client: Client) -> list[list[Any]]:
    arguments = {"cluster_name": "home-lab", "status": "running"}
    result = await client.call_tool("ListVms", arguments)
    assert not result.is_error, result
    return json.loads(result.content[0].text)["data"]["rows"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_python_sdk_lists_the_tools_and_finds_the_running_vms(product, mode):
    with anyio.fail_after(30):
        async with Client(f"{product.url}/mcp/{product.key}", mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            found = await running_vms(client)
    assert {"ListClusters", "ListVms", "ListNodes", "GetClusterStatus"} <= set(names)
    assert found


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_goes_through_the_bridge_over_stdio(product, mode):
    bridge = StdioServerParameters(
        command=str(BRIDGE), args=["--url", f"{product.url}/mcp"], env={"MCP_API_KEY": product.key}
    )
    with anyio.fail_after(60):
        async with Client(bridge, mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            found = await running_vms(client)
    assert "ListVms" in names
    assert found


async def post(product, method: str, params: dict[str, Any], **headers: str) -> httpx.Response:
    named = {"Mcp-Name": params["name"]} if "name" in params else {}
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(
            f"{product.url}/mcp",
            headers={
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": method,
                **named,
                **headers,
            },
            json={"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}},
        )


async def test_plain_http_with_the_key_in_a_header_lists_and_calls(product):
    call = {"name": "ListVms", "arguments": {"cluster_name": "home-lab"}}
    listed = await post(product, "tools/list", {}, **{"X-API-Key": product.key})
    called = await post(product, "tools/call", call, Authorization=f"Bearer {product.key}")
    assert listed.status_code == called.status_code == 200
    assert "ListVms" in [tool["name"] for tool in listed.json()["result"]["tools"]]
    text = called.json()["result"]["content"][0]["text"]
    assert len(json.loads(text)["data"]["rows"]) == 14


async def test_a_wrong_key_is_refused_without_inviting_to_sign_in_elsewhere(product):
    refused = await post(product, "tools/list", {}, **{"X-API-Key": "pvemcp_wrong"})
    nowhere = refused.headers["www-authenticate"].split('"')[-2]
    async with httpx.AsyncClient(timeout=60) as client:
        discovery = await client.get(nowhere)
    assert refused.status_code == 401
    assert discovery.status_code == 404


@pytest.mark.parametrize("notation", ["JsonCompact", "JsonNormal", "Toon", "Csv"])
@pytest.mark.parametrize("tool", ["ListClusters", "ListVms", "ListNodes", "GetClusterStatus"])
async def test_the_first_four_tools_answer_in_every_format(product, tool, notation):
    arguments = {"format": notation}
    if tool == "GetClusterStatus":
        arguments["cluster_name"] = "prod"
    with anyio.fail_after(30):
        async with Client(f"{product.url}/mcp/{product.key}") as client:
            result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert "prod" in result.content[0].text


async def test_prod_reports_its_offline_node(product):
    with anyio.fail_after(30):
        async with Client(f"{product.url}/mcp/{product.key}") as client:
            result = await client.call_tool("GetClusterStatus", {"cluster_name": "prod"})
    status = json.loads(result.content[0].text)["data"]
    assert (status["nodes_total"], status["nodes_online"], status["nodes_offline"]) == (5, 4, 1)


async def test_health_readiness_and_version_need_no_key(product):
    async with httpx.AsyncClient(base_url=product.url, timeout=60) as client:
        answers = [await client.get(path) for path in ("/healthz", "/readyz", "/version")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "2026-07-28" in answers[2].json()["protocols"]


def inspector(npm_folder: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Return the JSON that the official inspector's command line prints for one request."""
    modules = npm_folder / "node_modules"
    command = [modules / "node" / "bin" / "node", modules / ".bin" / "mcp-inspector", "--cli"]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ASK = ("--method", "tools/call", "--tool-name", "ListVms", "--tool-arg", "cluster_name=home-lab")


@pytest.mark.node
def test_the_inspector_lists_the_tools_and_calls_one_over_http(product, npm_folder):
    where = (f"{product.url}/mcp/{product.key}", "--transport", "http")
    listed = inspector(npm_folder, *where, "--method", "tools/list")
    called = inspector(npm_folder, *where, *ASK)
    assert "ListVms" in [tool["name"] for tool in listed["tools"]]
    assert len(json.loads(called["content"][0]["text"])["data"]["rows"]) == 14


@pytest.mark.node
def test_the_inspector_does_the_same_through_the_bridge(product, npm_folder):
    bridge = (str(BRIDGE), f"{product.url}/mcp/{product.key}")
    listed = inspector(npm_folder, *bridge, "--method", "tools/list")
    called = inspector(npm_folder, *bridge, *ASK)
    assert "ListVms" in [tool["name"] for tool in listed["tools"]]
    assert len(json.loads(called["content"][0]["text"])["data"]["rows"]) == 14


TYPESCRIPT = """
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
const [url, bridge] = process.argv.slice(2);
const transport = bridge
  ? new StdioClientTransport({ command: bridge, args: [url] })
  : new StreamableHTTPClientTransport(new URL(url));
const client = new Client({ name: "typescript", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const call = { name: "ListVms", arguments: { cluster_name: "home-lab" } };
const { content } = await client.callTool(call);
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), text: content[0].text }));
await client.close();
"""


@pytest.mark.node
@pytest.mark.parametrize("through", ["http", "bridge"])
def test_the_typescript_sdk_lists_the_tools_and_calls_one(product, npm_folder, through):
    command = [npm_folder / "node_modules" / "node" / "bin" / "node", "--input-type=module", "-"]
    done = subprocess.run(
        [*command, f"{product.url}/mcp/{product.key}", *([BRIDGE] if through == "bridge" else [])],
        input=TYPESCRIPT,
        cwd=npm_folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert "ListVms" in output["tools"]
    assert len(json.loads(output["text"])["data"]["rows"]) == 14


def test_curl_lists_the_tools_with_nothing_but_the_printed_url(product):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    options = [text for name, value in headers.items() for text in ("-H", f"{name}: {value}")]
    url = f"{product.url}/mcp/{product.key}"
    done = subprocess.run(
        ["curl", "-sS", *options, "-d", json.dumps(body), url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ListVms" in [tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]]
