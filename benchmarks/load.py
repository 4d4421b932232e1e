"""Many clients of both eras at once, for a while: errors, latency, memory of the server.

Half of the clients speak 2026-07-28, half hold a 2025-11-25 session; each lists the tools, then
calls one, thinks, and calls again. Fails on any error and when memory grows.

    python benchmarks/load.py [--clients 500] [--seconds 60] [--think 2]
"""

import argparse
import asyncio
import random
import time
from dataclasses import dataclass, field

from endpoint import Connection, Server, percentile, requests, served

GROWTH = 1.1  # of memory, from the first half of the time to the end


@dataclass
class Results:
    """Latencies in seconds and errors of all clients of an era."""

    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def client(server: Server, era: str, until: float, think: float, results: Results) -> None:
    """Send the requests of one client one after another over one connection."""
    try:
        connection = await Connection(server.url).open()
        await asyncio.sleep(random.random() * think)
        written = await requests(connection, era)
        await request(connection, written("tools/list"), results)
        while time.monotonic() < until:
            await request(connection, written("tools/call"), results)
            await asyncio.sleep(random.uniform(0.5, 1.5) * think)
        connection.writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        results.errors.append(repr(error))


async def request(connection: Connection, raw: bytes, results: Results) -> None:
    began = time.perf_counter()
    status, _, body = await connection.send(raw)
    results.latencies.append(time.perf_counter() - began)
    if status != 200 or b'"result"' not in body:
        results.errors.append(f"{status} {body[:200]!r}")


async def watch_memory(server: Server, until: float) -> list[float]:
    """Return the server's memory in MiB, once a second."""
    sizes = []
    while time.monotonic() < until:
        sizes.append(server.process.memory_info().rss / 2**20)
        await asyncio.sleep(1)
    return sizes


async def load(server: Server, clients: int, seconds: float, think: float) -> bool:
    """Print the results; return whether there were no errors and no growth of memory."""
    until = time.monotonic() + seconds
    results = {"modern": Results(), "legacy": Results()}
    memory = asyncio.create_task(watch_memory(server, until))
    cpu = server.cpu()
    eras = ("modern", "legacy")
    await asyncio.gather(
        *(client(server, eras[n % 2], until, think, results[eras[n % 2]]) for n in range(clients))
    )
    sizes = await memory
    print("| era | requests | errors | p50 ms | p99 ms |")
    print("|---|---|---|---|---|")
    for era, result in results.items():
        p50, p99 = percentile(result.latencies, 0.5), percentile(result.latencies, 0.99)
        print(f"| {era} | {len(result.latencies)} | {len(result.errors)} | {p50:.1f} | {p99:.1f} |")
    early, late = max(sizes[: max(1, len(sizes) // 2)]), sizes[-1]
    used = (server.cpu() - cpu) / seconds * 100
    print(f"\n{clients} clients for {seconds:.0f} s; server: {used:.0f} % of a core,")
    print(f"memory {early:.0f} MiB after half of the time, {late:.0f} MiB at the end.")
    errors = [error for result in results.values() for error in result.errors]
    for error in errors[:5]:
        print("error:", error)
    return not errors and late <= early * GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--think", type=float, default=2.0)
    options = parser.parse_args()
    with served("ours") as server:
        passed = asyncio.run(load(server, options.clients, options.seconds, options.think))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
