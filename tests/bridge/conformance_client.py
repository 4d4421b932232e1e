"""Client for the conformance suite: the SDK's own client, connected through the bridge.

The suite starts it with the server's URL; scenario and revision are in the environment.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
REVISION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
BROWSER = Path(__file__).with_name("conformance_browser.py")
EXAMPLES = {"string": "x", "integer": 5, "number": 5, "boolean": True, "array": [], "object": {}}


def bridge(url, state):
    """Return the command of the bridge: the binary in PVEMCP_BRIDGE, or the source.

    It keeps a sign-in in the folder `state`; its browser is `conformance_browser.py`.
    """
    frozen = os.environ.get("PVEMCP_BRIDGE")
    command, *rest = [frozen] if frozen else [sys.executable, "-m", "pvemcp_bridge"]
    env = {**os.environ, "XDG_STATE_HOME": state, "BROWSER": f"{sys.executable} {BROWSER} %s"}
    return StdioServerParameters(command=command, args=[*rest, url], env=env)


async def answer(context, params):
    """Accept every elicitation with its defaults."""
    fields = params.requested_schema.get("properties", {})
    content = {name: field.get("default", example(field)) for name, field in fields.items()}
    return types.ElicitResult(action="accept", content=content)


def example(schema):
    return EXAMPLES.get(schema.get("type"), "x")


def example_arguments(tool):
    """Return arguments that the tool's schema allows."""
    properties = tool.input_schema.get("properties", {})
    return {name: example(schema) for name, schema in properties.items()}


async def call(client, name, arguments):
    try:
        return await client.call_tool(name, arguments)
    except MCPError as error:
        sys.stderr.write(f"{name}: {error}\n")


async def use_tools(client):
    """Call the tools of the context, or every tool once."""
    listed = (await client.list_tools()).tools
    if SCENARIO == "json-schema-2020-12-preservation":
        focal, echo = listed
        await call(client, echo.name, {"schema": focal.input_schema})
        return
    calls = [(entry["name"], entry["arguments"]) for entry in CONTEXT.get("toolCalls", [])]
    for name, arguments in calls or [(tool.name, example_arguments(tool)) for tool in listed]:
        await call(client, name, arguments)


async def use_resources_and_prompts(client):
    """Read the resources and prompts of the scenario that has some."""
    if SCENARIO != "http-standard-headers":
        return
    for resource in (await client.list_resources()).resources:
        await client.read_resource(str(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def main(url):
    mode = "legacy" if REVISION < "2026" else "auto"
    with tempfile.TemporaryDirectory() as state:
        command = bridge(url, state)
        async with Client(command, mode=mode, elicitation_callback=answer) as client:
            await use_tools(client)
            await use_resources_and_prompts(client)


if __name__ == "__main__":
    anyio.run(main, sys.argv[-1])
