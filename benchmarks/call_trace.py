"""Files, functions and calls of our own code that one tool call over HTTP runs through.

Server and client share a thread, the emulated clusters run in another one; a profile function
notes each of our Python functions that begins between request and response. Libraries,
comprehensions and lambdas do not count, nor do functions that did not begin in each of some rounds:
background work.
Everything is warm but the inventory, which has just expired: Proxmox is asked.

    python benchmarks/call_trace.py [--list]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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
from pvemcp_server.app import create_app, open_services
from pvemcp_server.cli.state import State
from pvemcp_server.config import Config
from pvemcp_server.http.server import http_server
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.store.records import TlsMode

PACKAGES = Path(__file__).parents[1] / "packages"
FRESHNESS_SECONDS = 1  # the least that the setting allows
ROUNDS = 4
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
async def served(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Serve the demo clusters; yield the server's URL and a key."""
    config = Config(state_dir=folder, port=0, log_level="warning")
    async with AsyncExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())  # a thread of its own
        pve = stack.enter_context(portal.wrap_async_context_manager(Emulator(demo())))
        store = await stack.enter_async_context(open_store(config))
        access = await stack.enter_async_context(open_access(store))
        for name in ("home-lab", "prod"):
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
        values = {"enabled": True, "inventory_freshness_seconds": FRESHNESS_SECONDS}
        await settings.change(values, by="benchmark")
        _, key = await access.keys.create("benchmark", role="Administrator")
        state = State(config, store, access, settings)
        app = create_app(await stack.enter_async_context(open_services(state)))
        server = http_server(
            app.asgi, config, app.endpoint.drain, knows_key=access.authenticator.knows
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        host, port = server.addresses[0]
        yield f"http://{host}:{port}", key
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


async def measure(listing: bool) -> None:
    """Print the figures of each call."""
    with tempfile.TemporaryDirectory() as folder:
        async with served(Path(folder)) as (url, key):
            headers = {"X-API-Key": key}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
                print("| call | files | functions | calls |\n|---|--:|--:|--:|")
                for name, arguments in CALLS.items():
                    await call(http, name, arguments)
                    rounds = [await trace(http, name, arguments) for _ in range(ROUNDS)]
                    calls = reduce(and_, rounds)
                    by_file = files(calls)
                    print(f"| {name} | {len(by_file)} | {len(calls)} | {calls.total()} |")
                    if listing:
                        for path, functions in by_file.items():
                            print(f"    {path}: {', '.join(functions)}")


async def trace(http: httpx.AsyncClient, name: str, arguments: dict[str, Any]) -> Counter[CodeType]:
    """Return the functions that one call runs through, with the number of their calls."""
    await asyncio.sleep(FRESHNESS_SECONDS + 0.1)
    await call(http, "GetQuerySchema", {})  # now the key and the settings are checked again
    with traced() as calls:
        await call(http, name, arguments)
    return calls


def main() -> None:
    """Run the calls and print what they ran through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the files and their functions")
    asyncio.run(measure(parser.parse_args().list))


if __name__ == "__main__":
    main()
