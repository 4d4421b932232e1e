"""Measure encoding 10,000 tidied rows with our formats, JSON encoders and TOON libraries of PyPI.

Libraries that are not installed are left out: pip install toons etoon toon-format python-toon

    python benchmarks/formats.py            print the table
    python benchmarks/formats.py --write    update it in docs/users/formats.md
"""

import csv
import io
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from pvemcp_formats import Format, encode, tidy
from support.in_docs import renew_or_check
from support.vm_rows import minimal, vm_rows

PAGE = Path(__file__).parents[1] / "docs" / "users" / "formats.md"
ROWS = 10_000
REPEATS = 15
TOON_PEERS = {"toons": "dumps", "etoon": "dumps", "toon_format": "encode", "toon": "encode"}
TOON_PACKAGES = {"toon_format": "toon-format", "toon": "python-toon"}
Rows = list[dict[str, Any]]


def main() -> None:
    """Measure, then print or write the table."""
    rows = tidy(vm_rows(ROWS))
    few_fields = measure(minimal(rows))
    all_fields = measure(rows)
    lines = [
        f"| {ROWS:,} rows | × 6 fields | × orjson | × 19 fields | × orjson |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in few_fields:
        times = few_fields, all_fields
        cells = [f"{time[name]:.1f} ms | {time[name] / time['orjson']:.1f}" for time in times]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    renew_or_check(PAGE, "speed", "\n".join(lines), sys.argv[1:])


def measure(rows: Rows) -> dict[str, float]:
    """Return the shortest of several runs of each in milliseconds, taken in turns."""
    encoders = all_encoders(rows)
    runs = [
        {name: milliseconds(work, rows) for name, work in encoders.items()} for _ in range(REPEATS)
    ]
    return {name: min(run[name] for run in runs) for name in encoders}


def all_encoders(rows: Rows) -> dict[str, Callable[[Rows], object]]:
    """Return everything to measure, by its name in the table."""
    ours = {f"**{form}**": partial(encode, format=form) for form in Format}
    return {
        **ours,
        "orjson": lambda rows: orjson.dumps({"data": rows}),
        "json.dumps": lambda rows: json.dumps({"data": rows}, separators=(",", ":")),
        "csv.DictWriter": python_csv,
        **toon_peers(encode(rows, Format.TOON), {"data": rows}),
    }


def toon_peers(ours: str, document: dict[str, Any]) -> dict[str, Callable[[Rows], object]]:
    """Return the installed TOON libraries; one with another output is marked."""
    peers: dict[str, Callable[[Rows], object]] = {}
    for module, function in TOON_PEERS.items():
        try:
            write = getattr(import_module(module), function)
        except ImportError:
            print(f"{module} is not installed and is left out", file=sys.stderr)
            continue
        same = "" if write(document) == ours else " (another text)"
        peers[TOON_PACKAGES.get(module, module) + same] = partial(under_data, write)
    return peers


def under_data(write: Callable[[dict[str, Rows]], object], rows: Rows) -> object:
    """Encode the rows as the other libraries expect them."""
    return write({"data": rows})


def python_csv(rows: Rows) -> str:
    """Encode the rows with Python's csv module, which does not distinguish null from empty text."""
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue()


def milliseconds(work: Callable[[Rows], object], rows: Rows) -> float:
    """Return the time of one run."""
    start = perf_counter()
    work(rows)
    return (perf_counter() - start) * 1_000


if __name__ == "__main__":
    main()
