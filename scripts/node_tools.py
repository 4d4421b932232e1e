"""Node.js 22 and npm packages for checks and benchmarks, pinned in tests/npm/package.json.

`python scripts/node_tools.py` installs what is missing and prints the folder: PVEMCP_NPM, or a
folder in the user's cache.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PINNED = Path(__file__).parents[1] / "tests" / "npm" / "package.json"


def folder() -> Path:
    """Return the folder of the packages, which may not exist yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PVEMCP_NPM") or cache / "pvemcp-node")


def installed() -> Path:
    """Return the folder with all packages; install them if they are not the pinned ones."""
    home, pinned = folder(), PINNED.read_text()
    home.mkdir(parents=True, exist_ok=True)
    with _lock(home):
        marker = home / "node_modules" / ".pvemcp"
        if not marker.exists() or marker.read_text() != pinned:
            npm = shutil.which("npm")
            if npm is None:
                raise SystemExit("npm is missing: install Node.js, any version that includes npm")
            (home / "package.json").write_text(pinned)
            install = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(install, cwd=home, check=True)
            marker.write_text(pinned)
    return home


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Lock the folder: test workers install at the same moment."""
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def node() -> Path:
    """Return the pinned Node.js: the conformance suite needs 22, distributions still have 20."""
    return installed() / "node_modules" / "node" / "bin" / "node"


def script(package: str, path: str) -> list[str]:
    """Return the command that runs a package's script with the pinned Node.js."""
    return [str(node()), str(installed() / "node_modules" / package / path)]


if __name__ == "__main__":
    print(installed())
