"""Try the bridge's binaries of this machine in dist/: `make bridge`, after scripts/build_bridge.py.

Both are tried as a user gets them: the single file, and the folder unpacked from its zip. Prints
the time to the first reply. With `--tests` the whole suite of the bridge runs on both.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from build_bridge import BUILD, DIST, REPOSITORY, SUFFIX, release_name

TESTS = REPOSITORY / "tests" / "bridge"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}}
STARTS = 5


def programs() -> Iterator[tuple[str, Path]]:
    """Yield the title and the program of both forms; a download has lost the executable bit."""
    single = DIST / f"{release_name()}{SUFFIX}"
    single.chmod(0o755)
    yield "one file", single
    unpacked = BUILD / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unzip(DIST / f"{release_name()}.zip", unpacked)
    yield "folder", unpacked / release_name() / f"pvemcp-bridge{SUFFIX}"


def unzip(file: Path, target: Path) -> None:
    """Restore a zip with the permissions stored in it, which zipfile alone drops."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            Path(archive.extract(entry, target)).chmod(entry.external_attr >> 16 & 0o777)


def smoke(program: Path) -> tuple[float, float]:
    """Ask for the version and a diagnosis, and run sessions with a real server.

    Returns the best and the median milliseconds to the first reply.
    """
    version = run(program, "--version").stdout
    assert version.startswith("pvemcp-bridge "), version
    server = subprocess.Popen(
        [sys.executable, TESTS / "sdk_server.py", "--key", "smoke-test-key"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        visit = run(program, "doctor", "--url", f"{url}/smoke-test-key").stdout
        assert "FAIL" not in visit, visit
        assert "echo" in visit, visit
        starts = [session(program, f"{url}/smoke-test-key") for _ in range(STARTS)]
    finally:
        server.terminate()
        server.wait()
    return min(starts), sorted(starts)[STARTS // 2]


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], check=True, capture_output=True, text=True, timeout=60
    )


def session(program: Path, url: str) -> float:
    """Run one session; return the milliseconds from its start to the first reply."""
    began = time.perf_counter()
    bridge = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"MCP_URL": url}
    )
    bridge.stdin.write(json.dumps(DISCOVER).encode() + b"\n")
    bridge.stdin.flush()
    reply = json.loads(bridge.stdout.readline())
    took = (time.perf_counter() - began) * 1000
    assert "2026-07-28" in reply["result"]["supportedVersions"], reply
    bridge.stdin.close()
    assert bridge.wait(timeout=30) == 0
    return took


def suite(program: Path) -> None:
    """Run the bridge's tests on a frozen program."""
    # installing the npm packages locks a file as Windows cannot
    which = "e2e and not node" if sys.platform == "win32" else "e2e"
    subprocess.run(
        [sys.executable, "-m", "pytest", TESTS, "-q", "-n", "auto", "-m", which],
        check=True,
        env=os.environ | {"PVEMCP_BRIDGE": str(program)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="run the whole suite on both")
    arguments = parser.parse_args()
    for title, program in programs():
        best, median = smoke(program)
        print(f"{title:<9} first reply after {best:.0f} ms (median {median:.0f})")
        if arguments.tests:
            suite(program)


if __name__ == "__main__":
    main()
