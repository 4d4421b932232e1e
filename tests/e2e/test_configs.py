"""Server and bridge do not know each other's code, and still say the same."""

import json
import subprocess
import sys
from pathlib import Path

from pvemcp_bridge.clients import CLIENTS as BRIDGED
from pvemcp_bridge.clients import client_config
from pvemcp_server.admin.client_setup import CLIENTS, SERVER_NAME, Connection

URL, KEY = "https://pve.example/mcp", "pvemcp_abc"


def test_server_and_bridge_write_the_same_configuration_for_claude_desktop():
    connection = Connection(URL, KEY, "/opt/pvemcp-bridge")
    environment = {"MCP_URL": URL, "MCP_API_KEY": KEY}
    desktop = BRIDGED["claude-desktop"]
    ours = client_config(desktop, SERVER_NAME, "/opt/pvemcp-bridge", environment)
    assert CLIENTS["claude-desktop"].config(connection) == ours


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
    shown = CLIENTS["claude-desktop"].config(Connection(URL, "***", server["command"]))
    assert printed == shown
