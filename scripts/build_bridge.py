"""Builds the bridge's binaries for this machine into dist/ and tries them: `make bridge`.

Out come a single file and a zipped folder under the names of the reference, and their SHA-256.
With `--tests` the whole suite of the bridge runs on both.
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
END = ".exe" if sys.platform == "win32" else ""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}}
STARTS = 5


def release_name() -> str:
    """The binary's name on this machine, such as pvemcp-bridge-linux-x64."""
    system = SYSTEMS.get(sys.platform, "linux")
    return f"pvemcp-bridge-{system}-{MACHINES[platform.machine().lower()]}"


def build() -> tuple[Path, Path]:
    """Runs PyInstaller; the single file and the folder, as it names them."""
    subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean"),
            *("--log-level", "ERROR", "--distpath", BUILD / "out", "--workpath", BUILD / "work"),
            PACKAGE / "pvemcp-bridge.spec",
        ],
        check=True,
    )
    return BUILD / "out" / f"one-file{END}", BUILD / "out" / "folder"


def name_them(one_file: Path, folder: Path) -> tuple[Path, Path]:
    """Puts both into dist/ under their names, with checksums beside them."""
    DIST.mkdir(exist_ok=True)
    single = Path(shutil.copy2(one_file, DIST / f"{release_name()}{END}"))
    zipped = zip_folder(folder, DIST / f"{release_name()}.zip")
    for file in (single, zipped):
        write_checksum(file)
    return single, zipped


def write_checksum(file: Path) -> None:
    """Puts the file's SHA-256 beside it, as `sha256sum -c` reads it."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n")


def zip_folder(folder: Path, target: Path) -> Path:
    """A zip in which the folder bears the release's name and programs stay executable."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(release_name(), file.relative_to(folder)))
    return target


def smoke(program: Path) -> tuple[float, float]:
    """Its version, a doctor's visit and a session with a real server."""
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
    """One session; the milliseconds from its start to the first reply."""
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
    """The bridge's tests, on a frozen program."""
    # installing the npm packages locks a file as Windows cannot
    which = "e2e and not node" if sys.platform == "win32" else "e2e"
    subprocess.run(
        [sys.executable, "-m", "pytest", TESTS, "-q", "-n", "auto", "-m", which],
        check=True,
        env=os.environ | {"PVEMCP_BRIDGE": str(program)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="run the whole suite on the result")
    arguments = parser.parse_args()
    one_file, folder = build()
    single, zipped = name_them(one_file, folder)
    for title, file, program in (
        ("one file", single, single),
        ("folder", zipped, folder / f"pvemcp-bridge{END}"),
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
