"""What one chain of the audit carries on PostgreSQL: rows a second by three writers, and retention.

    python benchmarks/audit.py [--rows 1000000] [--seconds 10] [--writers 3]

Each writer is a process. `writes` have a row of their own before they are sent, of 8 calls at a
time; `reads` are stored together twice a second. `--calls 50` measures how long the intent of a
write waits while all processes together record so many calls a second, each of them a write with
intent and outcome, beside a hundred reads a second. Then the chain grows to so many rows, all older
than retention allows, and one process deletes them while another one appends a row at a time: how
long that takes, and how long an append waits.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pvemcp_server.audit import Audit, Event
from pvemcp_server.audit.audit import Kind
from pvemcp_server.config import Config
from pvemcp_server.store import Store, open_store
from support.postgres import postgres

AT_A_TIME = 8  # calls of a key
FILL = 2_000  # rows of one transaction
OLD = timedelta(days=400)
EVENT = Event(
    tool="ListVms",
    key_id="abcdefgh",
    key_name="laptop",
    address="192.0.2.7",
    client="example 1.0",
    cluster="home-lab",
    arguments={"cluster_name": "home-lab", "fields": ["vmid", "name", "status"]},
    outcome=None,
    rows=100,
    bytes=4_000,
    duration_ms=12,
)


def config_of(folder: str, url: str) -> Config:
    return Config(state_dir=folder, database_url=url)  # type: ignore[arg-type]  # parsed


async def write(store: Store, kind: str, until: float) -> int:
    """Append as a server does until then; return the number of rows."""
    audit, count = Audit(store), 0

    async def calls() -> None:
        nonlocal count
        while time.time() < until:
            await audit.intent(EVENT)
            count += 1

    if kind == "writes":
        await asyncio.gather(*(calls() for _ in range(AT_A_TIME)))
        return count
    while time.time() < until:
        for _ in range(FILL):
            await audit.call(EVENT)
        await audit.flush()
        count += FILL
    return count


async def record_calls(store: Store, calls: float, until: float) -> list[float]:
    """Record so many calls a second at random moments; return the seconds that intents took."""
    audit, waits, luck = Audit(store), [], random.Random()

    async def call() -> None:
        began = time.perf_counter()
        call_id = await audit.intent(EVENT)
        waits.append(time.perf_counter() - began)
        await audit.outcome(call_id, EVENT)

    async def flush() -> None:
        while time.time() < until:
            await asyncio.sleep(0.5)
            await audit.flush()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flush())
        while time.time() < until:
            tasks.create_task(call())
            for _ in range(2):
                await audit.call(EVENT)
            await asyncio.sleep(luck.expovariate(calls))
    return waits


async def writer(folder: str, url: str, kind: str, begin: float, seconds: float) -> None:
    """Write as a process of its own, from a common moment on; print the number of rows.

    A kind that is a number is the calls a second; then print how long each intent took.
    """
    async with open_store(config_of(folder, url)) as store:
        await asyncio.sleep(max(0.0, begin - time.time()))
        if kind in ("writes", "reads"):
            print(await write(store, kind, begin + seconds))
        else:
            print(json.dumps(await record_calls(store, float(kind), begin + seconds)))


def printed(folder: str, url: str, kind: str, writers: int, seconds: float) -> list[bytes]:
    """Return what so many processes have printed that wrote at the same time."""
    begin = time.time() + 5 + 5 * writers  # their start takes seconds
    options = (folder, url, kind, str(begin), str(seconds))
    processes = [
        subprocess.Popen([sys.executable, __file__, "--writer", *options], stdout=subprocess.PIPE)
        for _ in range(writers)
    ]
    return [each.communicate()[0] for each in processes]


def rate(folder: str, url: str, kind: str, writers: int, seconds: float) -> float:
    """Return the rows a second of so many processes."""
    return sum(map(int, printed(folder, url, kind, writers, seconds))) / seconds


def intents(folder: str, url: str, calls: float, writers: int, seconds: float) -> str:
    """Return how long intents took at so many calls a second of all processes."""
    texts = printed(folder, url, str(calls / writers), writers, seconds)
    waits = sorted(wait * 1000 for text in texts for wait in json.loads(text))
    p99 = waits[int(len(waits) * 0.99)]
    return (
        f"{len(waits) / seconds:.0f} writes a second by {writers} processes: an intent took "
        f"{waits[len(waits) // 2]:.1f} ms (median), {p99:.0f} ms (p99), {waits[-1]:.0f} ms at most"
    )


async def fill(store: Store, rows: int) -> None:
    """Let the chain grow by so many old rows."""
    at = datetime.now(UTC) - OLD
    row = EVENT.row(Kind.CALL, at)
    for _ in range(0, rows, FILL):
        await store.audit_log.append([{**row, "call_id": uuid4().hex} for _ in range(FILL)])


async def retention(folder: str, url: str, rows: int) -> dict[str, Any]:
    """Delete the old rows while another process's writes append; return the figures."""
    async with (
        open_store(config_of(folder, url)) as store,
        open_store(config_of(folder, url)) as other,
    ):
        began = time.perf_counter()
        await fill(store, rows)
        filled = time.perf_counter() - began
        waits: list[float] = []
        pruning = asyncio.create_task(
            store.audit_log.prune(datetime.now(UTC) - timedelta(days=180))
        )
        began = time.perf_counter()
        while not pruning.done():
            before = time.perf_counter()
            await other.audit_log.append([EVENT.row(Kind.INTENT, datetime.now(UTC))])
            waits.append(time.perf_counter() - before)
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        waits.sort()
        return {
            "filled": filled,
            "deleted": (await pruning).rows,
            "seconds": seconds,
            "appends": len(waits),
            "median": waits[len(waits) // 2] * 1000,
            "p99": waits[int(len(waits) * 0.99)] * 1000,
            "longest": waits[-1] * 1000,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--calls", type=float, help="only: how long an intent takes at this rate")
    parser.add_argument("--writer", nargs=5)
    options = parser.parse_args()
    if options.writer:
        folder, url, kind, begin, seconds = options.writer
        asyncio.run(writer(folder, url, kind, float(begin), float(seconds)))
        return
    with tempfile.TemporaryDirectory() as folder, postgres() as url:

        async def prepare() -> None:
            async with open_store(config_of(folder, url)):
                pass

        asyncio.run(prepare())
        if options.calls:
            print(intents(folder, url, options.calls, options.writers, options.seconds))
            return
        found = asyncio.run(retention(folder, url, options.rows))
        print(
            f"Retention of {found['deleted']} rows: {found['seconds']:.0f} s; in that time "
            f"{found['appends']} appends waited {found['median']:.0f} ms (median), "
            f"{found['p99']:.0f} ms (p99), {found['longest']:.0f} ms at most. "
            f"Filling took {found['filled']:.0f} s.\n"
        )
        print("| rows a second | 1 process | several |\n|---|---|---|")
        for kind in ("writes", "reads"):
            one, all_ = (
                rate(folder, url, kind, number, options.seconds) for number in (1, options.writers)
            )
            print(f"| {kind} | {one:.0f} | {options.writers}: {all_:.0f} |", flush=True)


if __name__ == "__main__":
    main()
