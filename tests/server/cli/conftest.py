"""The command line in this process, on a state of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pvemcp_server.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `pvemcp` with these words; `fails` says that it should."""
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(tmp_path / "state"))
    runner = CliRunner()

    def ran(*words: Any, fails: bool = False, given: str | None = None) -> Result:
        result = runner.invoke(app, [str(word) for word in words], input=given)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code != 0) is fails, result.output
        return result

    return ran


@pytest.fixture
def told(run: Run) -> Callable[..., Any]:
    """The same with --json, read."""
    return lambda *words, **options: json.loads(run(*words, "--json", **options).stdout)


@pytest.fixture(scope="module")
def emulated() -> Iterator[dict[str, Any]]:
    """The demo cluster prod, in a process of its own: each command has its own loop here."""
    command = [sys.executable, "-m", "proxmox_client.emulator", "--demo"]
    options = ["--ready-file", "-", "--until-stdin-closes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *options], text=True, **pipes) as process:
        assert process.stdout
        clusters = json.loads(process.stdout.readline())["clusters"]
        yield next(one for one in clusters if one["name"] == "prod")
        process.terminate()
