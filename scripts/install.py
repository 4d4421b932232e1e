"""Install pvemcp into a virtual environment, for `make`: one sentence for whatever prevents it.

    python scripts/install.py .venv -- --require-hashes -r constraints.txt -- --no-deps -e …

Each group of arguments after `--` is a run of pip. A half-made environment is made again.
"""

import re
import shutil
import subprocess
import sys
import venv
from itertools import groupby
from pathlib import Path

NETWORK = re.compile(r"NewConnectionError|ConnectTimeout|NameResolution|ProxyError|versions: none")
PACKAGE = re.compile(r"(?:Collecting|Obtaining|Processing) ([^\s=;<>~]+)")


def main(folder: Path, groups: list[list[str]]) -> None:
    """Make the virtual environment, and run pip for each group of arguments."""
    try:
        if not is_usable(folder):
            print(f"Making {folder} …", flush=True)
            make_environment(folder)
        print(f"Installing into {folder} (once; about a minute) …", flush=True)
        for arguments in groups:
            run_pip(folder, arguments)
    except KeyboardInterrupt:
        sys.exit("\nStopped; the next start goes on from here.")


def is_usable(folder: Path) -> bool:
    """Return whether it is an environment of this Python and has pip: one half made has not."""
    python = python_of(folder)
    if not python.exists():
        return False
    code = "import sys, pip; print(*sys.version_info[:2] * (sys.prefix != sys.base_prefix))"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return shown.stdout.split() == [str(part) for part in sys.version_info[:2]]


def make_environment(folder: Path) -> None:
    """Make the virtual environment in place of a broken one; exit when that is not possible."""
    try:
        import ensurepip  # noqa: F401 - imported here only: Debian has it in a package of its own
    except ModuleNotFoundError:
        version = ".".join(str(part) for part in sys.version_info[:2])
        sys.exit(
            f"This Python cannot make virtual environments: on Debian, Ubuntu and Proxmox, "
            f"`apt install python{version}-venv`, and start again."
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        venv.create(folder, with_pip=True, symlinks=sys.platform != "win32")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"{folder.absolute()} cannot be made: {reason}.")


def run_pip(folder: Path, arguments: list[str]) -> None:
    """Run pip, showing which package it is at; exit with one sentence when it fails."""
    pip = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
    plain = ["--no-compile", "--no-color", "--progress-bar", "off"]
    lines, count = [], 0
    with subprocess.Popen(
        [*pip, *plain, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if package := PACKAGE.match(line):
                count += 1
                show_progress(f"  {count:3}  {package[1]}")
            elif line.startswith("Installing collected packages"):
                show_progress("       unpacking")
    show_progress("")
    if process.returncode:
        sys.exit(reason_of("".join(lines)))


def reason_of(output: str) -> str:
    """Return what pip's output means as one sentence, or the end of the output."""
    if NETWORK.search(output):
        return (
            "The package index cannot be reached: check the network and its proxy (HTTPS_PROXY), "
            "or name another index (PIP_INDEX_URL), and start again."
        )
    if "No space left on device" in output:
        return "The disk is full: the installation takes some 300 MB, with development tools 700."
    return "pip failed:\n" + "\n".join(output.splitlines()[-20:])


def python_of(folder: Path) -> Path:
    """Return the path of the environment's Python."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def show_progress(text: str) -> None:
    """Show the progress in place, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


if __name__ == "__main__":
    words = groupby(sys.argv[2:], lambda word: word == "--")
    main(Path(sys.argv[1]), [list(group) for is_mark, group in words if not is_mark])
