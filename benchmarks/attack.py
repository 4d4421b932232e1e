"""Latency of a valid key's calls, quiet and beside an attack from the key's own address.

The attack: keyless requests at 2 and at 30 a second, 60 bodies sent a byte a second, half of them
to the sign-in page, and 40 wrong sign-ins a minute. The limits of addresses are the defaults, so
strangers are refused; the key's calls must not be. The attack runs in a process of its own: what
it costs the attacker does not count. Quiet and attacked phases alternate, and the medians of their
p99 are compared. Fails on a refused call, or when p99 grows by more than a fifth.

    python benchmarks/attack.py [--seconds 20] [--rounds 6]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

from endpoint import Connection, Server, modern, percentile, served

CALLS_PER_SECOND = 40.0
SLOW_BODIES = 60
START_SECONDS = 3.0  # of the attacker's process, and until its first bodies are slow
GROWTH = 1.2
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Attack:
    """What strangers send to a server, and how it answers."""

    url: str
    statuses: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Run the attack until stdin ends; print how the server answered, as JSON."""
        async with asyncio.TaskGroup() as tasks:
            attackers = [
                tasks.create_task(self._repeat(self._keyless, 1 / 2)),
                tasks.create_task(self._repeat(self._keyless, 1 / 30)),
                tasks.create_task(self._repeat(self._sign_in, 60 / 40)),
                *(tasks.create_task(self._slow_body(n)) for n in range(SLOW_BODIES)),
            ]
            await asyncio.to_thread(sys.stdin.read)
            for attacker in attackers:
                attacker.cancel()
        print(json.dumps(self.statuses))

    async def _repeat(self, attempt: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            began = time.monotonic()
            await attempt()
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

    async def _keyless(self) -> None:
        connection = await self._connection("/mcp")
        await self._count("keyless", connection, modern(connection, "tools/list"))

    async def _sign_in(self) -> None:
        connection = await self._connection("/admin/sign-in")
        body = urlencode({"name": "admin", "password": "a wrong password"}).encode()
        raw = head(connection, len(body), FORM) + body
        await self._count("sign-in", connection, raw)

    async def _slow_body(self, number: int) -> None:
        """Send a body a byte a second; begin again as often as the server ends it."""
        while True:
            connection = await self._connection("/admin/sign-in" if number % 2 else "/mcp")
            try:
                connection.writer.write(head(connection, 10_000, FORM))
                while not connection.reader.at_eof() and not connection.writer.is_closing():
                    connection.writer.write(b"a")
                    await connection.writer.drain()
                    await asyncio.sleep(1)
            except OSError:
                pass  # the server has closed it: the next one follows
            finally:
                connection.writer.close()

    async def _connection(self, path: str) -> Connection:
        connection = Connection(self.url)
        connection.parts = connection.parts._replace(path=path)
        return await connection.open()

    async def _count(self, kind: str, connection: Connection, raw: bytes) -> None:
        status, _, _ = await connection.send(raw)
        self.statuses[f"{kind} {status}"] += 1
        connection.writer.close()


@contextmanager
def attacked(server: Server, statuses: Counter[str]) -> Iterator[None]:
    """Run the attack in another process while inside; count its answers afterwards."""
    command = [sys.executable, __file__, "--against", server.url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        statuses.update(json.loads(process.communicate()[0]))


def head(connection: Connection, length: int, headers: dict[str, str]) -> bytes:
    parts = connection.parts
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {length}"]
    lines += [f"Origin: {parts.scheme}://{parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def calls(server: Server, seconds: float, refused: list[str]) -> list[float]:
    """Call a tool at a steady rate over one connection; return the latencies in seconds."""
    connection = await Connection(server.url).open()
    raw = modern(connection, "tools/call")
    latencies, until = [], time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        status, _, body = await connection.send(raw)
        latencies.append(time.monotonic() - began)
        if status != 200 or b'"result"' not in body:
            refused.append(f"{status} {body[:200]!r}")
        await asyncio.sleep(max(0.0, began + 1 / CALLS_PER_SECOND - time.monotonic()))
    connection.writer.close()
    return latencies


async def compare(server: Server, seconds: float, rounds: int) -> bool:
    """Print the figures of both phases; return whether the key's calls were unharmed."""
    refused: list[str] = []
    quiet: list[list[float]] = []
    beside: list[list[float]] = []
    statuses: Counter[str] = Counter()
    await calls(server, 2, refused)  # warm
    for _ in range(rounds):
        quiet.append(await calls(server, seconds, refused))
        with attacked(server, statuses):
            await asyncio.sleep(START_SECONDS)
            beside.append(await calls(server, seconds, refused))
    print("| phase | calls | p50 ms | p99 ms, median of rounds |")
    print("|---|---|---|---|")
    p99 = {}
    for name, phases in (("quiet", quiet), ("beside the attack", beside)):
        everything = [latency for phase in phases for latency in phase]
        p99[name] = statistics.median(percentile(phase, 0.99) for phase in phases)
        print(
            f"| {name} | {len(everything)} | {percentile(everything, 0.5):.2f} | {p99[name]:.2f} |"
        )
    growth = p99["beside the attack"] / p99["quiet"]
    print(f"\np99 grows {growth:.2f} times; refused calls of the key: {len(refused)}.")
    print("Answers to the attack:", dict(sorted(statuses.items())))
    for error in refused[:5]:
        print("error:", error)
    return not refused and growth <= GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--against", metavar="URL", help="only attack this server, until stdin ends"
    )
    options = parser.parse_args()
    if options.against:
        asyncio.run(Attack(options.against).run())
        return 0
    with served("attacked") as server:
        passed = asyncio.run(compare(server, options.seconds, options.rounds))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
