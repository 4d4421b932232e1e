"""Calls per second and CPU per call of the endpoint, beside the bare SDK and a bare FastAPI route.

All run as processes of their own with the same tools; requests go over kept-alive loopback
connections, in turns, and each figure is the best round. Bar: at most 0.7 ms CPU above the SDK.

    python benchmarks/endpoint.py [--seconds 2] [--rounds 3]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

PEERS = Path(__file__).parent / "support" / "endpoint_peers.py"
NAMES = ("route", "sdk", "ours")
BAR = 0.7  # ms of CPU that our pipeline may add to a call
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALL = {"name": "PingNode", "arguments": {"node": "pve1"}}


@dataclass(frozen=True)
class Server:
    url: str
    process: psutil.Process

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


@dataclass
class Figure:
    """The best values of all rounds."""

    rate: float = 0.0
    cpu_ms: float = float("inf")
    latencies: list[float] = field(default_factory=list)


@contextmanager
def served(name: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, PEERS, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Server(process.stdout.readline().strip(), psutil.Process(process.pid))
    finally:
        process.communicate()


class Connection:
    """Just enough HTTP/1.1 to keep the client's own cost small."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)

    async def open(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(
            self.parts.hostname, self.parts.port
        )
        return self

    def request(self, message: dict, headers: dict[str, str]) -> bytes:
        body = json.dumps(message).encode()
        head = {
            "Host": self.parts.netloc,
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }
        lines = [f"POST {self.parts.path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def send(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(raw)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self._chunks()
        return int(status.split()[1]), headers, body

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size + 2)
        await self.reader.readline()
        return body


def modern(connection: Connection, method: str) -> bytes:
    params = {**(CALL if method == "tools/call" else {}), "_meta": META}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    if method == "tools/call":
        headers["Mcp-Name"] = CALL["name"]
    return connection.request(message, headers)


async def opened(connection: Connection) -> dict[str, str]:
    """Open a session; return the headers of requests in it."""
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    _, answered, _ = await connection.send(connection.request(message, {}))
    headers = {"MCP-Protocol-Version": "2025-11-25"}
    if session := answered.get("mcp-session-id"):
        headers["Mcp-Session-Id"] = session
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await connection.send(connection.request(ready, headers))
    return headers


def legacy(connection: Connection, session: dict[str, str], method: str) -> bytes:
    """Return the bytes of a request in that session."""
    params = CALL if method == "tools/call" else {}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return connection.request(message, session)


async def requests(connection: Connection, era: str) -> Callable[[str], bytes]:
    """Return a function that encodes a request by its method, in an open session if legacy."""
    if era == "modern":
        return partial(modern, connection)
    return partial(legacy, connection, await opened(connection))


async def measure(
    server: Server, era: str, method: str, seconds: float, clients: int, figure: Figure
) -> None:
    """Run one round: on each of `clients` connections one request after another."""
    connections = [await Connection(server.url).open() for _ in range(clients)]
    raws = [(await requests(connection, era))(method) for connection in connections]
    count = 0
    cpu, start = server.cpu(), time.perf_counter()

    async def run(connection: Connection, raw: bytes) -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            began = time.perf_counter()
            status, _, body = await connection.send(raw)
            assert status == 200, body
            assert b'"result"' in body, body
            figure.latencies.append(time.perf_counter() - began)
            count += 1

    await asyncio.gather(*(run(*pair) for pair in zip(connections, raws, strict=True)))
    figure.rate = max(figure.rate, count / (time.perf_counter() - start))
    figure.cpu_ms = min(figure.cpu_ms, (server.cpu() - cpu) / count * 1000)
    for connection in connections:
        connection.writer.close()


async def compare(servers: dict[str, Server], seconds: float, rounds: int) -> float:
    """Print the table; return the CPU ms per tools/call that our server adds to the SDK."""
    print("| era, method | peer | calls/s | p50 ms | p99 ms | CPU ms/call |")
    print("|---|---|---|---|---|---|")
    added = 0.0
    for era, method in (
        ("modern", "tools/call"),
        ("modern", "tools/list"),
        ("legacy", "tools/call"),
        ("legacy", "tools/list"),
    ):
        figures = {name: Figure() for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                await measure(server, era, method, seconds, 4, figures[name])
        for name, figure in figures.items():
            low, high = percentile(figure.latencies, 0.5), percentile(figure.latencies, 0.99)
            print(
                f"| {era} {method} | {name} | {figure.rate:.0f} | {low:.1f} | {high:.1f} "
                f"| {figure.cpu_ms:.2f} |"
            )
        if method == "tools/call":
            added = max(added, figures["ours"].cpu_ms - figures["sdk"].cpu_ms)
    return added


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(served(name)) for name in NAMES}
        added = asyncio.run(compare(servers, options.seconds, options.rounds))
    print(f"\nOur pipeline adds {added:.2f} ms CPU to a call of the bare SDK (bar: {BAR}).")
    return 0 if added <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
