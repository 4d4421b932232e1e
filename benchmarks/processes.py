"""Several server processes on one PostgreSQL database: whether they act as one, and what it costs.

    python benchmarks/processes.py [--processes 3]

Starts PostgreSQL, an emulated cluster and the servers on loopback addresses. Times depend on the
machine; read them as ratios.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx2 as httpx
import psutil

from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.gateway import Gateway
from pvemcp_server.access import open_access
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import Store, open_store
from support.lab import add_lab
from support.postgres import postgres

VERSION = "2026-07-28"
FRESHNESS = 2  # seconds
PERIODS = 8
GUESTS = 100
START = "from pvemcp_server.cli.main import app; app()"


@dataclass
class Server:
    """A server process and a client of it."""

    process: psutil.Popen
    http: httpx.AsyncClient
    key: str

    async def send(self, method: str, **params: Any) -> httpx.Response:
        meta = {
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        message = {"jsonrpc": "2.0", "id": 1, "method": method}
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": method,
        }
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
        body = message | {"params": params | {"_meta": meta}}
        return await self.http.post(f"/mcp/{self.key}", json=body, headers=headers)

    async def call(self, name: str, **arguments: Any) -> str:
        return (await self.send("tools/call", name=name, arguments=arguments)).text


@asynccontextmanager
async def serving(environment: dict[str, str], key: str) -> AsyncIterator[Server]:
    """Start a server process on a free port, and wait until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START, "serve", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = psutil.Popen(command, env=os.environ | environment, **quiet)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            await until(partial(is_ready, http), 60)
            yield Server(process, http, key)
    finally:
        process.kill()
        process.wait()


async def is_ready(http: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await http.get("/readyz")).status_code == 200
    return False


async def until(fact: Callable[[], Awaitable[bool]], longest: float = 30) -> float:
    """Return the seconds until the fact is true."""
    began = time.perf_counter()
    while not await fact() and time.perf_counter() - began < longest:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def rate(servers: list[Server], settings: Settings) -> str:
    await settings.change({"calls_per_minute_per_key": 60}, by="benchmark")
    await asyncio.sleep(2)
    began, admitted = time.monotonic(), 0
    for _ in range(100):
        answers = await asyncio.gather(*(server.send("ping") for server in servers))
        admitted += sum(answer.status_code != 429 for answer in answers)
    allowed = 60 + time.monotonic() - began
    await settings.change({"calls_per_minute_per_key": 1_000_000}, by="benchmark")
    await asyncio.sleep(2)
    return f"{admitted} of {allowed:.0f} allowed ({admitted / allowed:.2f})"


async def at_once(servers: list[Server], settings: Settings, running: list[int]) -> str:
    await settings.change({"concurrent_calls_per_key": 2}, by="benchmark")
    await asyncio.sleep(2)
    running[1] = 0
    calls = [server.call("ListTasks") for server in servers for _ in range(4)]
    await asyncio.gather(*calls)
    await settings.change({"concurrent_calls_per_key": 64}, by="benchmark")
    await asyncio.sleep(2)
    return f"{running[1]} of 2"


async def all_differ(servers: list[Server], before: list[str]) -> bool:
    after = [await server.call("ListVms") for server in servers]
    return all(new != old for new, old in zip(after, before, strict=True))


async def seen_write(servers: list[Server]) -> str:
    seconds = []
    for action in ("Stop", "Start", "Stop", "Start"):
        before = [await server.call("ListVms") for server in servers]
        await servers[0].call("ChangeVmState", vmid=100, action=action, wait=True)

        seconds.append(await until(partial(all_differ, servers[1:], before[1:])))
    return f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s"


async def all_admit(servers: list[Server], *, enabled: bool) -> bool:
    answers = await asyncio.gather(*(server.send("ping") for server in servers))
    return all((answer.status_code not in (401, 429)) == enabled for answer in answers)


async def seen_change(servers: list[Server], store: Store, key_id: str) -> str:
    seconds = []
    for enabled in (False, True) * 5:
        await asyncio.sleep(0.7)  # no call has just read the versions
        await store.keys.change(key_id, enabled=enabled)

        seconds.append(await until(partial(all_admit, servers, enabled=enabled)))
    return f"{statistics.median(seconds) * 1000:.0f} ms, at most {max(seconds) * 1000:.0f} ms"


async def polls(servers: list[Server], settings: Settings, asked: list[str]) -> str:
    await settings.change({"inventory_freshness_seconds": FRESHNESS}, by="benchmark")
    await asyncio.sleep(2 + FRESHNESS)
    for server in servers:
        await server.call("ListVms")
    asked.clear()
    ends = time.monotonic() + PERIODS * FRESHNESS

    async def reads(server: Server) -> None:
        while time.monotonic() < ends:
            await server.call("ListVms")
            await asyncio.sleep(0.05)

    await asyncio.gather(*map(reads, servers))
    number = len(asked)
    await settings.change({"inventory_freshness_seconds": 600}, by="benchmark")
    await asyncio.sleep(2)
    return f"{number / PERIODS:.2f} a period"


