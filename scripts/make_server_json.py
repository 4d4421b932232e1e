"""Write dist/server.json, the entry of this version in the MCP registry and in catalogues.

    python scripts/make_server_json.py OWNER/REPOSITORY dist/pvemcp-bridge.mcpb

The registry installs the bridge: the server is one that each user runs. Its file is the one of the
release v<version> at GitHub, and the registry compares its SHA-256. The name's namespace is what
a sign-in with the owner's GitHub account proves.
"""

import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
VARIABLES = (
    ("MCP_URL", "URL of your pvemcp server, such as https://pve.example:8811/mcp", True, False),
    ("MCP_API_KEY", "API key; without one the browser opens to sign in", False, True),
    ("MCP_FINGERPRINT", "SHA-256 of a self-signed certificate", False, False),
)


def version() -> str:
    """Return the version, as the bridge's package declares it."""
    project = tomllib.loads((REPOSITORY / "packages/bridge/pyproject.toml").read_text())["project"]
    return str(project["version"])


def server(repository: str, bundle: Path) -> dict[str, Any]:
    """Return the entry: what the server is, and how to install its bridge."""
    owner, _, name = repository.partition("/")
    url = f"https://github.com/{repository}"
    return {
        "$schema": SCHEMA,
        "name": f"io.github.{owner}/{name}",
        "title": "Proxmox VE",
        "description": "All your Proxmox VE clusters by one endpoint: roles, consent, audit.",
        "version": version(),
        "websiteUrl": url,
        "repository": {"url": url, "source": "github"},
        "packages": [
            {
                "registryType": "mcpb",
                "identifier": f"{url}/releases/download/v{version()}/{bundle.name}",
                "version": version(),
                "fileSha256": hashlib.sha256(bundle.read_bytes()).hexdigest(),
                "transport": {"type": "stdio"},
                "environmentVariables": [
                    {
                        "name": variable,
                        "description": description,
                        "isRequired": required,
                        "isSecret": secret,
                    }
                    for variable, description, required, secret in VARIABLES
                ],
            }
        ],
    }


def main() -> None:
    if len(sys.argv) != 3 or not re.fullmatch(r"[\w.-]+/[\w.-]+", sys.argv[1]):
        raise SystemExit("usage: make_server_json.py OWNER/REPOSITORY BUNDLE.mcpb")
    entry = server(sys.argv[1], Path(sys.argv[2]))
    target = REPOSITORY / "dist" / "server.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(entry, indent=2) + "\n")
    print(f"{entry['name']} {entry['version']}: {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
