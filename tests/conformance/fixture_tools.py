"""The tools that the conformance suite calls by name; what each does is the suite's demand."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

# A PNG of one red pixel, and a WAV of silence
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
    "nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
SHORT = 0.05  # seconds between two steps of a tool

Answer = types.CallToolResult | types.InputRequiredResult
Run = Callable[[Any, types.CallToolRequestParams], Awaitable[Answer]]

BUS = InMemorySubscriptionBus()
TOOLS: dict[str, tuple[types.Tool, Run]] = {}
NOTHING = {"type": "object", "properties": {}}


def fixture(
    description: str, properties: dict[str, Any] | None = None, schema: dict[str, Any] | None = None
) -> Callable[[Run], Run]:
    """Declare a tool named as the function is."""

    def declare(run: Run) -> Run:
        wanted = schema or NOTHING
        if properties:
            wanted = {"type": "object", "properties": properties, "required": list(properties)}
        tool = types.Tool(name=run.__name__, description=description, input_schema=wanted)
        TOOLS[run.__name__] = (tool, run)
        return run

    return declare


def said(*blocks: str | types.ContentBlock, failed: bool = False) -> types.CallToolResult:
    content = [types.TextContent(text=one) if isinstance(one, str) else one for one in blocks]
    return types.CallToolResult(content=content, is_error=failed)


def embedded(uri: str, mime: str, text: str) -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime, text=text)
    return types.EmbeddedResource(resource=contents)


IMAGE = types.ImageContent(data=PNG, mime_type="image/png")


@fixture("Answers with text")
async def test_simple_text(ctx, params):
    return said("This is a simple text response for testing.")


@fixture("Answers with an image")
async def test_image_content(ctx, params):
    return said(IMAGE)


@fixture("Answers with a sound")
async def test_audio_content(ctx, params):
    return said(types.AudioContent(data=WAV, mime_type="audio/wav"))


@fixture("Answers with a resource")
async def test_embedded_resource(ctx, params):
    return said(
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    )


@fixture("Answers with several kinds of content")
async def test_multiple_content_types(ctx, params):
    text = json.dumps({"test": "data", "value": 123})
    mixed = embedded("test://mixed-content-resource", "application/json", text)
    return said("Multiple content types test:", IMAGE, mixed)


@fixture("Logs while it runs")
async def test_tool_with_logging(ctx, params):
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await anyio.sleep(SHORT)
    return said("logged")


@fixture("Logs a line")
async def test_logging_tool(ctx, params):
    await ctx.session.send_log_message("info", "a line", related_request_id=ctx.request_id)
    return said("logged")


@fixture("Always fails")
async def test_error_handling(ctx, params):
    return said("This tool intentionally returns an error for testing", failed=True)


@fixture("Reports progress")
async def test_tool_with_progress(ctx, params):
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await anyio.sleep(SHORT)
    return said("done")


@fixture("Needs the client's sampling")
async def test_missing_capability(ctx, params):
    wanted = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not ctx.session.check_client_capability(wanted):
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Sampling is required", data)
    return said("the client can sample")


@fixture("Reports progress, then answers without asking anybody")
async def test_streaming_elicitation(ctx, params):
    await ctx.session.report_progress(1, 2)
    return said("streamed")


@fixture("Announces that the tools have changed")
async def test_trigger_tool_change(ctx, params):
    await BUS.publish(ToolsListChanged())
    return said("announced")


@fixture("Announces that the prompts have changed")
async def test_trigger_prompt_change(ctx, params):
    await BUS.publish(PromptsListChanged())
    return said("announced")


@fixture("Closes its event stream and answers on the next")
async def test_reconnection(ctx, params):
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await anyio.sleep(SHORT)
    return said("answered after reconnection")


REGION = {"type": "string", "description": "A region", "x-mcp-header": "Region"}


@fixture("Takes an argument that is repeated in a header", {"region": REGION})
async def test_header_argument(ctx, params):
    return said(f"region {params.arguments['region']}")


RICH = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@fixture("Has a schema of the year 2020", schema=RICH)
async def json_schema_2020_12_tool(ctx, params):
    return said("fine")
