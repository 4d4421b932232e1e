"""Count the tokens (o200k) of the same rows in the four formats, as docs/users/formats.md shows.

Needs Node.js and the packages that `python scripts/node_tools.py` installs. Without them it prints
a note and measures nothing.

    python benchmarks/tokens.py            print the table
    python benchmarks/tokens.py --write    update it in the docs
    python benchmarks/tokens.py --check    fail if the docs differ
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pvemcp_formats import Format, drop_empty_columns, encode, tidy
from support.in_docs import renew_or_check
from support.vm_rows import minimal, vm_rows

REPOSITORY = Path(__file__).parents[1]
PEER = REPOSITORY / "tests" / "npm" / "peer.mjs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
NPM = Path(os.environ.get("PVEMCP_NPM") or CACHE / "pvemcp-node")
ORDER = (Format.JSON_NORMAL, Format.JSON_COMPACT, Format.TOON, Format.CSV)
Rows = list[dict[str, Any]]


def main() -> None:
    """Measure, then print, write or check the table."""
    if not shutil.which("node") or not (NPM / "node_modules" / "gpt-tokenizer").is_dir():
        print(f"skipped: no Node.js, or no gpt-tokenizer in {NPM}", file=sys.stderr)
        return
    renew_or_check(REPOSITORY / "docs" / "users" / "formats.md", "tokens", table(), sys.argv[1:])


def table() -> str:
    """Return the measurements as a Markdown table."""
    cases = list(inventories())
    counts = count_tokens([encode(rows, form) for _, rows in cases for form in ORDER])
    lines = [
        f"| VMs × fields | {' | '.join(ORDER)} |",
        f"|---|{'--:|' * len(ORDER)}",
    ]
    for number, (title, _) in enumerate(cases):
        cells = counts[number * len(ORDER) : (number + 1) * len(ORDER)]
        lines.append(f"| {title} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines)


def inventories() -> Iterator[tuple[str, Rows]]:
    """Yield the rows to measure with a title, tidied and not tidied."""
    for count in (23, 200, 2_000):
        rows = vm_rows(count)
        yield f"{count:,} × 6", prepared(minimal(rows))
        yield f"{count:,} × 19", prepared(rows)
        yield f"{count:,} × 19, not tidied", rows


def prepared(rows: Rows) -> Rows:
    """Return the rows as the server sends them."""
    return drop_empty_columns(tidy(rows))[0]


def count_tokens(texts: list[str]) -> list[int]:
    """Return the number of o200k tokens of each text."""
    orders = "\n".join(json.dumps({"work": "tokens", "input": text}) for text in texts)
    command = ["node", str(PEER), str(NPM)]
    result = subprocess.run(command, input=orders, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line)["output"] for line in result.stdout.splitlines()]


if __name__ == "__main__":
    main()
