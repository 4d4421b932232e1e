"""Soak test: 100,000 GETs over breaking connections; none may fail, nothing may leak.

    python benchmarks/soak_client.py [count]

The emulated cluster closes idle connections after a second, often while the next request is on
its way, closes every connection after 100 requests, and breaks off 1 % of its answers halfway.
"""

import asyncio
import random
import resource
import sys
import time
from pathlib import Path

from proxmox_client import Client, Limits
from support.pve import client_of, emulated

WORKERS, IDLE, DROPS = 8, 1.0, 1.0


def main() -> None:
    """Run the soak test and print the result; exit with 1 if a request failed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with emulated(nodes=3, guests=30, drops=DROPS, idle=IDLE) as pve:
        failures = asyncio.run(soak(client_of(pve, Limits(per_cluster=WORKERS)), count))
    raise SystemExit(1 if failures else 0)


async def soak(client: Client, count: int) -> list[BaseException]:
    """Send `count` requests and return the failures."""
    started, failures = time.perf_counter(), []
    async with client:
        await client.version()
        files, memory = open_files(), peak_memory()
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                share = count // WORKERS
                group.create_task(work(client, share, random.Random(number), failures))
        growth, leaked = peak_memory() - memory, open_files() - files
    seconds = time.perf_counter() - started
    print(f"{count:,} GETs in {seconds:.0f} s: {len(failures)} failed", failures[:3] or "")
    print(f"peak memory grew by {growth / 1024:.1f} MiB, {leaked} more open files than before")
    return failures


async def work(
    client: Client, count: int, luck: random.Random, failures: list[BaseException]
) -> None:
    """Send requests one by one; after each 60 pause for about the server's idle limit."""
    for number in range(count):
        try:
            await client.version()
        except Exception as error:  # noqa: BLE001 - every failure counts
            failures.append(error)
        if number % 60 == 59:
            await asyncio.sleep(luck.uniform(0.95 * IDLE, 1.05 * IDLE))


def open_files() -> int:
    """Count the open files and sockets of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def peak_memory() -> int:
    """Return the peak memory of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
