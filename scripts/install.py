"""Install a lock file with as many pips as there are cores: one unpacks packages on one core.

`.venv/bin/python scripts/install.py LOCK` installs for the Python that runs it. A lock file has
every package with its version and hashes, dependencies too, so its parts are independent.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps")
MOST = 4  # more would wait for the network


def parts(lock: str, number: int) -> list[str]:
    """Divide the packages of a lock file, each with the lines of its hashes."""
    packages = re.split(r"\n(?=\S)", lock.strip())
    return ["".join(f"{package}\n" for package in packages[n::number]) for n in range(number)]


def install(lock: Path) -> int:
    """Install all parts at the same time; return the exit code, of a pip that failed if one did."""
    number = min(os.cpu_count() or 1, MOST)
    command = [sys.executable, "-m", "pip", "install", *OPTIONS, "--require-hashes", "-r"]
    with tempfile.TemporaryDirectory() as folder:
        pips = []
        for n, part in enumerate(parts(lock.read_text(), number)):
            file = Path(folder) / f"part{n}.txt"
            file.write_text(part)
            pips.append(subprocess.Popen([*command, file]))
        return max(abs(pip.wait()) for pip in pips)


if __name__ == "__main__":
    raise SystemExit(install(Path(sys.argv[1])))
