"""CPU time of a start of the server until it answers, beside an import of its frameworks.

The anchor is a process that imports FastAPI and the MCP SDK and ends. The ratio says what is ours:
CPU seconds differ with the machine and with what else runs on it.

    python benchmarks/start.py [--runs 5] [--check]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

MOST = 2.0  # times the anchor
LIMIT_SECONDS = 60
ANCHOR = "import fastapi, mcp.server.lowlevel"
PROGRAM = Path(sys.executable).with_name("pvemcp")


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def anchor() -> float:
    """Return the CPU seconds of importing the frameworks."""
    before = cpu_of_children()
    subprocess.run([sys.executable, "-c", ANCHOR], check=True)
    return cpu_of_children() - before


def start(folder: str, port: int) -> tuple[float, float]:
    """Start the server until it is ready; return its CPU seconds and MiB of memory then."""
    environment = {
        **os.environ,
        "PVEMCP_STATE_DIR": folder,
        "PVEMCP_PORT": str(port),
        "PVEMCP_LOG_LEVEL": "error",
    }
    began = time.monotonic()
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([PROGRAM, "serve"], env=environment, stdout=quiet, stderr=quiet)
    try:
        while not _is_ready(port):
            if server.poll() is not None or time.monotonic() - began > LIMIT_SECONDS:
                raise SystemExit("The server did not start.")
            time.sleep(0.02)
        process = Path(f"/proc/{server.pid}")
        ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
        pages = int(process.joinpath("statm").read_text().split()[1])
        seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        return seconds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def main() -> None:
    """Measure in turns, print the smallest figures, and check the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--port", type=int, default=38896)
    parser.add_argument("--check", action="store_true", help=f"fail above {MOST} times the anchor")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start(folder, options.port)  # makes the database, and compiles modules
        anchors, starts = [], []
        for _ in range(options.runs):
            anchors.append(anchor())
            starts.append(start(folder, options.port))
    seconds, memory = min(starts)
    ratio = seconds / min(anchors)
    print("| | CPU s | times | MiB |\n|---|--:|--:|--:|")
    print(f"| import of FastAPI and the SDK | {min(anchors):.2f} | 1.0 | |")
    print(f"| `pvemcp serve` until ready | {seconds:.2f} | {ratio:.1f} | {memory:.0f} |")
    if options.check and ratio > MOST:
        raise SystemExit(f"A start costs {ratio:.1f} times the anchor; {MOST} are allowed.")


if __name__ == "__main__":
    main()
