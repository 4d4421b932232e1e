"""Compare the bridge with other bridges in one run against one server.

`--write` updates the table in docs/users/bridge.md. It
takes some minutes, less with fewer rounds.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2 as httpx
import psutil

from support.bridge_peers import Peer, peers, trial_server
from support.in_docs import renew_or_check

PAGE = Path(__file__).parents[1] / "docs" / "users" / "bridge.md"
IN_FLIGHT = 64
STARTS = 1
CLIENT = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}
CALL = {"name": "echo", "arguments": {"text": "x" * 200}}
DIRECT = Peer("direct HTTP", ())


class Link(Protocol):
    """Connection to the server."""

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request and return its result."""


class Stdio:
    """Connection through a bridge process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        reply = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        self._write({"id": self._number, "method": method, "params": params})
        return await reply

    def notify(self, method: str) -> None:
        self._write({"method": method})

    def _write(self, message: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def _read(self) -> None:
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") in self._waiting and "method" not in message:
                self._waiting.pop(message["id"]).set_result(message["result"])


class Direct:
    """Direct HTTP connection; like the bridge, with one client per request in flight.

    A pool would scan its connections for every request, which would count as time of the server.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._number = 0
        self._headers = {"accept": "application/json, text/event-stream"}
        self._idle: list[httpx.AsyncClient] = []

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        reply = await self._post({"id": self._number, "method": method, "params": params})
        session = reply.headers.get("mcp-session-id")
        if session:
            self._headers |= {"mcp-session-id": session, "mcp-protocol-version": "2025-06-18"}
        data = next(line for line in reply.text.splitlines() if line.startswith("data: {"))
        return json.loads(data[6:])["result"]

    async def open(self) -> None:
        await self.request("initialize", CLIENT)
        await self._post({"method": "notifications/initialized"})

    async def aclose(self) -> None:
        for client in self._idle:
            await client.aclose()

    async def _post(self, message: dict[str, Any]) -> httpx.Response:
        client = self._idle.pop() if self._idle else httpx.AsyncClient(timeout=60, verify=False)
        message = {"jsonrpc": "2.0", **message}
        reply = await client.post(self._url, json=message, headers=self._headers)
        self._idle.append(client)
        return reply


@dataclass
class Figures:
    """Measurements of one bridge; times in milliseconds."""

    starts: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)


@asynccontextmanager
async def started(peer: Peer, figures: Figures) -> AsyncIterator[tuple[Stdio, psutil.Process]]:
    """Start a bridge, make the handshake and record the time until its reply."""
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *peer.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 24,
    )
    link = Stdio(process)
    try:
        await asyncio.wait_for(link.request("initialize", CLIENT), 60)
        figures.starts.append((time.perf_counter() - start) * 1000)
        link.notify("notifications/initialized")
        yield link, psutil.Process(process.pid)
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()


async def sequential(link: Link, calls: int) -> float:
    """Return the median time of calls one after the other."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        await link.request("tools/call", CALL)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


async def concurrent(link: Link, calls: int) -> float:
    """Return the calls per second with many in flight."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await link.request("tools/call", CALL)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return calls / (time.perf_counter() - start)


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_ms(process: psutil.Process) -> float:
    return sum(sum(item.cpu_times()[:2]) for item in tree(process)) * 1000


def memory_mb(process: psutil.Process) -> float:
    return sum(item.memory_info().rss for item in tree(process)) / 1e6


async def measure(
    peer: Peer, figures: Figures, calls: int, count_connections: Callable[[], int]
) -> None:
    """Measure one round of one bridge."""
    before = count_connections()
    async with started(peer, figures) as (link, process):
        await link.request("tools/list", {})
        used = cpu_ms(process)
        figures.p50.append(await sequential(link, calls))
        figures.cpu.append((cpu_ms(process) - used) / calls)
        figures.connections.append(count_connections() - before)
        figures.rate.append(await concurrent(link, calls))
        figures.memory.append(memory_mb(process))


async def measure_direct(url: str, figures: Figures, calls: int) -> None:
    """Measure one round without a bridge."""
    async with aclosing(Direct(url)) as link:
        await link.open()
        figures.p50.append(await sequential(link, calls))
        figures.rate.append(await concurrent(link, calls))


async def measure_all(url: str, rounds: int, calls: int) -> dict[Peer, Figures]:
    """Measure all bridges round by round, so that other load affects all of them."""
    results = {DIRECT: Figures()} | {peer: Figures() for peer in peers(url)}
    parts = urlsplit(url)

    def count_connections() -> int:
        return int(httpx.get(f"{parts.scheme}://{parts.netloc}/connections").text)

    for number in range(rounds):
        for peer, figures in results.items():
            print(f"round {number + 1}: {peer.name}", file=sys.stderr)
            if peer is DIRECT:
                await measure_direct(url, figures, calls)
                continue
            await measure(peer, figures, calls, count_connections)
            for _ in range(STARTS):
                async with started(peer, figures):
                    pass
    return results


def table(results: dict[Peer, Figures]) -> str:
    """Return the best round of each as a Markdown table; other load only makes rounds slower."""
    direct = results[DIRECT]
    p50, rate = min(direct.p50), max(direct.rate)
    lines = [
        "| | start | CPU per call | calls/s | of direct | p50 | memory | connections |",
        "|---|---|---|---|---|---|---|---|",
        f"| direct HTTP | | | {rate:.0f} | | {p50:.1f} ms | | |",
    ]
    for peer, figures in results.items():
        if peer is DIRECT:
            continue
        lines.append(
            f"| {peer.name} | {min(figures.starts):.0f} ms | {min(figures.cpu):.1f} ms "
            f"| {max(figures.rate):.0f} | {max(figures.rate) / rate:.0%} "
            f"| {min(figures.p50) - p50:+.1f} ms | {max(figures.memory):.0f} MB "
            f"| {max(figures.connections):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400, help="number of each kind per round")
    parser.add_argument("--write", action="store_true", help="update the table in the docs")
    arguments = parser.parse_args()
    with trial_server() as url:
        results = asyncio.run(measure_all(url, arguments.rounds, arguments.calls))
    renew_or_check(PAGE, "figures", table(results), ["--write"] if arguments.write else [])


if __name__ == "__main__":
    main()
