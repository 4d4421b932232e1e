"""MCP server made with the official SDK, both eras at one URL, to test the bridge with.

Run as a process: `python sdk_server.py [--port N] [--key KEY]` prints its URL when it listens.
"""

import argparse
import asyncio
import socket
import sys

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.streamable_http_manager import (
    StreamableHTTPASGIApp,
    StreamableHTTPSessionManager,
)
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

EMPTY = {"type": "object", "properties": {}}
READ = types.ToolAnnotations(read_only_hint=True)
QUESTION = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
}


def tool(name, schema=None, annotations=None):
    return types.Tool(
        name=name, description=name, input_schema=schema or EMPTY, annotations=annotations
    )


class Trial:
    """Tools that the tests call."""

    def __init__(self):
        self.bus = InMemorySubscriptionBus()
        self.cancelled = asyncio.Event()
        self.sessions = set()

    async def list_tools(self, context, params):
        text = {"type": "object", "properties": {"text": {"type": "string"}}}
        place = {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        }
        return types.ListToolsResult(
            tools=[
                tool("echo", text, READ),
                tool("wait"),
                tool("count", annotations=READ),
                tool("ask"),
                tool("change"),
                tool("log"),
                tool("place", place),
                tool("was_cancelled"),
            ]
        )

    async def call_tool(self, context, params):
        answer = await getattr(self, params.name)(context, params)
        if isinstance(answer, types.InputRequiredResult):
            return answer
        return types.CallToolResult(content=[types.TextContent(type="text", text=answer)])

    async def echo(self, context, params):
        return str((params.arguments or {}).get("text", ""))

    async def place(self, context, params):
        return f"{params.arguments['region']} {context.request.headers.get('mcp-param-region')}"

    async def wait(self, context, params):
        try:
            await context.session.report_progress(0, 1, "waiting")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "never"

    async def was_cancelled(self, context, params):
        await asyncio.wait_for(self.cancelled.wait(), 10)
        return "cancelled"

    async def count(self, context, params):
        for step in range(1, 4):
            await context.session.report_progress(step, 3, f"step {step}")
            await asyncio.sleep(0.05)  # the TypeScript SDK drops progress that comes with the reply
        return "counted"

    async def ask(self, context, params):
        """Ask by a request if there is a session, else by a result that requires another call."""
        message = "Are you sure?"
        if context.protocol_version < "2026":
            answer = await context.session.elicit_form(message, QUESTION)
        elif not (answer := (params.input_responses or {}).get("sure")):
            form = types.ElicitRequestFormParams(message=message, requested_schema=QUESTION)
            question = types.ElicitRequest(params=form)
            return types.InputRequiredResult(input_requests={"sure": question})
        return f"{answer.action} {answer.content}"

    async def change(self, context, params):
        await self.bus.publish(ToolsListChanged())
        await context.session.send_tool_list_changed()
        return "changed"

    async def log(self, context, params):
        await context.session.send_log_message("info", "a line of the log")
        return "logged"


class Gate:
    """Middleware that requires the key, in a header or in the path, and counts connections."""

    def __init__(self, app, key):
        self.app, self.key = app, key
        self.clients = set()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            if scope["path"] == "/connections":
                await PlainTextResponse(str(len(self.clients)))(scope, receive, send)
                return
            self.clients.add(scope["client"])
        if scope["type"] == "http" and self.key:
            headers = dict(scope["headers"])
            keys = (headers.get(b"authorization", b""), headers.get(b"x-api-key", b""))
            in_path = scope["path"] == f"/mcp/{self.key}"
            if in_path:
                scope["path"] = "/mcp"
            elif f"Bearer {self.key}".encode() != keys[0] and self.key.encode() != keys[1]:
                await PlainTextResponse("key rejected", 401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class TrialServer(Server):
    def create_initialization_options(self, *_, **__):
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


def application(key=""):
    trial = Trial()
    server = TrialServer(
        "trial",
        on_list_tools=trial.list_tools,
        on_call_tool=trial.call_tool,
        on_subscriptions_listen=ListenHandler(trial.bus),
    )
    manager = StreamableHTTPSessionManager(server)
    app = Starlette(
        routes=[Route("/mcp", StreamableHTTPASGIApp(manager))],
        lifespan=lambda _: manager.run(),
    )
    return Gate(app, key)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="")
    arguments = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", arguments.port))
    port = listening.getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}/mcp\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        application(arguments.key), log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
