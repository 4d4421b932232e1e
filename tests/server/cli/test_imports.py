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


LATER = {
    *("webauthn", "pyotp", "segno"),  # second factors
    *("alembic", "mako"),  # an upgrade of the database
    *("jinja2", "pvemcp_server.web.application", "pvemcp_server.web.pages"),
    *("pvemcp_server.web.oauth.application", "pvemcp_server.admin.keys"),
    *("prometheus_client", "opentelemetry.sdk", "requests"),  # off by default
    *("pydantic.v1", "authlib", "proxmox_client.emulator"),
}
"""What a server that starts and answers probes has not loaded."""
STARTED = """
import os, signal, sys, threading, urllib.request
from pvemcp_server.cli import listener, serve
from pvemcp_server.cli.main import app

def announce(*_, **__):
    host, port = sockets[0].getsockname()
    urllib.request.urlopen(f"http://{host}:{port}/readyz").read()
    os.kill(os.getpid(), signal.SIGTERM)

opened = listener._listening
def listening(*arguments):
    global sockets
    sockets = opened(*arguments)
    return sockets
listener._listening = listening

async def probe(*_, **__):
    threading.Thread(target=announce).start()

serve.quickstart.print_welcome = probe
try:
    app(["serve", "--port", "0"])
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_the_server_starts_without_what_is_needed_later(state_dir):
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        capture_output=True,
        text=True,
        check=True,
        env={"PVEMCP_STATE_DIR": str(state_dir), "PVEMCP_LOG_LEVEL": "error"},
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"pvemcp_server.access.passkeys", "mcp", "pvemcp_server.web.site"} <= loaded
    assert LATER & loaded == set()


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
