"""Bridges to compare, each as the command of a stdio server."""

import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts"))

from node_tools import folder, installed, script  # noqa: E402 - needs the path above

TRIAL = REPOSITORY / "tests" / "bridge" / "sdk_server.py"
FROZEN = REPOSITORY / "build" / "bridge" / "out"
KEY = "benchmark-key-0123456789"
MCP_PROXY = "mcp-proxy==0.13.0"


@dataclass(frozen=True)
class Peer:
    """A bridge: its name, its command, and whether it is ours."""

    name: str
    command: tuple[str, ...]
    ours: bool = False


@contextmanager
def trial_server() -> Iterator[str]:
    """Start the server for all bridges; give its URL, which contains the key."""
    server = subprocess.Popen(
        [sys.executable, TRIAL, "--key", KEY], stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"{server.stdout.readline().strip()}/{KEY}"
    finally:
        server.terminate()
        server.wait()


def peers(url: str) -> Iterator[Peer]:
    """Yield the bridges that can run here; print why others cannot."""
    yield Peer("ours, Python", (sys.executable, "-m", "pvemcp_bridge", url), ours=True)
    for name, program in (("folder", "folder/pvemcp-bridge"), ("one file", "one-file")):
        if (FROZEN / program).exists():
            yield Peer(f"ours, frozen {name}", (str(FROZEN / program), url), ours=True)
        else:
            print(f"SKIPPED: ours, frozen {name}: not built, see `make bridge`", file=sys.stderr)
    for name, make in (
        ("mcp-remote 0.15", _mcp_remote),
        ("supergateway 4", _supergateway),
        ("mcp-proxy 0.13", _mcp_proxy),
    ):
        try:
            yield Peer(name, tuple(make(url)))
        except (OSError, SystemExit, subprocess.CalledProcessError) as error:
            print(f"SKIPPED: {name} cannot be installed here: {error}", file=sys.stderr)


def _mcp_remote(url: str) -> list[str]:
    options = ["--allow-http", "--transport", "http-only", "--silent"]
    return [*script("mcp-remote", "dist/proxy.js"), url, *options]


def _supergateway(url: str) -> list[str]:
    options = ["--logLevel", "none", "--protocolVersion", "2025-06-18"]
    return [*script("supergateway", "dist/index.js"), "--streamableHttp", url, *options]


def _mcp_proxy(url: str) -> list[str]:
    """Install it in its own environment, because it needs an older SDK than ours."""
    home = folder() / "mcp-proxy"
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        installed()
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", MCP_PROXY], check=True)
    return [str(python.with_name("mcp-proxy")), "--transport", "streamablehttp", url]
