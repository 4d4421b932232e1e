"""Server and bridge show the same configuration."""

import json
import subprocess
import sys
from pathlib import Path

from pvemcp_server.admin.client_setup import CLIENTS, Connection

URL, KEY = "https://pve.example/mcp", "pvemcp_abc"


def test_install_prints_what_the_server_would_show(tmp_path):
    bridge = Path(sys.executable).with_name("pvemcp-bridge")
    done = subprocess.run(
        [bridge, "install", "--client", "claude-desktop", "--print"],
        env={"HOME": str(tmp_path), "MCP_URL": URL, "MCP_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
    )
    added = [line[1:] for line in done.stdout.splitlines() if line.startswith(("+{", "+ ", "+}"))]
    printed = json.loads("\n".join(added))
    (server,) = printed["mcpServers"].values()
    connection = Connection(URL, "***", command=(server["command"],))
    assert printed == json.loads(CLIENTS["claude-desktop"].text(connection))
