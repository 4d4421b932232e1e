"""What `make run` prints and keeps, and what it never does."""

import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from pvemcp_server.cli import logs
from pvemcp_server.cli.main import app

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("starting")]

PVEMCP = Path(sys.executable).with_name("pvemcp")


def test_it_says_that_these_are_demo_clusters_and_how_to_add_a_real_one(product):
    assert "home-lab and prod are emulated clusters" in product.output
    assert "pvemcp clusters add" in product.output
    assert "turned on" in product.output


def test_it_prints_the_page_the_url_and_one_line_for_a_client(product):
    assert f"Admin pages:   {product.url}/admin, user admin, one-time password" in product.output
    assert f'{product.url}/mcp --header "X-API-Key: {product.key}"' in product.output
    assert f"State:         {product.state}" in product.output


def test_a_stopped_and_a_killed_server_start_again_with_state_and_key(start, tmp_path):
    first = start(tmp_path)
    assert first.stop() == 0
    second = start(tmp_path)
    assert_known(second, first.key)
    (emulator,) = psutil.Process(second.process.pid).children()
    second.process.kill()
    second.process.wait(10)
    emulator.wait(10)  # it ends with the server even when that is killed
    third = start(tmp_path)  # and no lock is left
    assert_known(third, first.key)
    assert third.stop() == 0


def assert_known(server, key):
    """Check that a server accepts the key and has printed no secret."""
    assert not re.search(r"pvemcp_[0-9A-Za-z_]{40,}", server.output)
    assert "one-time password" not in server.output
    answer = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/mcp/{key}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout != "401"


def test_the_key_is_in_no_file_and_no_process_title(product):
    secret = product.key.rsplit("_", 1)[-1].encode()
    titles = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    assert not [title for title in titles if secret.decode() in title]
    files = [path for path in product.state.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]
    log_lines = [line for line in product.lines if "[info" in line or "[warning" in line]
    assert not [line for line in log_lines if secret.decode() in line]


def test_the_token_secrets_of_clusters_are_encrypted_at_rest(product):
    (database,) = product.state.glob("*.sqlite3")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        sealed = [row[0] for row in connection.execute("select secret from identities")]
    connection.close()
    assert sealed
    assert all(isinstance(one, bytes) and len(one) > 40 for one in sealed)


@pytest.mark.parametrize("command", ["serve", "run"])
def test_without_its_option_no_demo_starts_and_a_second_serve_is_refused(
    command, attempt, tmp_path
):
    first = subprocess.Popen(
        [PVEMCP, command, "--port", "0"],
        env={**environment(tmp_path), "PVEMCP_DEMO": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert first.stdout
    shown = until(first.stdout, "The endpoint is off")
    address = re.search(r"http://127\.0\.0\.1:[1-9]\d+", shown)
    assert address, shown
    children = psutil.Process(first.pid).children()
    second = attempt(tmp_path, "serve", "--port", "0")
    first.terminate()
    first.communicate(timeout=20)
    assert first.returncode == 0
    assert children == []
    assert stored_clusters(tmp_path) == [[], []]
    assert second.exit_code == 1
    assert f"already runs on the state folder {tmp_path} at {address[0]}" in second.stderr


@pytest.fixture
def attempt(monkeypatch):
    """Return how to try a start in this process: one of its own takes a second for its imports.

    The logging that a start configures is restored.
    """
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, logs.VERBOSE)]
    levels = [each.level for each in loggers]
    monkeypatch.setattr(root, "handlers", root.handlers[:])

    def run(state, *words):
        monkeypatch.setenv("PVEMCP_STATE_DIR", str(state))
        return CliRunner().invoke(app, words)

    yield run
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


SECOND_STARTS = {
    "run again": ["run", "--demo-if-empty", "--port", "{port}"],
    "run on another port": ["run", "--demo-if-empty", "--port", "0"],
    "run without a demo": ["run", "--port", "0"],
    "serve": ["serve", "--port", "{port}"],
    "serve on another port": ["serve", "--port", "0"],
}


@pytest.mark.parametrize("words", SECOND_STARTS.values(), ids=list(SECOND_STARTS))
def test_a_second_start_says_what_runs_and_leaves_it_alone(product, attempt, words):
    clusters = stored_clusters(product.state)
    second = attempt(product.state, *(word.format(port=product.port) for word in words))
    assert second.exit_code == 1
    assert second.stdout == ""
    (line,) = second.stderr.splitlines()
    assert f"already runs on the state folder {product.state} at {product.url}" in line
    assert f"process {product.process.pid}" in line
    assert "stop it first" in line
    assert stored_clusters(product.state) == clusters
    assert product.process.poll() is None


@pytest.mark.parametrize("command", [["serve"], ["run"], ["run", "--demo-if-empty"]])
def test_a_taken_port_in_a_fresh_copy_prints_and_writes_nothing_else(command, attempt, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = attempt(tmp_path / "state", *command, "--port", str(port))
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Cannot listen on 127.0.0.1 port {port}: another program uses it.")
    assert "PVEMCP_PORT" in line
    assert not (tmp_path / "state").exists()


def test_the_greeted_server_answers_at_once(product):
    """Check that the greeting comes last: the log says before it that the port is open."""
    listening = product.output.index("Listening on")
    assert listening < product.output.index("Admin pages:")
    assert listening < product.output.index(product.key)


@pytest.mark.parametrize("seconds", [0.3, 0.6, 0.9, 1.2])  # of CPU: on any machine the same place
def test_an_interrupted_start_ends_without_a_traceback(seconds, tmp_path):
    process = subprocess.Popen(
        [PVEMCP, "run", "--demo-if-empty", "--port", "0"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        started, patience = psutil.Process(process.pid), time.monotonic() + 20
        while sum(started.cpu_times()[:2]) < seconds and time.monotonic() < patience:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in shown
    assert process.returncode in (0, 130), shown


def environment(state):
    return {**os.environ, "PVEMCP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}


def until(lines, end):
    shown = []
    for line in lines:
        shown.append(line)
        if end in line:
            break
    return "".join(shown)


def stored_clusters(state):
    """Return the clusters with their hosts and tokens, as the running server reads them."""
    (database,) = state.glob("*.sqlite3")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = [
            connection.execute(f"select * from {table} order by id").fetchall()  # noqa: S608 - ours
            for table in ("clusters", "identities")
        ]
    connection.close()
    return found
