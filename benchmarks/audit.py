"""What one chain of the audit carries on PostgreSQL: rows a second by three writers, and retention.

    python benchmarks/audit.py [--rows 1000000] [--seconds 10] [--writers 3]

Each writer is a process. `writes` have a row of their own before they are sent, of 8 calls at a
time; `reads` are stored together twice a second. Then the chain grows to so many rows, all older
than retention allows, and one process deletes them while another one appends a row at a time: how
long that takes, and how long an append waits.
"""

import argparse
import asyncio
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


async def writer(folder: str, url: str, kind: str, begin: float, seconds: float) -> None:
    """Write as a process of its own, from a common moment on; print the number of rows."""
    async with open_store(config_of(folder, url)) as store:
        await asyncio.sleep(max(0.0, begin - time.time()))
        print(await write(store, kind, begin + seconds))


def rate(folder: str, url: str, kind: str, writers: int, seconds: float) -> float:
    """Return the rows a second of so many processes."""
    begin = time.time() + 5 + 5 * writers  # their start takes seconds
    options = (folder, url, kind, str(begin), str(seconds))
    processes = [
        subprocess.Popen([sys.executable, __file__, "--writer", *options], stdout=subprocess.PIPE)
        for _ in range(writers)
    ]
    return sum(int(each.communicate()[0]) for each in processes) / seconds


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
