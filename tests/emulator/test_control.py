"""The control port and the command `pvemcp-emulator`."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import httpx2 as httpx
import pytest

from proxmox_client.emulator.actions import ACTIONS
from proxmox_client.emulator.cli import main
from proxmox_client.emulator.control import ControlServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def control(proxmox):
    """Open an HTTP client of the control port."""
    server = ControlServer(proxmox)
    await server.start(0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
        yield http
    await server.stop()


async def test_a_fault_is_added_and_cleared(control, admin):
    await control.post("/lab/fault", json={"kind": "error", "path": "/version", "message": "oops"})
    assert (await admin.request("GET", "/version")).reason_phrase == "oops"
    await control.post("/lab/clear")
    assert (await admin.request("GET", "/version")).status_code == 200


async def test_a_node_goes_offline_and_online(control, admin):
    await control.post("/lab/node-down", json={"node": "pve2"})
    assert (await admin.request("GET", "/nodes/pve2/status")).status_code == 595
    await control.post("/lab/node-up", json={"node": "pve2"})
    assert (await admin.request("GET", "/nodes/pve2/status")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nowhere/fault", {}, 404),
        ("/lab/explode", {}, 404),
        ("/lab/fault", {"kind": "gremlins"}, 400),
        ("/lab/fault", {"kind": "error", "nonsense": 1}, 400),
        ("/lab/node-down", {"node": "nope"}, 400),
        ("/lab/stick-storage", {"name": "nope"}, 500),
    ],
)
async def test_invalid_actions_are_refused(control, path, body, status):
    assert (await control.post(path, json=body)).status_code == status


async def test_every_action_exists(lab):
    assert all(callable(action(lab)) for action in ACTIONS.values())


@pytest.fixture
def command(tmp_path):
    """Return a function that starts the command and waits until it is ready."""
    ready = tmp_path / "ready.json"
    processes = []

    def start(*options):
        line = [sys.executable, "-m", "proxmox_client.emulator.cli", "--ready-file", str(ready)]
        process = subprocess.Popen([*line, *options], stderr=subprocess.PIPE, text=True)
        processes.append(process)
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "the emulator did not become ready"
            os.sched_yield()
        return process, ready

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_command_serves_the_demo_until_sigterm(command):
    process, ready = command("--demo")
    clusters = {cluster["name"]: cluster for cluster in json.loads(ready.read_text())["clusters"]}
    assert clusters.keys() == {"home-lab", "prod", "backup"}
    assert stat.S_IMODE(ready.stat().st_mode) == 0o600
    home, names = clusters["home-lab"], {"name", "kind", "hosts", "token_id", "token_secret"}
    assert home.keys() == {*names, "fingerprints", "ca_pem"}
    assert clusters["backup"].keys() == {*names, "fingerprints"}
    process.send_signal(signal.SIGTERM)
    _, summary = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not ready.exists()
    assert "home-lab: emulated Proxmox VE 8.4, 1/1 nodes online, 14 guests" in summary
    assert "backup: emulated Proxmox Backup Server 4.1, datastores main, offsite" in summary
    assert home["token_secret"] not in summary


def test_the_command_serves_a_scenario_file(command, tmp_path):
    scenario = tmp_path / "world.yaml"
    scenario.write_text("clusters: [{name: tiny, nodes: 1, guests: 2}]")
    process, ready = command("--scenario", str(scenario), "--speed", "10")
    assert json.loads(ready.read_text())["clusters"][0]["name"] == "tiny"
    process.send_signal(signal.SIGINT)
    _, summary = process.communicate(timeout=20)
    assert "1/1 nodes online, 2 guests" in summary


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        ([], 2, "--demo"),
        (["--demo", "--nonsense"], 2, "--nonsense"),
        (["--demo", "--speed", "-1"], 2, "--speed"),
        (["--demo", "--first-port", "99999"], 2, "--first-port"),
        (["--demo", "--first-port", "65535"], 2, "--first-port"),
        (["--demo", "--address", "192.0.2.1"], 1, "address"),
        (["--scenario", "none.yaml"], 1, "none.yaml"),
        (["--scenario", "no_scenario.yaml"], 2, "no_scenario.yaml"),
        (["--scenario", "no_yaml.yaml"], 2, "no_yaml.yaml"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(options, code, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pvemcp-emulator", *options])
    (tmp_path / "no_scenario.yaml").write_text("clusters: [1]")
    (tmp_path / "no_yaml.yaml").write_text("clusters: [")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert part in shown


def test_the_command_opens_a_control_port_on_request(command):
    process, _ = command("--demo", "--control-port", "0")
    for line in process.stderr:
        if line.startswith("control: "):
            address = line.removeprefix("control: ").strip()
            break
    assert httpx.post(f"{address}/prod/lose-quorum", timeout=60).status_code == 200
    assert httpx.post(f"{address}/prod/dance", timeout=60).status_code == 404


def test_the_command_prints_connections_and_exits_when_stdin_closes():
    line = [sys.executable, "-m", "proxmox_client.emulator.cli", "--demo"]
    process = subprocess.Popen(
        [*line, "--ready-file", "-", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    clusters = json.loads(process.stdout.readline())["clusters"]
    kinds = {cluster["name"]: cluster["kind"] for cluster in clusters}
    assert kinds == {"home-lab": "pve", "prod": "pve", "backup": "pbs"}
    process.communicate(timeout=20)
    assert process.returncode == 0
