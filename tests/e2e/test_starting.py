"""What `make run` prints and keeps, and what it never does."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("starting")]


def test_it_says_that_these_are_demo_clusters_and_how_to_add_a_real_one(product):
    assert "demo clusters" in product.output
    assert "home-lab and prod" in product.output
    assert "pvemcp clusters add" in product.output
    assert "turned on" in product.output


def test_it_prints_url_configs_and_the_one_time_password(product):
    assert f"{product.url}/mcp/{product.key}" in product.output
    assert "claude_desktop_config.json" in product.output
    assert '"mcpServers"' in product.output
    assert f"{product.url}/admin" in product.output
    assert "one-time password" in product.output


def test_a_second_start_keeps_state_and_key_and_shows_no_secret(start, tmp_path):
    first = start(tmp_path)
    key = first.key
    assert first.stop() == 0
    second = start(tmp_path)
    assert "pvemcp_" not in second.output
    assert "one-time password" not in second.output
    answer = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{second.url}/mcp/{key}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout != "401"
    assert second.stop() == 0


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


def test_the_emulator_ends_with_the_server_even_when_that_is_killed(start, tmp_path):
    one = start(tmp_path)
    (emulator,) = psutil.Process(one.process.pid).children()
    one.process.kill()
    one.process.wait(10)
    emulator.wait(10)


@pytest.mark.parametrize("command", [["serve"], ["run"]])
def test_without_its_option_no_demo_starts_whatever_the_environment_says(command, tmp_path):
    environment = {**os.environ, "PVEMCP_STATE_DIR": str(tmp_path), "PVEMCP_DEMO": "1"}
    listing = [Path(sys.executable).with_name("pvemcp"), "clusters", "list", "--json"]
    server = subprocess.Popen(
        [listing[0], *command, "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout
    for line in server.stdout:
        if "Application startup complete" in line:
            break
    children = psutil.Process(server.pid).children()
    shown = subprocess.run(listing, env=environment, capture_output=True, text=True, check=True)
    server.terminate()
    server.communicate(timeout=20)
    assert children == []
    assert shown.stdout.strip() == "[]"
