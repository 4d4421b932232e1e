"""The client that the conformance suite drives: the SDK's own, with the bridge between.

The suite starts it with the server's URL and names scenario and revision in the environment.
"""

import json
import os
import sys

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
REVISION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
EXAMPLES = {"string": "x", "integer": 5, "number": 5, "boolean": True, "array": [], "object": {}}


def bridge(url):
    """The bridge that PVEMCP_BRIDGE names, or the source."""
    frozen = os.environ.get("PVEMCP_BRIDGE")
    command, *rest = [frozen] if frozen else [sys.executable, "-m", "pvemcp_bridge"]
    return StdioServerParameters(command=command, args=[*rest, url])


async def answer(context, params):
    """Accepts every question, with the defaults it offers."""
    fields = params.requested_schema.get("properties", {})
    content = {name: field.get("default", example(field)) for name, field in fields.items()}
    return types.ElicitResult(action="accept", content=content)


def example(schema):
    return EXAMPLES.get(schema.get("type"), "x")


def arguments(tool):
    """Something the tool's schema allows."""
    properties = tool.input_schema.get("properties", {})
    return {name: example(schema) for name, schema in properties.items()}


async def call(client, name, given):
    try:
        return await client.call_tool(name, given)
    except MCPError as error:
        sys.stderr.write(f"{name}: {error}\n")


async def use_tools(client):
    """Calls what the context says, or every tool once."""
    listed = (await client.list_tools()).tools
    if SCENARIO == "json-schema-2020-12-preservation":
        focal, echo = listed
        await call(client, echo.name, {"schema": focal.input_schema})
        return
    planned = [(one["name"], one["arguments"]) for one in CONTEXT.get("toolCalls", [])]
    for name, given in planned or [(tool.name, arguments(tool)) for tool in listed]:
        await call(client, name, given)


async def use_the_rest(client):
    """Reads the resources and prompts that a server of this scenario has."""
    if SCENARIO != "http-standard-headers":
        return
    for resource in (await client.list_resources()).resources:
        await client.read_resource(str(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def main(url):
    mode = "legacy" if REVISION < "2026" else "auto"
    async with Client(bridge(url), mode=mode, elicitation_callback=answer) as client:
        await use_tools(client)
        await use_the_rest(client)


if __name__ == "__main__":
    anyio.run(main, sys.argv[-1])
