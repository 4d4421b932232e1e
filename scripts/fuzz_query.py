"""Asks random queries and compares the answers with those of a plain-Python oracle.

python scripts/fuzz_query.py                  a million queries
python scripts/fuzz_query.py --queries 20000  fewer
python scripts/fuzz_query.py --seed 7         from another start
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

PER_WORLD = 50


def attempt(seed: int) -> str:
    """What went wrong with the queries of this seed; empty when nothing did."""
    from differential import Difference, check

    try:
        check(seed, PER_WORLD)
    except Difference as difference:
        return f"seed {seed}: {difference}"
    return ""


def main() -> None:
    """Run, tell the first difference, and fail if there is one."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--queries", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=cpu_count() or 1)
    asked = options.parse_args()
    worlds = -(-asked.queries // PER_WORLD)
    start = monotonic()
    with ProcessPoolExecutor(asked.workers) as pool:
        for n, wrong in enumerate(
            pool.map(attempt, islice(count(asked.seed), worlds), chunksize=20), 1
        ):
            if wrong:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(wrong)
            if not n % 1000 or n == worlds:
                print(f"{n * PER_WORLD:>9} queries, {monotonic() - start:.0f} s, no difference")


if __name__ == "__main__":
    main()
