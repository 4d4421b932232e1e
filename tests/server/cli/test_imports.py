"""A command loads what it needs, and every command is found."""

import subprocess
import sys
from importlib import import_module

import pytest
from typer.main import get_group

from pvemcp_server.cli.main import MODULES, Commands

SERVING = {"mcp", "mcp_types", "fastapi", "starlette", "uvicorn", "jinja2"}
STATE = {"sqlalchemy", "alembic", "proxmox_client", "pydantic"}
LOADED = """
import sys
from pvemcp_server.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "needless"),
    [
        (["--version"], SERVING | STATE),
        (["--help"], SERVING),
        (["keys", "list"], SERVING),
        (["audit", "verify"], SERVING),
    ],
    ids=["version", "help", "keys", "audit"],
)
def test_administration_starts_without_loading_the_server(tmp_path, words, needless):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PVEMCP_STATE_DIR": str(tmp_path / "state")},
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded & needless == set()


@pytest.mark.parametrize("module", ["serve", "status", "maintenance"])
def test_every_command_of_a_module_of_several_is_found(module):
    declared = get_group(import_module(f"pvemcp_server.cli.{module}").app).commands
    assert {name for name, known in MODULES.items() if known == module} == set(declared)
    assert all(Commands()[name].name == name for name in declared)
