"""Node.js 22 and the npm packages that checks and benchmarks use, pinned in tests/npm/package.json.

`python scripts/node_tools.py` installs them where they are missing and prints their folder: the
one that PVEMCP_NPM names, else one below the user's cache.
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
    """Where the packages live, whether or not they are there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PVEMCP_NPM") or cache / "pvemcp-node")


def installed() -> Path:
    """The folder with all packages in it; installs them when they are not what is pinned."""
    here, wanted = folder(), PINNED.read_text()
    here.mkdir(parents=True, exist_ok=True)
    with _alone(here):
        done = here / "node_modules" / ".pvemcp"
        if not done.exists() or done.read_text() != wanted:
            _install(here, wanted)
            done.write_text(wanted)
    return here


def _install(here: Path, wanted: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install Node.js, any version that brings npm")
    (here / "package.json").write_text(wanted)
    install = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=here, check=True)


@contextmanager
def _alone(here: Path) -> Iterator[None]:
    """One process at a time: test workers ask at the same moment."""
    with (here / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def node() -> Path:
    """The pinned Node.js: the conformance suite needs 22, distributions still bring 20."""
    return installed() / "node_modules" / "node" / "bin" / "node"


def script(package: str, path: str) -> list[str]:
    """The command that runs a package's script with the pinned Node.js."""
    return [str(node()), str(installed() / "node_modules" / package / path)]


if __name__ == "__main__":
    print(installed())
