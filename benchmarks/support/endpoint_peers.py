"""What the endpoint is measured against, each as a server process: `endpoint_peers.py NAME`.

* route: one hand-written FastAPI route that answers tools/call and tools/list
* sdk: the bare SDK with the same tools, neither key nor role nor limits nor audit
* ours: the whole server with the same tools
* attacked: ours, with the default limits of addresses

Prints the path to post to as a URL, and runs until stdin ends.
"""

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import mcp_types as types
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from pydantic import Field
from starlette.routing import Route

from pvemcp_server.access import open_access
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.app import create_app, open_services
from pvemcp_server.cli.state import State
from pvemcp_server.config import Config
from pvemcp_server.http.server import http_server
from pvemcp_server.mcp.tools import describe
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Document, Rows, tool, tools

NODE = {"node": "pve1", "status": "online", "cpu_usage": 12.5, "memory_usage_percentage": 40.0}
TEXT = json.dumps({"data": NODE}, separators=(",", ":"))
KEY_LIMITS = {
    "enabled": True,
    "calls_per_minute_per_key": 1_000_000,
    "concurrent_calls_per_key": 1000,
}
GENEROUS = {**KEY_LIMITS, "calls_per_minute_per_address": 1_000_000}
NodeName = Annotated[str, Field(description="Node")]


@tool("PingNode", area=Area.NODES, effect=Effect.READ)
async def ping_node(_call: Call, node: NodeName) -> Document:
    """Answer for a node without asking Proxmox."""
    return {**NODE, "node": node}


@tool("WaitNode", area=Area.NODES, effect=Effect.READ)
async def wait_node(call: Call, seconds: float = 0.5) -> Rows:
    """Report progress for a while."""
    for step in range(5):
        await call.conversation.progress(step + 1, 5, "waiting")
        await anyio.sleep(seconds / 5)
    return Rows([NODE], tuple(NODE))


def route() -> tuple[Any, str]:
    app = FastAPI()
    listed = [tool_.model_dump(by_alias=True, exclude_none=True) for tool_ in described()]

    @app.post("/mcp")
    async def mcp(request: Request) -> JSONResponse:
        message = await request.json()
        result: dict[str, Any] = {"tools": listed}
        if message["method"] == "tools/call":
            result = {"content": [{"type": "text", "text": TEXT}], "isError": False}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})

    return app, "/mcp"


def described() -> list[types.Tool]:
    return [describe(one) for one in tools().values()]


def sdk() -> tuple[Any, str]:
    async def list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=described())

    async def call_tool(_ctx: Any, _params: Any) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(text=TEXT)])

    server = Server(
        "bare",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: tools()[name].input_schema,
    )
    manager = StreamableHTTPSessionManager(server)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with manager.run():
            yield

    app = FastAPI(lifespan=lifespan)
    app.router.routes.append(Route("/mcp", StreamableHTTPASGIApp(manager)))
    return app, "/mcp"


@dataclass
class Served:
    """A server of either kind."""

    serve: Callable[[], Awaitable[None]]
    started: Callable[[], bool]
    address: Callable[[], tuple[str, int]]
    stop: Callable[[], object]


def bare(app: Any) -> Served:
    """Return plain uvicorn around the application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    return Served(
        server.serve,
        lambda: server.started,
        lambda: server.servers[0].sockets[0].getsockname(),
        lambda: setattr(server, "should_exit", True),
    )


async def serve(name: str) -> None:
    async with AsyncExitStack() as stack:
        if name in ("ours", "attacked"):
            server, path = await ours(stack, GENEROUS if name == "ours" else KEY_LIMITS)
        else:
            app, path = {"route": route, "sdk": sdk}[name]()
            server = bare(app)
        await run(server, path)


async def ours(stack: AsyncExitStack, limits: dict[str, Any]) -> tuple[Served, str]:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    config = Config(state_dir=Path(folder), port=0, log_level="warning")
    store = await stack.enter_async_context(open_store(config))
    access = await stack.enter_async_context(open_access(store))
    settings = Settings(store)
    await settings.change(limits, by="benchmark")
    _, key = await access.keys.create("benchmark", role="Administrator")
    state = State(config, store, access, settings)
    app = create_app(await stack.enter_async_context(open_services(state)))
    server = http_server(app.asgi, config, app.endpoint.drain, knows_key=access.authenticator.knows)
    started = Served(server.serve, lambda: server.started, lambda: server.addresses[0], server.stop)
    return started, f"/mcp/{key}"


async def run(server: Served, path: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started():  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(0.01)
        host, port = server.address()
        print(f"http://{host}:{port}{path}", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
        server.stop()


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1])  # on the loop that the product runs
