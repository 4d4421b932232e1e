"""Serve the fixture server or the product for the conformance suite: `serve.py fixture|product`.

Prints the endpoint's URL, key and all, and runs until its stdin ends.
"""

import sys
import tempfile
import warnings
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi import FastAPI
from fixture_server import fixture_server
from mcp.shared.exceptions import MCPDeprecationWarning

from pvemcp_server.access import open_access
from pvemcp_server.app import create_app, open_services
from pvemcp_server.cli.state import State
from pvemcp_server.config import Config
from pvemcp_server.http.server import http_server
from pvemcp_server.mcp.endpoint import Endpoint, Transports
from pvemcp_server.mcp.scopes import ScopeChecks
from pvemcp_server.mcp.session_ids import SessionIds
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store

GENEROUS = {
    "enabled": True,
    "calls_per_minute_per_key": 100_000,
    "calls_per_minute_per_address": 100_000,
    "concurrent_calls_per_key": 100,
}


def fixture(services):
    """Return the fixture server behind our gate and transports."""
    endpoint = Endpoint(services, {})
    session_ids = SessionIds(lambda: bytes(32))
    scopes = ScopeChecks({}, services.oauth.tokens.step_ups)
    transports = Transports(fixture_server(), session_ids, services.audit, scopes, endpoint.relay)
    endpoint.transports = transports

    @asynccontextmanager
    async def lifespan(_):
        async with transports.sessions.run():
            yield

    return endpoint.gate(FastAPI(lifespan=lifespan)), endpoint


def product(services):
    """Return the product."""
    app = create_app(services)
    return app.asgi, app.endpoint


async def serve(make) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Config(state_dir=Path(folder), port=0, log_level="warning")
        async with open_store(config) as store, open_access(store) as access:
            settings = Settings(store)
            await settings.change(GENEROUS, by="conformance")
            _, key = await access.keys.create("conformance", role="Administrator")
            async with open_services(State(config, store, access, settings)) as services:
                app, endpoint = make(services)
                await run(http_server(app, config, endpoint.drain), key)


async def run(server, key) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:  # noqa: ASYNC110 - there is no event for it
            await anyio.sleep(0.01)
        host, port = server.addresses[0]
        print(f"http://{host}:{port}/mcp/{key}", flush=True)  # noqa: T201 - for the suite
        await anyio.to_thread.run_sync(sys.stdin.read)
        server.stop()


if __name__ == "__main__":
    # the suite exercises what the protocol has deprecated, and so does the fixture
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    anyio.run(serve, {"fixture": fixture, "product": product}[sys.argv[1]])
