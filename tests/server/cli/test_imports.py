"""A command imports only what it needs, and every command is found."""

import subprocess
import sys
from importlib import import_module

import pytest
from typer.main import get_group

from pvemcp_server.admin import SUBJECTS
from pvemcp_server.cli.main import MODULES, Commands
from pvemcp_server.cli.operations import app_of

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
def test_administration_starts_without_loading_the_server(state_dir, words, needless):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PVEMCP_STATE_DIR": str(state_dir)},
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded & needless == set()


def test_the_server_starts_without_the_libraries_of_second_factors():
    code = "import sys, pvemcp_server.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pvemcp_server.access.passkeys" in done.stdout.split()
    assert {"webauthn", "pyotp", "segno"} & set(done.stdout.split()) == set()


def test_every_command_is_found_by_its_name():
    assert {name: Commands()[name].name for name in MODULES} == {name: name for name in MODULES}


@pytest.mark.parametrize("module", ["serve", "maintenance"])
def test_every_command_of_a_module_of_several_is_listed(module):
    declared = get_group(import_module(f"pvemcp_server.cli.{module}").app).commands
    listed = {name for name, place in MODULES.items() if place == f"cli.{module}"}
    assert listed == set(declared)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_command_of_a_subject_is_listed(subject):
    declared = get_group(app_of(subject)).commands
    listed = {name for name, place in MODULES.items() if place == f"admin.{subject}"}
    assert listed == set(declared)
