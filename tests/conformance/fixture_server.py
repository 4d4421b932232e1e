"""An MCP server with the fixtures of the conformance suite, made of the SDK that we build upon."""

import json
from typing import Any

import fixture_questions
import fixture_tasks
import mcp_types as types
from fixture_tools import BUS, IMAGE, PNG, TOOLS, embedded
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from pvemcp_server.mcp.server import CACHE_HINTS
from pvemcp_server.mcp.tasks import EXTENSION, METHODS

PRIVATE = CacheHint(ttl_ms=1000, scope="private")
URIS = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text",
        mime_type="text/plain",
        text="This is the content of the static text resource.",
    ),
    "test://static-binary": types.BlobResourceContents(
        uri="test://static-binary", mime_type="image/png", blob=PNG
    ),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="watched"
    ),
}


def argument(name: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=f"The {name}", required=True)


PROMPTS = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": [argument("arg1"), argument("arg2")],
    "test_prompt_with_embedded_resource": [argument("resourceUri")],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[tool for tool, _ in TOOLS.values()])


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> Any:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await TOOLS[params.name][1](ctx, params)


async def list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:
    prompts = [
        types.Prompt(name=name, description=name, arguments=arguments)
        for name, arguments in PROMPTS.items()
    ]
    return types.ListPromptsResult(prompts=prompts)


async def get_prompt(ctx: Any, params: types.GetPromptRequestParams) -> Any:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            blocks = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            line = f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"
            blocks = [text(line)]
        case "test_prompt_with_embedded_resource":
            content = "Embedded resource content for testing."
            blocks = [
                embedded(given["resourceUri"], "text/plain", content),
                text("Please process the embedded resource above."),
            ]
        case "test_prompt_with_image":
            blocks = [IMAGE, text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            found = fixture_questions.answers(params, user_context=types.ElicitResult)
            if found is None:
                question = "What context should the prompt use?"
                fields = {"context": {"type": "string"}}
                return fixture_questions.ask(
                    user_context=fixture_questions.form(question, **fields)
                )
            blocks = [text(json.dumps(found["user_context"].content))]
        case _:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=block) for block in blocks]
    )


def text(line: str) -> types.TextContent:
    return types.TextContent(text=line)


async def list_resources(ctx: Any, params: Any) -> types.ListResourcesResult:
    resources = [
        types.Resource(uri=uri, name=uri, description=uri, mime_type=contents.mime_type)
        for uri, contents in URIS.items()
    ]
    return types.ListResourcesResult(resources=resources)


async def list_templates(ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", description="Data by id"
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(ctx: Any, params: Any) -> types.ReadResourceResult:
    uri = str(params.uri)
    if uri in URIS:
        return types.ReadResourceResult(contents=[URIS[uri]])
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[3]
        body = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=body)
        return types.ReadResourceResult(contents=[contents])
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})


async def nothing(ctx: Any, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


async def complete(ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=words, total=len(words)))


class FixtureServer(Server[Any]):
    def create_initialization_options(self, notification_options=None, *others, **more):
        changes = notification_options or NotificationOptions(
            tools_changed=True, prompts_changed=True, resources_changed=True
        )
        return super().create_initialization_options(
            changes, *others, **({"extensions": {}} | more)
        )


def fixture_server() -> Server[Any]:
    server = FixtureServer(
        "pvemcp-conformance-fixture",
        version="1",
        cache_hints=dict.fromkeys(CACHE_HINTS, PRIVATE),
        on_list_tools=list_tools,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_completion=complete,
        on_subscriptions_listen=ListenHandler(BUS),
        get_tool_input_schema=lambda name: TOOLS[name][0].input_schema if name in TOOLS else None,
    )
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, nothing)
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    server.extensions = {EXTENSION: {}}
    for method, params in METHODS.items():
        server.add_request_handler(method, params, fixture_tasks.HANDLERS[method])
    security = RequestStateSecurity.ephemeral()
    server.middleware[:] = [RequestStateBoundary(security, default_audience=server.name)]
    return server
