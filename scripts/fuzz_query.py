"""Fuzz test: run random queries and compare the answers with those of a plain-Python oracle.

python scripts/fuzz_query.py                  a million queries
python scripts/fuzz_query.py --queries 20000  fewer
python scripts/fuzz_query.py --seed 7         other queries
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from os import cpu_count
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "server" / "query"))

import pvemcp_server.tables  # noqa: F401 - declares the tables

PER_DATASET = 50


def attempt(seed: int) -> str:
    """Return the first difference among the queries of this seed; empty when there is none."""
    from differential import Difference, check

    try:
        check(seed, PER_DATASET)
    except Difference as difference:
        return f"seed {seed}: {difference}"
    return ""


def main() -> None:
    """Run the queries; print the first difference and fail if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=cpu_count() or 1)
    options = parser.parse_args()
    datasets = -(-options.queries // PER_DATASET)
    start = monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        seeds = islice(count(options.seed), datasets)
        for n, difference in enumerate(pool.map(attempt, seeds, chunksize=20), 1):
            if difference:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(difference)
            if not n % 1000 or n == datasets:
                seconds = monotonic() - start
                print(f"{n * PER_DATASET:>9} queries, {seconds:.0f} s, no difference")


if __name__ == "__main__":
    main()
