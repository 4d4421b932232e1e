"""Files, functions and calls of our own code that one tool call over HTTP runs through.

Server and client share a thread, the emulated clusters run in another one; a profile function
notes each of our Python functions that begins between request and response. Libraries,
comprehensions and lambdas do not count, nor do functions that did not begin in each of some rounds:
background work.
Everything is warm but the inventory, which is marked as outdated: Proxmox is asked.

    python benchmarks/call_trace.py [--list]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import reduce
from operator import and_
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx2 as httpx
from anyio.from_thread import start_blocking_portal

from proxmox_client.emulator import Emulator, demo
from pvemcp_server.access import open_access
from pvemcp_server.app import create_app
from pvemcp_server.cli.state import State
from pvemcp_server.clusters import Clusters
from pvemcp_server.config import Config
from pvemcp_server.http.server import http_server
from pvemcp_server.services import open_services
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.store.records import TlsMode

PACKAGES = Path(__file__).parents[1] / "packages"
ROUNDS = 4
CLUSTERS = ("home-lab", "prod")  # of the demo, without its backup server
CALLS: dict[str, dict[str, Any]] = {
    "ListVms": {},
    "ExecuteQuery": {
        "query": {
            "from": "guests",
            "select": ["node", "COUNT(*) as guests"],
            "groupBy": ["node"],
        }
    },
}


@contextmanager
def traced() -> Iterator[Counter[CodeType]]:
    """Count the calls of our own functions in this thread."""
    calls: Counter[CodeType] = Counter()
    ours: dict[str, bool] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        name = code.co_filename
        if name not in ours:
            ours[name] = name.startswith(str(PACKAGES))
        begins = event == "call" and frame.f_lineno == code.co_firstlineno  # else it goes on
        if begins and ours[name] and not code.co_name.startswith("<"):
            calls[code] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Clusters]]:
    """Serve the demo clusters; yield a client with a key, and the server's connections to them."""
    config = Config(state_dir=folder, port=0, log_level="warning")
    async with AsyncExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())  # a thread of its own
        pve = stack.enter_context(portal.wrap_async_context_manager(Emulator(demo())))
        store = await stack.enter_async_context(open_store(config))
        access = await stack.enter_async_context(open_access(store))
        for name in CLUSTERS:
            token_id, secret = pve[name].token
            await access.clusters.create(
                name,
                pve[name].hosts,
                token_id=token_id,
                secret=secret,
                tls_mode=TlsMode.PINNED,
                fingerprints=pve[name].fingerprints.values(),
            )
        settings = Settings(store)
        await settings.change({"enabled": True}, by="benchmark")
        _, key = await access.keys.create("benchmark", role="Administrator")
        state = State(config, store, access, settings)
        services = await stack.enter_async_context(open_services(state))
        app = create_app(services)
        server = http_server(
            app.asgi, config, app.endpoint.drain, knows_key=access.authenticator.knows
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        host, port = server.addresses[0]
        headers = {"X-API-Key": key}
        async with httpx.AsyncClient(
            base_url=f"http://{host}:{port}", headers=headers, timeout=30
        ) as http:
            yield http, services.clusters
        server.stop()
        await serving


async def call(http: httpx.AsyncClient, name: str, arguments: dict[str, Any]) -> None:
    """Call a tool as a client of 2026-07-28 does."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await http.post("/mcp", json=message, headers=headers)
    result = answer.json()["result"]
    assert not result.get("isError"), json.dumps(result)


def files(calls: Counter[CodeType]) -> dict[str, list[str]]:
    """Return the functions of each file, both in the order of their first call."""
    functions: dict[str, list[str]] = {}
    for code in calls:
        name = code.co_filename.removeprefix(f"{PACKAGES}/").partition("/src/")[2]
        functions.setdefault(name, []).append(code.co_qualname)
    return functions


async def traces(names: Iterable[str] = CALLS) -> dict[str, Counter[CodeType]]:
    """Return the functions that each call runs through, with the number of their calls."""
    functions: dict[str, Counter[CodeType]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with served(Path(folder)) as (http, clusters):
            for name in names:
                await call(http, name, CALLS[name])
                rounds = [await trace(http, clusters, name) for _ in range(ROUNDS)]
                functions[name] = reduce(and_, rounds)
    return functions


async def trace(http: httpx.AsyncClient, clusters: Clusters, name: str) -> Counter[CodeType]:
    """Trace one call."""
    for cluster in CLUSTERS:
        (await clusters.connection(cluster)).inventory.invalidate()
    await call(http, "GetQuerySchema", {})  # now the key and the settings are checked again
    with traced() as calls:
        await call(http, name, CALLS[name])
    return calls


def main() -> None:
    """Run the calls and print what they ran through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the files and their functions")
    listing = parser.parse_args().list
    print("| call | files | functions | calls |\n|---|--:|--:|--:|")
    for name, calls in asyncio.run(traces()).items():
        by_file = files(calls)
        print(f"| {name} | {len(by_file)} | {len(calls)} | {calls.total()} |")
        if listing:
            for path, functions in by_file.items():
                print(f"    {path}: {', '.join(functions)}")


if __name__ == "__main__":
    main()
