"""Build the bridge's binaries for this machine in dist/: `make bridge`.

The results are a single file and a zipped folder with their release names and their SHA-256.
Needs constraints-bridge.txt only, so that a release signs nothing that test tools could touch;
scripts/try_bridge.py tests the results.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "packages" / "bridge"
BUILD = REPOSITORY / "build" / "bridge"
DIST = REPOSITORY / "dist"

SYSTEMS = {"win32": "win", "darwin": "osx"}
MACHINES = {"amd64": "x64", "x86_64": "x64", "arm64": "arm64", "aarch64": "arm64"}
SUFFIX = ".exe" if sys.platform == "win32" else ""


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
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n", newline="\n")


def zip_folder(folder: Path, target: Path) -> Path:
    """Compress the folder to a zip under the release name; programs stay executable."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(release_name(), file.relative_to(folder)))
    return target


def main() -> None:
    for file in publish(*build()):
        print(f"{file.name:<32} {file.stat().st_size / 1e6:5.1f} MB")


if __name__ == "__main__":
    main()
