"""Makes a Claude Desktop extension of the bridge, in dist/: `make mcpb`, after `make bridge`.

The manifest is checked against the published schema, which the npm package carries, and the bundle
is packed by that package's own tool.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

from build_bridge import BUILD, DIST, END, PACKAGE, release_name, write_checksum

TOOL = "@anthropic-ai/mcpb"
LOCKED = Path(__file__).parent / "mcpb"
MANIFEST_VERSION = "0.3"


def version() -> str:
    """The bridge's version, as its package declares it."""
    line = next(
        line
        for line in (PACKAGE / "pyproject.toml").read_text().splitlines()
        if line.startswith("version = ")
    )
    return line.split('"')[1]


def manifest(program: str) -> dict[str, Any]:
    """What Claude Desktop asks the user for, and how it starts the bridge with it."""
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": "pvemcp-bridge",
        "display_name": "Proxmox VE",
        "version": version(),
        "description": "Connects Claude to your pvemcp server, and so to your Proxmox VE clusters.",
        "author": {"name": "The pvemcp authors"},
        "license": "Apache-2.0",
        "keywords": ["proxmox", "virtualization", "mcp"],
        "server": {
            "type": "binary",
            "entry_point": f"server/{program}",
            "mcp_config": {
                "command": f"${{__dirname}}/server/{program}",
                "args": [],
                "env": {
                    "MCP_URL": "${user_config.url}",
                    "MCP_API_KEY": "${user_config.api_key}",
                    "MCP_FINGERPRINT": "${user_config.fingerprint}",
                },
            },
        },
        "tools_generated": True,
        "compatibility": {"platforms": [sys.platform]},
        "user_config": {
            "url": {
                "type": "string",
                "title": "Server URL",
                "description": "Of your pvemcp server, such as https://pve.example:8811/mcp",
                "required": True,
            },
            "api_key": {
                "type": "string",
                "title": "API key",
                "description": "Made on the API Access page; kept in the keychain.",
                "sensitive": True,
                "required": True,
            },
            "fingerprint": {
                "type": "string",
                "title": "Certificate fingerprint",
                "description": "SHA-256 of a self-signed certificate; empty for a trusted one.",
                "required": False,
                "default": "",
            },
        },
    }


def tool() -> Path:
    """Install the published tool as locked, with checked hashes; return its folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install Node.js, which brings it")
    home = BUILD / "mcpb-tool"
    shutil.copytree(LOCKED, home, dirs_exist_ok=True)
    subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--silent"], cwd=home, check=True)
    return home / "node_modules" / TOOL


def schema(package: Path) -> dict[str, Any]:
    """The published schema of the manifest."""
    file = package / "schemas" / f"mcpb-manifest-v{MANIFEST_VERSION}.schema.json"
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def lay_out(folder: Path, package: Path) -> Path:
    """The bundle's folder: the manifest, and the bridge as a folder, which starts fastest."""
    bundle = BUILD / "mcpb"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(folder, bundle / "server", symlinks=True)
    described = manifest(f"pvemcp-bridge{END}")
    jsonschema.validate(described, schema(package), cls=jsonschema.Draft7Validator)
    (bundle / "manifest.json").write_text(json.dumps(described, indent=2) + "\n")
    return bundle


def main() -> None:
    folder = BUILD / "out" / "folder"
    if not folder.exists():
        raise SystemExit("The bridge is not built yet: make bridge")
    package = tool()
    bundle = lay_out(folder, package)
    target = DIST / f"{release_name()}.mcpb"
    mcpb = [shutil.which("node") or "node", package / "dist" / "cli" / "cli.js"]
    subprocess.run([*mcpb, "validate", bundle / "manifest.json"], check=True)
    subprocess.run([*mcpb, "pack", bundle, target], check=True, stdout=subprocess.DEVNULL)
    write_checksum(target)
    print(f"{target.name}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
