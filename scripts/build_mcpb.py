"""Build a Claude Desktop extension from the bridge in dist/: `make mcpb`, after `make bridge`.

The manifest is validated with the published schema from the npm package, and the tool of that
package packs the bundle.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

from build_bridge import BUILD, DIST, PACKAGE, SUFFIX, release_name, write_checksum

TOOL = "@anthropic-ai/mcpb"
LOCKED = Path(__file__).parent / "mcpb"
MANIFEST_VERSION = "0.3"


def version() -> str:
    """Return the bridge's version, as its package declares it."""
    line = next(
        line
        for line in (PACKAGE / "pyproject.toml").read_text().splitlines()
        if line.startswith("version = ")
    )
    return line.split('"')[1]


def manifest(program: str) -> dict[str, Any]:
    """Return the manifest: the settings for the user, and how they start the bridge."""
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
                "description": "URL of your pvemcp server, such as https://pve.example:8811/mcp",
                "required": True,
            },
            "api_key": {
                "type": "string",
                "title": "API key",
                "description": (
                    "Create it on the API Access page; it is stored in the keychain. "
                    "Leave it empty to sign in with your own account."
                ),
                "sensitive": True,
                "required": False,
                "default": "",
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


def manifest_schema(package: Path) -> dict[str, Any]:
    """Return the published schema of the manifest."""
    file = package / "schemas" / f"mcpb-manifest-v{MANIFEST_VERSION}.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text())
    return schema


def create_bundle(folder: Path, package: Path) -> Path:
    """Create the bundle's folder: the manifest and the folder of the bridge, which starts fast."""
    bundle = BUILD / "mcpb"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(folder, bundle / "server", symlinks=True)
    content = manifest(f"pvemcp-bridge{SUFFIX}")
    jsonschema.validate(content, manifest_schema(package), cls=jsonschema.Draft7Validator)
    (bundle / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    return bundle


def main() -> None:
    folder = BUILD / "out" / "folder"
    if not folder.exists():
        raise SystemExit("The bridge is not built yet: make bridge")
    package = tool()
    bundle = create_bundle(folder, package)
    target = DIST / f"{release_name()}.mcpb"
    mcpb = [shutil.which("node") or "node", package / "dist" / "cli" / "cli.js"]
    subprocess.run([*mcpb, "validate", bundle / "manifest.json"], check=True)
    subprocess.run([*mcpb, "pack", bundle, target], check=True, stdout=subprocess.DEVNULL)
    write_checksum(target)
    print(f"{target.name}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
