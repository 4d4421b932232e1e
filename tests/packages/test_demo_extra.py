"""A server without the extra `demo`: it serves, and the demo names the missing extra."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.ports import free_port

# `pvemcp` with modules that cannot be imported, as if they were not installed
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from pvemcp_server.cli.main import app
app()
"""


@contextmanager
def started(state: Path, blocked: set[str], *words: str):
    """Run `pvemcp` with these modules blocked; end it with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked), *words],
        env={**os.environ, "PVEMCP_STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_healthy(process: subprocess.Popen, url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        try:
            assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server did not answer")


def test_a_server_without_the_extra_serves(tmp_path):
    port = free_port()
    blocked = {"proxmox_client.emulator", "yaml"}
    with started(tmp_path / "state", blocked, "serve", "--port", str(port)) as process:
        wait_until_healthy(process, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize("missing", ["yaml", "h11"])
def test_the_demo_names_its_extra_in_one_line(tmp_path, missing):
    words = ("run", "--demo-if-empty", "--port", str(free_port()))
    with started(tmp_path / "state", {missing}, *words) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines() == [f"The demo needs {missing}: pip install 'pvemcp-server[demo]'"]
