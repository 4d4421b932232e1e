"""Build the bridge's binaries for this machine in dist/ and test them: `make bridge`.

The results are a single file and a zipped folder with their release names and their SHA-256. With
`--tests` the whole test suite of the bridge runs on both.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "packages" / "bridge"
BUILD = REPOSITORY / "build" / "bridge"
DIST = REPOSITORY / "dist"
TESTS = REPOSITORY / "tests" / "bridge"

SYSTEMS = {"win32": "win", "darwin": "osx"}
MACHINES = {"amd64": "x64", "x86_64": "x64", "arm64": "arm64", "aarch64": "arm64"}
SUFFIX = ".exe" if sys.platform == "win32" else ""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}}
STARTS = 5


def release_name() -> str:
    """Return the binary's name on this machine, such as pvemcp-bridge-linux-x64."""
    system = SYSTEMS.get(sys.platform, "linux")
    return f"pvemcp-bridge-{system}-{MACHINES[platform.machine().lower()]}"


def build() -> tuple[Path, Path]:
    """Run PyInstaller; return the single file and the folder with its own names."""
    subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean"),
            *("--log-level", "ERROR", "--distpath", BUILD / "out", "--workpath", BUILD / "work"),
            PACKAGE / "pvemcp-bridge.spec",
        ],
        check=True,
    )
    return BUILD / "out" / f"one-file{SUFFIX}", BUILD / "out" / "folder"


def publish(one_file: Path, folder: Path) -> tuple[Path, Path]:
    """Copy both to dist/ with their release names and checksums."""
    DIST.mkdir(exist_ok=True)
    single = Path(shutil.copy2(one_file, DIST / f"{release_name()}{SUFFIX}"))
    zipped = zip_folder(folder, DIST / f"{release_name()}.zip")
    for file in (single, zipped):
        write_checksum(file)
    return single, zipped


def write_checksum(file: Path) -> None:
    """Write the file's SHA-256 beside it, as `sha256sum -c` reads it."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n")


def zip_folder(folder: Path, target: Path) -> Path:
    """Compress the folder to a zip under the release name; programs stay executable."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(release_name(), file.relative_to(folder)))
    return target


def smoke(program: Path) -> tuple[float, float]:
    """Test version, doctor and a session with a real server; return the best and median start."""
    version = run(program, "--version").stdout
    assert version.startswith("pvemcp-bridge "), version
    server = subprocess.Popen(
        [sys.executable, TESTS / "sdk_server.py", "--key", "smoke-test-key"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        report = run(program, "doctor", "--url", f"{url}/smoke-test-key").stdout
        assert "FAIL" not in report, report
        assert "echo" in report, report
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
    start = time.perf_counter()
    bridge = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"MCP_URL": url}
    )
    bridge.stdin.write(json.dumps(DISCOVER).encode() + b"\n")
    bridge.stdin.flush()
    reply = json.loads(bridge.stdout.readline())
    elapsed = (time.perf_counter() - start) * 1000
    assert "2026-07-28" in reply["result"]["supportedVersions"], reply
    bridge.stdin.close()
    assert bridge.wait(timeout=30) == 0
    return elapsed


def suite(program: Path) -> None:
    """Run the bridge's tests on a binary."""
    # installing the npm packages needs a file lock that Windows does not have
    markers = "e2e and not node" if sys.platform == "win32" else "e2e"
    subprocess.run(
        [sys.executable, "-m", "pytest", TESTS, "-q", "-n", "auto", "-m", markers],
        check=True,
        env=os.environ | {"PVEMCP_BRIDGE": str(program)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tests", action="store_true", help="run the whole test suite on the results"
    )
    arguments = parser.parse_args()
    one_file, folder = build()
    single, zipped = publish(one_file, folder)
    for title, file, program in (
        ("one file", single, single),
        ("folder", zipped, folder / f"pvemcp-bridge{SUFFIX}"),
    ):
        best, median = smoke(program)
        size = file.stat().st_size / 1e6
        print(
            f"{title:<9} {file.name:<32} {size:5.1f} MB   "
            f"first reply after {best:.0f} ms (median {median:.0f})"
        )
        if arguments.tests:
            suite(program)


if __name__ == "__main__":
    main()
