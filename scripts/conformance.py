"""Runs the official MCP conformance suite against us and says what passed.

The fixture server of tests/conformance goes through both requirement sets behind our gate and
transports; the product itself goes through every scenario that needs no fixture.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from node_tools import script

HERE = Path(__file__).parents[1] / "tests" / "conformance"
SERVE = HERE / "serve.py"
REVISIONS = ("2025-11-25", "2026-07-28")
# They call diagnostic tools that only the fixture server has, and passes
UNTESTABLE = frozenset(
    {
        "sep-2575-server-rejects-undeclared-capability",
        "sep-2575-missing-capability-http-400",
        "sep-2575-http-server-no-independent-requests-on-stream",
        "sep-2575-server-no-log-without-loglevel",
    }
)
# Scenarios that need no fixtures, so they test the product itself
PRODUCT = {
    "2025-11-25": (
        "server-initialize",
        "ping",
        "tools-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "server-session-lifecycle",
        "prompts-list",
        "resources-list",
        "completion-complete",
    ),
    "2026-07-28": (
        "server-stateless",
        "tools-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "sep-2164-resource-not-found",
        "http-header-validation",
        "prompts-list",
        "resources-list",
        "completion-complete",
        "caching",
        "input-required-result-unsupported-methods",
        "input-required-result-missing-input-response",
        "input-required-result-ignore-extra-params",
        "input-required-result-validate-input",
    ),
}


@dataclass(frozen=True)
class Run:
    """One run of the suite: how it ended, and its checks as (id, status)."""

    name: str
    exit_code: int
    checks: list[tuple[str, str]]
    output: str
    excused: frozenset[str] = frozenset()

    @property
    def counts(self) -> Counter[str]:
        """Checks by how they ended."""
        return Counter(
            "without its fixture" if status == "FAILURE" and name in self.excused else status
            for name, status in self.checks
        )

    @property
    def failed(self) -> bool:
        """The suite's verdict counts where all is required, the checks themselves everywhere."""
        refused = self.exit_code != 0 and not self.excused
        return refused or not self.counts["SUCCESS"] or bool(self.counts["FAILURE"])


@contextmanager
def served(what: str) -> Iterator[str]:
    """Yield the URL of a server that runs as its own process."""
    process = subprocess.Popen(
        [sys.executable, SERVE, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the {what} server did not start")
        yield url
    finally:
        process.communicate()


def suite(url: str, *options: str) -> tuple[int, str, dict[str, list[tuple[str, str]]]]:
    """Run the suite with these options; return its exit code, output and checks by scenario."""
    command = script("@modelcontextprotocol/conformance", "dist/index.js")
    with tempfile.TemporaryDirectory() as results:
        done = subprocess.run(
            [*command, "server", "--url", url, "-o", results, *options],
            capture_output=True,
            text=True,
        )
        checks = {
            _scenario(file.parent): [
                (check["id"], check["status"]) for check in json.loads(file.read_text())
            ]
            for file in Path(results).rglob("checks.json")
        }
    return done.returncode, done.stdout, checks


def _scenario(folder: Path) -> str:
    """Return the scenario of a folder of results, `server-<scenario>-<time>`."""
    return re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z", folder.name)[1]


def fixture_runs() -> Iterator[Run]:
    """Run both requirement sets, with extensions that the suite runs but does not score."""
    with served("fixture") as url:
        for revision in REVISIONS:
            code, output, checks = suite(url, "--requirements", revision)
            name = f"fixture {revision}, all required"
            yield Run(name, code, list(chain.from_iterable(checks.values())), output)


def product_runs() -> Iterator[Run]:
    """Run each scenario that needs no fixture against the product.

    The suite runs all of its scenarios, because each start of it costs more than a scenario; those
    that need a fixture fail and are left out.
    """
    with served("product") as url:
        for revision, scenarios in PRODUCT.items():
            code, output, checks = suite(url, "--suite", "all", "--spec-version", revision)
            for one in scenarios:
                name = f"product {revision} {one}"
                yield Run(name, code, checks.get(one, []), output, UNTESTABLE)


def written(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {end.lower()}" for end, count in sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="show the suite's own output")
    verbose = parser.parse_args().verbose
    total: Counter[str] = Counter()
    bad = 0
    for run in chain(fixture_runs(), product_runs()):
        print(f"{'FAIL' if run.failed else 'ok  '} {run.name}: {written(run.counts)}", flush=True)
        if verbose or run.failed:
            print(run.output)
        total += run.counts
        bad += run.failed
    print(f"{bad} runs failed; {total.total()} checks: {written(total)}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
