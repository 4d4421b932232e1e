"""Run the client scenarios of the official MCP conformance suite through the bridge.

The suite is the server and checks what arrives; the SDK's client talks to the bridge over stdio.
In the scenarios of the sign-in, tests/bridge/conformance_browser.py is the user's browser.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance import written
from node_tools import script

CLIENT = Path(__file__).parents[1] / "tests" / "bridge" / "conformance_client.py"
SCENARIOS = {
    "2025-11-25": (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}
_SIGN_IN = (
    "metadata-default",
    "metadata-var1",
    "metadata-var2",
    "metadata-var3",
    "basic-cimd",
    "scope-from-www-authenticate",
    "scope-from-scopes-supported",
    "scope-omitted-when-undefined",
    "scope-step-up",
    "scope-retry-limit",
    "token-endpoint-auth-basic",
    "token-endpoint-auth-post",
    "token-endpoint-auth-none",
)
_SIGN_IN_2026 = (
    "resource-mismatch",
    "offline-access-scope",
    "offline-access-not-supported",
    "authorization-server-migration",
    "iss-supported",
    "iss-not-advertised",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
)
SIGN_IN_SCENARIOS = {
    "2025-11-25": tuple(f"auth/{name}" for name in _SIGN_IN),
    "2026-07-28": tuple(f"auth/{name}" for name in _SIGN_IN + _SIGN_IN_2026),
}
# The bridge registers itself at each issuer and takes no client that was registered by hand
LEFT_OUT = frozenset({"auth/pre-registration"})


@dataclass(frozen=True)
class Run:
    """Result of one scenario: the number of checks by status, and the output of the suite."""

    revision: str
    scenario: str
    counts: Counter[str]
    output: str

    @property
    def passed(self) -> bool:
        return self.counts["SUCCESS"] > 0 and not self.counts["FAILURE"]

    def __str__(self) -> str:
        return f"{self.revision} {self.scenario}: {written(self.counts) or 'no check'}"


def run(revision: str, scenario: str) -> Run:
    """Run one scenario."""
    command = script("@modelcontextprotocol/conformance", "dist/index.js")
    client = f"{sys.executable} {CLIENT}"
    with tempfile.TemporaryDirectory() as results:
        result = subprocess.run(
            [
                *(*command, "client", "--command", client, "--scenario", scenario),
                *("--spec-version", revision, "-o", results),
            ],
            capture_output=True,
            text=True,
        )
        checks = [
            check["status"]
            for file in Path(results).rglob("checks.json")
            for check in json.loads(file.read_text())
        ]
    return Run(revision, scenario, Counter(checks), result.stdout + result.stderr)


def run_all() -> Iterator[Run]:
    """Run all scenarios that apply to a bridge."""
    for revision, scenarios in SCENARIOS.items():
        for scenario in scenarios + SIGN_IN_SCENARIOS[revision]:
            yield run(revision, scenario)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="show the suite's own output")
    verbose = parser.parse_args().verbose
    total: Counter[str] = Counter()
    failures = 0
    for result in run_all():
        print("ok  " if result.passed else "FAIL", f"bridge {result}", flush=True)
        total += result.counts
        if verbose or not result.passed:
            print(result.output)
        failures += not result.passed
    print(f"{failures} runs failed; {total.total()} checks: {written(total)}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
