"""Run the examples of docs/users/replicas.md: three servers, restarted while real clients call.

Called by `try_proxies.py --replicas [name …]`; the name `workers` runs `pvemcp serve --workers 3`
without a balancer, and `database` restarts PostgreSQL behind three servers. Needs PostgreSQL beside
what that script needs. Takes two minutes for each. It prints a row of the page's table, and fails
when a call of 2026-07-28 or of a session fails.
"""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from pvemcp_server.access import open_access
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from try_proxies import (
    BIN,
    PROXIES,
    PROXY,
    REPOSITORY,
    certificate,
    example,
    localized,
    misplace,
    running,
)

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from support.postgres import PostgresServer, postgres_server

PAGE = REPOSITORY / "docs" / "users" / "replicas.md"
ADDRESSES = ("192.0.2.11:8811", "192.0.2.12:8811", "192.0.2.13:8811")  # on the page
CLIENTS = {"auto": 6, "legacy": 6, "sse": 2}
START_SECONDS = 300.0
SETTINGS = {
    "enabled": True,
    "calls_per_minute_per_key": 100_000,
    "concurrent_calls_per_key": 64,
}


@dataclass
class Results:
    """What the clients of one era saw."""

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    slowest: float = 0.0


class Server:
    """One server process of its own port."""

    def __init__(self, port: int, log: Path, environment: Mapping[str, str], *more: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [str(BIN / "pvemcp"), "serve", "--port", str(port), *more]
        self._log = log
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    async def ready(self) -> None:
        """Return when it answers, to this check: only a balancer asks for /readyz."""
        until = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient() as http:
            while time.monotonic() < until:
                try:
                    if (await http.get(f"{self.url}/healthz", timeout=10)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)
        raise SystemExit(f"{self.url} does not answer:\n{self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        """Kill it, without a chance to end anything."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> float:
        """Stop it and return how many seconds that took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        code = await asyncio.to_thread(self.process.wait, 60)
        assert code == 0, code
        return time.monotonic() - began


def free_ports(number: int) -> list[int]:
    """Return free ports of the loopback address."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def prepared(config: Config) -> str:
    """Prepare the state; return a key."""
    async with open_store(config) as store, open_access(store) as access:
        await Settings(store).change(SETTINGS, by="try")
        return (await access.keys.create("try", role="Administrator"))[1]


@asynccontextmanager
async def connected(
    era: str, base: str, key: str, trust: ssl.SSLContext | bool
) -> AsyncIterator[Client]:
    """Connect a client of the official SDK."""

    def http(headers: Any = None, timeout: Any = 60, auth: Any = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=trust, headers=headers, timeout=timeout, auth=auth)

    async with http() as client:
        transport = (
            sse_client(f"{base}/sse/{key}", httpx_client_factory=http)
            if era == "sse"
            else streamable_http_client(f"{base}/mcp/{key}", http_client=client)
        )
        mode = "legacy" if era == "sse" else era
        async with Client(transport, mode=mode) as opened:  # type: ignore[arg-type]  # its literals
            yield opened


async def call_until(stop: asyncio.Event, connect: Callable[[], Any], results: Results) -> None:
    """Call one after the other until stopped; connect again when the connection is lost."""
    while not stop.is_set():
        try:
            async with connect() as client:
                while not stop.is_set():
                    began = time.monotonic()
                    results.calls += 1
                    try:
                        async with asyncio.timeout(60):
                            answer = await client.call_tool("ListClusters")
                        if answer.is_error:
                            results.failed[str(answer.content[0])[:200]] += 1
                    except Exception as error:
                        results.failed[repr(error)[:200]] += 1
                        raise
                    results.slowest = max(results.slowest, time.monotonic() - began)
                    await asyncio.sleep(0.1)
        except Exception:  # noqa: BLE001 - counted above; a new connection follows
            results.reconnects += 1


async def restart_each(servers: Sequence[Server]) -> list[float]:
    """Restart one server after the other; return how long each took to stop."""
    seconds = []
    for server in servers:
        seconds.append(await server.stop())
        server.start()
        await server.ready()
        await asyncio.sleep(5)  # balancers ask again
    return seconds


async def restart_database(database: PostgresServer) -> list[float]:
    """Restart PostgreSQL three times; return how long each took."""
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        await asyncio.to_thread(database.restart)
        seconds.append(time.monotonic() - began)
        await asyncio.sleep(5)
    return seconds


async def replace_workers(servers: Sequence[Server]) -> list[float]:
    """Let the parent of the workers replace them; return how long that took."""
    [server] = servers
    assert server.process is not None

    def children() -> set[str]:
        command = ["pgrep", "-P", str(server.process.pid)] if server.process else []
        return set(subprocess.run(command, capture_output=True, text=True).stdout.split())

    before, began = children(), time.monotonic()
    server.process.send_signal(signal.SIGHUP)
    while children() & before:  # noqa: ASYNC110 - processes have no event
        await asyncio.sleep(0.5)
    return [time.monotonic() - began]


async def under_load(
    base: str, key: str, trust: ssl.SSLContext, restart: Callable[[], Awaitable[list[float]]]
) -> tuple[dict[str, Results], list[float]]:
    """Restart the servers while clients of all eras call; return what these saw."""
    stop, results = asyncio.Event(), {era: Results() for era in CLIENTS}
    async with asyncio.TaskGroup() as tasks:
        for era, number in CLIENTS.items():
            for _ in range(number):

                def connect(era: str = era) -> Any:
                    return connected(era, base, key, trust)

                tasks.create_task(call_until(stop, connect, results[era]))
        await asyncio.sleep(5)
        try:
            seconds = await restart()
            await asyncio.sleep(3)
        finally:
            stop.set()
    return results, seconds


@dataclass(frozen=True)
class Fleet:
    """Servers, or one with workers, and what is in front of them."""

    base: str  # the address of clients
    servers: Sequence[Server]
    balancer: subprocess.Popen[bytes] | None


@contextmanager
def fleet(
    name: str, folder: Path, url: str, number: int = 3, first: Mapping[str, str] | None = None
) -> Iterator[Fleet]:
    """Start servers behind a balancer, or workers; `first` are variables of the first server."""
    is_behind = name != "workers"
    port, *ports = free_ports(1 + number)
    base = f"https://localhost:{port}" if is_behind else f"http://127.0.0.1:{port}"
    environment = {
        "PVEMCP_STATE_DIR": str(folder / "state"),
        "PVEMCP_DATABASE_URL": url,
        "PVEMCP_PUBLIC_URL": base,
        "PVEMCP_TRUSTED_PROXIES": "127.0.0.1",
    }
    more = () if is_behind else ("--workers", str(number))
    servers = [
        Server(each, folder / "server.log", environment, *more)
        for each in (ports if is_behind else [port])
    ]
    servers[0].environment = environment | dict(first or {})
    balancer = None
    with ExitStack() as stack:
        for server in servers:
            server.start()
        stack.callback(lambda: [each.process.terminate() for each in servers if each.process])
        if is_behind:
            proxy = "haproxy" if name == "database" else name
            text = example(proxy, PAGE)
            for address, each in zip(ADDRESSES, ports, strict=True):
                text = text.replace(address, f"127.0.0.1:{each}")
            home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}
            text = localized(text, folder).replace(str(PROXY), str(port))
            command = PROXIES[proxy](text, folder)
            balancer = stack.enter_context(running(command, folder / "proxy.log", **home))
        yield Fleet(base, servers, balancer)


def attempt(name: str, folder: Path, database: PostgresServer) -> bool:
    """Run one example; print its row, and return whether no call failed that must not."""
    trust = certificate(folder)
    config = Config(state_dir=folder / "state", database_url=database.url)  # type: ignore[arg-type]  # parsed
    key = asyncio.run(prepared(config))

    async def run() -> tuple[dict[str, Results], list[float]]:
        for server in running_fleet.servers:
            await server.ready()
        if name == "database":
            return await under_load(base, key, trust, lambda: restart_database(database))
        restart = replace_workers if name == "workers" else restart_each
        return await under_load(base, key, trust, lambda: restart(running_fleet.servers))

    with fleet(name, folder, database.url) as running_fleet:
        base = running_fleet.base
        results, seconds = asyncio.run(run())
        with httpx.Client(verify=trust, timeout=30) as client:
            misplace(client, base, key)
    cells = [f"{r.calls}, {r.failed.total()} failed" for r in results.values()]
    slowest = max(r.slowest for r in results.values())
    print(f"| {name} | {' | '.join(cells)} | {slowest:.1f} s | {max(seconds):.0f} s |", flush=True)
    for era, result in results.items():
        for error, count in result.failed.items():
            print(f"  {era}: {count} × {error}")
    leaks = [
        file.name
        for file in folder.glob("*.log")
        if file.name != "server.log" and key in file.read_text(errors="replace")
    ]
    assert not leaks, leaks
    return not (results["auto"].failed or results["legacy"].failed)


def main(names: Sequence[str]) -> None:
    """Run the examples of these proxies, or all; exit with 1 when a call failed."""
    print("| balancer | 2026-07-28 | sessions | HTTP+SSE | slowest call | to stop |")
    print("|---|---|---|---|---|---|")
    passed = True
    for name in names or (*PROXIES, "workers", "database"):
        if name in PROXIES and shutil.which(name) is None:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder, postgres_server() as database:
            passed = attempt(name, Path(folder), database) and passed
    raise SystemExit(0 if passed else 1)
