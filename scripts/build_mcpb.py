"""Build the bridge for every platform in dist/: `make mcpb`.

The results are the zipapp and the Claude Desktop extension that a server offers too, each with its
SHA-256. The published tool of MCPB validates the extension's manifest.
"""

import shutil
import subprocess
from pathlib import Path

from build_bridge import BUILD, DIST, write_checksum
from pvemcp_bridge import bundle

TOOL = "@anthropic-ai/mcpb"
LOCKED = Path(__file__).parent / "mcpb"


def tool() -> Path:
    """Install the published tool as locked, with checked hashes; return its folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install Node.js, which brings it")
    home = BUILD / "mcpb-tool"
    shutil.copytree(LOCKED, home, dirs_exist_ok=True)
    subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--silent"], cwd=home, check=True)
    return home / "node_modules" / TOOL


def validate(extension: Path) -> None:
    """Validate the manifest of the extension, unpacked, with the published tool."""
    mcpb = [shutil.which("node") or "node", tool() / "dist" / "cli" / "cli.js"]
    unpacked = BUILD / "mcpb"
    shutil.rmtree(unpacked, ignore_errors=True)
    subprocess.run([*mcpb, "unpack", extension, unpacked], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*mcpb, "validate", unpacked / "manifest.json"], check=True)


def main() -> None:
    DIST.mkdir(exist_ok=True)
    # the user fills in the URL of an extension that comes from a release
    files = {bundle.ZIPAPP: bundle.zipapp(), bundle.EXTENSION: bundle.extension("")}
    for name, content in files.items():
        file = DIST / name
        file.write_bytes(content)
        write_checksum(file)
        print(f"{name}  {len(content) / 1e6:.1f} MB")
    validate(DIST / bundle.EXTENSION)


if __name__ == "__main__":
    main()
