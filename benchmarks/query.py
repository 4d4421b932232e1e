"""Times eight typical queries: our engine beside DuckDB and Polars, on the same rows in one run.

Each engine and size has a process of its own, so that memory and imports are its own. Queries and
loading are told in processor time: it does not depend on what else the machine does.
Needs duckdb, polars, pandas and psutil; an engine that is not installed is left out.

    python benchmarks/query.py            print the table
    python benchmarks/query.py --write    renew it in docs/users/query.md
"""

import asyncio
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from statistics import quantiles
from time import perf_counter, process_time
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "users" / "query.md"
SIZES = (1_000, 20_000, 100_000)
SECONDS = 4.0  # of asking, per engine and size
LOADS = 5  # of which the one counts that met the least of what else the machine did
MODULES = {"DuckDB": ("duckdb", "pandas"), "Polars": ("polars",)}


def main() -> None:
    """Measure each in a child, check that all answer alike, then print or write."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asyncio.run(measure(sys.argv[2], int(sys.argv[3])))))
        return
    from support.in_docs import renew_or_check

    lines = [
        "| guests | engine | p50 | p99 | load | loop stall | memory | import |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for size in SIZES:
        found = {name: one for name in ("SQLite (ours)", *MODULES) if (one := child(name, size))}
        answers = {json.dumps(one["answers"]) for one in found.values()}
        if len(answers) > 1:
            raise SystemExit(f"the engines differ at {size} guests")
        lines += [row(size, name, one) for name, one in found.items()]
    renew_or_check(PAGE, "speed", "\n".join(lines), sys.argv[1:])


def child(name: str, size: int) -> dict[str, Any] | None:
    """One engine at one size, measured by itself."""
    command = [sys.executable, __file__, "--child", name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        print(f"{name} is not installed and left out", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def row(size: int, name: str, one: dict[str, Any]) -> str:
    name = f"**{name}**" if "ours" in name else name
    return (
        f"| {size:,} | {name} | {one['p50']:.2f} ms | {one['p99']:.2f} ms | {one['load']:.0f} ms "
        f"| {one['stall']:.0f} ms | {one['memory']:.0f} MB | {one['import']:.0f} ms |"
    )


async def measure(name: str, size: int) -> dict[str, Any]:
    """Import, load in a thread while the event loop is watched, then ask in turn."""
    importing = imported(name)
    from pvemcp_server.tables.guests import _rows as guest_rows
    from pvemcp_server.tables.nodes import _node
    from support.query_engines import ENGINES, QUERIES
    from support.query_inventory import snapshot

    seen = snapshot(size)
    rows = {"guests": guest_rows(seen), "nodes": [_node(one) for one in seen.nodes]}
    engine = ENGINES[name]()
    before, start = resident(), process_time()
    stalls = [await watched(engine.load, rows)]
    load, memory = process_time() - start, resident() - before
    stalls += [await watched(ENGINES[name]().load, rows) for _ in range(LOADS - 1)]
    answers = [engine.ask(number) for number in range(len(QUERIES))]
    times: list[float] = []
    end = perf_counter() + SECONDS
    while perf_counter() < end:
        for number in range(len(QUERIES)):
            start = process_time()
            engine.ask(number)
            times.append((process_time() - start) * 1000)
    cuts = quantiles(times, n=100)
    return {
        "p50": cuts[49],
        "p99": cuts[98],
        "load": load * 1000,
        "stall": min(stalls) * 1000,
        "memory": memory / 1e6,
        "import": importing * 1000,
        "answers": [_comparable(answer) for answer in answers],
    }


def imported(name: str) -> float:
    """How long the engine's own modules take to import."""
    start = perf_counter()
    try:
        for module in MODULES.get(name, ("sqlite3",)):
            import_module(module)
    except ImportError:
        sys.exit(3)
    return perf_counter() - start


async def watched(work: Any, rows: Any) -> float:
    """Run it in a thread, and tell the longest that the event loop had to wait meanwhile."""
    longest = 0.0
    loading = asyncio.create_task(asyncio.to_thread(work, rows))
    while not loading.done():
        start = perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, perf_counter() - start - 0.001)
    await loading
    return longest


def resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _comparable(answer: list[tuple[Any, ...]]) -> list[list[str]]:
    """Rows as all engines give them: averages may differ in the last digit they are rounded to."""
    return [
        [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in one] for one in answer
    ]


if __name__ == "__main__":
    main()
