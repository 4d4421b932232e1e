"""Write docs/reference/faults.md by running the tests that break something for every tool."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    tests = REPOSITORY / "tests" / "server" / "tools" / "test_faults.py"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tests)],
        cwd=REPOSITORY,
        env={**os.environ, "PVEMCP_RENEW_DOCS": "1"},
        check=True,
    )


if __name__ == "__main__":
    main()