async def cost(server: Server, calls: int = 1000) -> tuple[float, float]:
    """Return calls a second and CPU milliseconds a call of one connection."""
    await server.call("ListVms")
    cpu = sum(server.process.cpu_times()[:2])
    began = time.perf_counter()
    for _ in range(calls):
        await server.call("ListNodes")
    seconds = time.perf_counter() - began
    return calls / seconds, (sum(server.process.cpu_times()[:2]) - cpu) * 1000 / calls


async def spaced(server: Server, calls: int = 30) -> tuple[float, float]:
    """Return median milliseconds, and those of CPU, of calls a second apart."""
    cpu, times = sum(server.process.cpu_times()[:2]), []
    for _ in range(calls):
        await asyncio.sleep(0.25)
        began = time.perf_counter()
        await server.call("ListNodes")
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), (sum(server.process.cpu_times()[:2]) - cpu) * 1000 / calls


async def at_rest(url: str, processes: int) -> str:
    connection = await asyncpg.connect(url)
    query = "SELECT sum(xact_commit) FROM pg_stat_database"
    await asyncio.sleep(3)  # statistics are reported with a delay
    before, began = await connection.fetchval(query), time.monotonic()
    await asyncio.sleep(15)
    number = await connection.fetchval(query) - before
    await connection.close()
    return f"{float(number) / (time.monotonic() - began) / processes:.1f} a second"


def watched(asked: list[str], running: list[int]) -> None:
    """Count requests for the inventory, and those for tasks that run at once, which take 0.3 s."""
    answer = Gateway.answer

    async def counted(gateway: Gateway, request: Any) -> Any:
        path = request.path
        if path.endswith("/cluster/resources"):
            asked.append(path)
        if not path.endswith("/tasks"):
            return await answer(gateway, request)
        running[0] += 1
        running[1] = max(running)
        try:
            await asyncio.sleep(0.3)
            return await answer(gateway, request)
        finally:
            running[0] -= 1

    Gateway.answer = counted


async def prepared(config: Config, emulator: Emulator, stack: AsyncExitStack) -> Any:
    store = await stack.enter_async_context(open_store(config))
    access = await stack.enter_async_context(open_access(store))
    settings = Settings(store)
    values = {"enabled": True, "inventory_freshness_seconds": 600, "call_deadline_seconds": 60}
    values |= {"calls_per_minute_per_key": 1_000_000, "unconfirmed_destructive": "allow"}
    await settings.change(values, by="benchmark")
    await add_lab(access, emulator["lab"])
    key, text = await access.keys.create("benchmark", role="Administrator")
    return store, settings, key.id, text


async def main(processes: int) -> None:
    asked: list[str] = []
    running = [0, 0]
    watched(asked, running)
    async with AsyncExitStack() as stack:
        scenario = Scenario.cluster("lab", nodes=1, guests=GUESTS)
        emulator = await stack.enter_async_context(Emulator(scenario, clock=Clock(200.0)))
        url = stack.enter_context(postgres())
        state = stack.enter_context(TemporaryDirectory())
        config = Config(state_dir=Path(state) / "var", database_url=url)
        store, settings, key_id, key = await prepared(config, emulator, stack)
        environment = {"PVEMCP_STATE_DIR": str(config.state_dir), "PVEMCP_DATABASE_URL": url}
        servers = [
            await stack.enter_async_context(serving(environment, key)) for _ in range(processes)
        ]
        show("calls admitted at 60 a minute", await rate(servers, settings))
        show("calls at once at a limit of 2", await at_once(servers, settings, running))
        show("a write through another process is seen after", await seen_write(servers))
        show("a disabled key is refused after", await seen_change(servers, store, key_id))
        show("requests for the inventory", await polls(servers, settings, asked))
        show("transactions of an idle process", await at_rest(url, processes))
        show(
            "calls of one connection",
            "{:.0f} a second, {:.2f} ms of CPU each",
            *await cost(servers[0]),
        )
        show("calls 0.25 s apart", "{:.1f} ms, {:.2f} ms of CPU each", *await spaced(servers[0]))
        sqlite = Config(state_dir=Path(state) / "sqlite")
        key = (await prepared(sqlite, emulator, stack))[-1]
        alone = {"PVEMCP_STATE_DIR": str(sqlite.state_dir)}
        server = await stack.enter_async_context(serving(alone, key))
        show("on SQLite", "{:.0f} a second, {:.2f} ms of CPU each", *await cost(server))


def show(title: str, text: str, *values: float) -> None:
    print(f"| {title} | {text.format(*values)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=3)
    asyncio.run(main(parser.parse_args().processes))
