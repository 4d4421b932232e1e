"""Benchmark of eight typical queries: our engine, DuckDB and Polars on the same rows.

Each engine and size runs in its own process, for its memory and imports. Queries and loading are
measured in processor time, which does not depend on other load of the machine.
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
SECONDS = 4.0  # of querying, per engine and size
LOADS = 5  # the one with the shortest stall counts, as the least disturbed by other load
MODULES = {"DuckDB": ("duckdb", "pandas"), "Polars": ("polars",)}


def main() -> None:
    """Measure each engine in a child process, compare their answers, then print or write."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asyncio.run(measure(sys.argv[2], int(sys.argv[3])))))
        return
    from support.in_docs import renew_or_check

    lines = [
        "| guests | engine | p50 | p99 | load | loop stall | memory | import |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for size in SIZES:
        results = {
            name: result for name in ("SQLite (ours)", *MODULES) if (result := child(name, size))
        }
        answers = {json.dumps(result["answers"]) for result in results.values()}
        if len(answers) > 1:
            raise SystemExit(f"the engines differ at {size} guests")
        lines += [row(size, name, result) for name, result in results.items()]
    renew_or_check(PAGE, "speed", "\n".join(lines), sys.argv[1:])


def child(name: str, size: int) -> dict[str, Any] | None:
    """Measure one engine at one size in its own process; None when it is not installed."""
    command = [sys.executable, __file__, "--child", name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        print(f"{name} is not installed and left out", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def row(size: int, name: str, result: dict[str, Any]) -> str:
    """Return a line of the table."""
    name = f"**{name}**" if "ours" in name else name
    return (
        f"| {size:,} | {name} "
        f"| {result['p50']:.2f} ms | {result['p99']:.2f} ms | {result['load']:.0f} ms "
        f"| {result['stall']:.0f} ms | {result['memory']:.0f} MB | {result['import']:.0f} ms |"
    )


async def measure(name: str, size: int) -> dict[str, Any]:
    """Import the engine, load rows in a thread beside the event loop, then run the queries."""
    importing = imported(name)
    from pvemcp_server.tables.guests import to_row as to_guest
    from pvemcp_server.tables.nodes import to_row
    from support.query_engines import ENGINES, QUERIES
    from support.query_inventory import inventory_view

    view = inventory_view(size)
    rows = {
        "guests": [to_guest(view, guest) for guest in view.guests],
        "nodes": [to_row(node) for node in view.nodes],
    }
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
    """Return the seconds that importing the engine's own modules takes."""
    start = perf_counter()
    try:
        for module in MODULES.get(name, ("sqlite3",)):
            import_module(module)
    except ImportError:
        sys.exit(3)
    return perf_counter() - start


async def watched(work: Any, rows: Any) -> float:
    """Run the work in a thread; return the longest stall of the event loop beside it."""
    longest = 0.0
    loading = asyncio.create_task(asyncio.to_thread(work, rows))
    while not loading.done():
        start = perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, perf_counter() - start - 0.001)
    await loading
    return longest


def resident() -> int:
    """Return the memory of this process in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _comparable(answer: list[tuple[Any, ...]]) -> list[list[str]]:
    """Return rows as text: averages may differ in their last digit between engines."""
    return [
        [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in answer
    ]


if __name__ == "__main__":
    main()
