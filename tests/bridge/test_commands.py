"""The subcommands: doctor reports where it fails, install keeps the rest of a file."""

import asyncio
import json
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pvemcp_bridge.clients import CLIENTS, Connection

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

KEY = "a-key-that-must-never-show"
ORDERS = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e"


async def run_command(bridges, *arguments, answer=b"", **env):
    """Run the bridge; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *bridges.command(),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=bridges.environment(**env),
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate(answer)
    return process.returncode, output.decode()


async def test_version_option_prints_the_version(bridges):
    code, output = await run_command(bridges, "--version")
    assert code == 0
    assert output.startswith("pvemcp-bridge ")


async def test_help_names_every_option_and_command(bridges):
    code, output = await run_command(bridges, "--help", COLUMNS="200")
    assert code == 0
    for word in (
        "--url, -u",
        "--api-key",
        "MCP_API_KEY_FILE",
        "--fingerprint",
        "doctor",
        "install",
    ):
        assert word.split(",")[0] in output


async def test_help_shows_complete_sentences_for_the_commands(bridges):
    _, output = await run_command(bridges, "--help", COLUMNS="80")
    assert "..." not in output.partition("Commands:")[2]


async def test_doctor_reports_every_step_of_a_working_server(bridges, server):
    code, output = await run_command(bridges, "doctor", MCP_URL=server.url, MCP_API_KEY=KEY)
    assert code == 0, output
    assert "FAIL" not in output
    for words in ("answers", "accepted", "2026-07-28, 2025-11-25 by handshake", "3: look, set"):
        assert words in output
    assert "ms (median of 5)" in output
    assert server.sessions == set()
    assert KEY not in output


async def test_doctor_accepts_a_server_without_the_stateless_era(bridges, server, faults):
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "unknown"}}
    server.fail("server/discover", faults.status(404, error, content_type="application/json"), 9)
    code, output = await run_command(bridges, "doctor", "--url", server.url)
    assert code == 0, output
    assert "2025-11-25 by handshake" in output
    assert "3: look" in output


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_doctor_fails_at_an_address_that_serves_no_version(bridges, server, faults, status):
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "not here"}}
    for method in ("server/discover", "initialize"):
        server.fail(method, faults.status(status, error, content_type="application/json"), 9)
    code, output = await run_command(bridges, "doctor", "--url", server.url)
    assert code == 1
    assert output.splitlines()[-1].startswith("FAIL  protocol  This address serves no protocol")


@pytest.mark.parametrize(
    ("status", "step", "words"),
    [
        *[(401, "key", "rejected"), (403, "key", "not allow"), (500, "server", "failed")],
        *[(404, "protocol", "nothing at this URL"), (429, "protocol", "rate-limits")],
    ],
)
async def test_doctor_reports_the_step_that_fails(bridges, server, faults, status, step, words):
    server.fail("server/discover", faults.status(status, b"no"), 9)
    code, output = await run_command(bridges, "doctor", "--url", server.url, "--api-key", KEY)
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith(f"FAIL  {step}")
    assert words in last
    assert KEY not in output


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_doctor_fails_with_the_text_of_a_server_that_answers_no_call(
    bridges, server, faults, status
):
    text = "The endpoint is switched off."
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": text}}
    for method in ("server/discover", "initialize"):
        server.fail(method, faults.status(status, error, content_type="application/json"), 9)
    code, output = await run_command(bridges, "doctor", "--url", server.url)
    assert code == 1, output
    last = output.splitlines()[-1]
    assert last.startswith("FAIL  server")
    assert f': "{text.removesuffix(".")}". ' in last


async def test_doctor_shows_odd_answers_and_obeys_none(bridges, server, faults):
    async def odd(call):
        await call.result({"supportedVersions": [7, ORDERS], "protocolVersion": 8, "tools": "x"})

    for method in ("server/discover", "initialize", "tools/list"):
        server.fail(method, odd)
    code, output = await run_command(bridges, "doctor", "--url", server.url, "--api-key", KEY)
    assert code == 0, output
    assert "Traceback" not in output
    server.fail("server/discover", faults.status(403, ORDERS.encode()))
    code, refused = await run_command(bridges, "doctor", "--url", server.url, "--api-key", KEY)
    assert code == 1
    assert all(line.isprintable() for line in (output + refused).splitlines())


async def test_doctor_reports_an_unreachable_server(bridges, server):
    await server.stop()
    code, output = await run_command(bridges, "doctor", "--url", server.url)
    assert code == 1
    assert output.startswith("FAIL  reach")
    assert "refused the connection" in output
    assert "pvemcp-bridge doctor" not in output


def home_variables(folder):
    """Return the environment in which this folder is the user's home."""
    return dict.fromkeys(("HOME", "USERPROFILE", "APPDATA"), str(folder))


def files_in(home):
    return sorted(path for path in home.rglob("*") if path.is_file())


READ = {".json": json.loads, ".toml": tomllib.loads, ".yaml": yaml.safe_load}


@pytest.mark.parametrize("client", ["claude-desktop", "codex", "goose"])
async def test_install_writes_the_configuration_a_client_reads(bridges, tmp_path, client):
    home = home_variables(tmp_path)
    options = ("--client", client, "--url", "https://pve.example/mcp", "--api-key", KEY)
    code, output = await run_command(bridges, "install", *options, answer=b"y\n", **home)
    assert code == 0, output
    assert KEY not in output
    (file,) = files_in(tmp_path)
    config = READ[file.suffix](file.read_text())
    server = config[CLIENTS[client].section]["pvemcp"]
    command = server["cmd" if client == "goose" else "command"]
    assert Path(command).stem.startswith(("pvemcp-bridge", "python"))
    connection = Connection("https://pve.example/mcp", KEY, command=(command,))
    assert server == CLIENTS[client].entry(connection)
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("client", ["jetbrains", "open-webui"])
async def test_install_prints_what_goes_into_a_client_without_a_file(bridges, tmp_path, client):
    options = ("--client", client, "--url", "https://pve.example/mcp", "--api-key", KEY)
    code, output = await run_command(bridges, "install", *options, **home_variables(tmp_path))
    assert code == 0, output
    assert CLIENTS[client].place in output
    assert '"MCP_URL": "https://pve.example/mcp"' in output
    assert KEY not in output
    assert files_in(tmp_path) == []


async def test_install_with_print_only_shows_the_change(bridges, tmp_path):
    options = ("--client", "cursor", "--url", "https://pve.example/mcp", "--api-key", KEY)
    home = home_variables(tmp_path)
    code, output = await run_command(bridges, "install", *options, "--print", **home)
    assert code == 0, output
    assert '+        "MCP_URL": "https://pve.example/mcp"' in output
    assert KEY not in output
    assert files_in(tmp_path) == []


COMMENTED = """\
// my settings
{
  "theme": "One // not a comment",  /* nor ", this */
  "mcpServers": {
    "other": {"command": "x", "args": ["-y",]}, // kept
  },
}
"""


async def test_install_keeps_comments_order_and_other_servers(bridges, tmp_path):
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(COMMENTED)
    options = ("install", "--client", "cursor", "--yes", "--url", "http://x", "--name", "lab")
    code, output = await run_command(bridges, *options, **home_variables(tmp_path))
    assert code == 0, output
    before, after = COMMENTED.splitlines(), file.read_text().splitlines()
    assert [line for line in after if line in before] == before
    assert '"MCP_URL": "http://x"' in file.read_text()
    (backup,) = file.parent.glob("mcp.json.backup-*")
    assert backup.read_text() == COMMENTED
    code, output = await run_command(bridges, *options, **home_variables(tmp_path))
    assert "is up to date" in output
    again = ("install", "--client", "cursor", "--yes", "--url", "http://y", "--name", "lab")
    await run_command(bridges, *again, **home_variables(tmp_path))
    assert file.read_text().splitlines() == [line.replace("http://x", "http://y") for line in after]
    assert len(list(file.parent.glob("mcp.json.backup-*"))) == 2


@pytest.mark.parametrize("indent", [2, None])
async def test_install_shows_no_other_key_and_gives_no_orders(bridges, tmp_path, indent):
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    former = {"env": {"MCP_API_KEY": "former-key"}, "args": ["--api-key", "former-key"]}
    others = {"env": {"TOKEN": 'others"-key'}, "args": ["others-key"], "name": ORDERS}
    servers = {"a": others, "pvemcp": former, "z": others}
    text = json.dumps({"mcpServers": servers}, indent=indent, ensure_ascii=False)
    file.write_text(text + f"  // {ORDERS}")
    options = ("install", "--client", "cursor", "--print", "--url", "http://x", "--api-key", KEY)
    code, output = await run_command(bridges, *options, **home_variables(tmp_path))
    assert code == 0, output
    assert not [key for key in ("former-key", "others", KEY) if key in output]
    assert all(line.isprintable() for line in output.splitlines())


@pytest.mark.parametrize("text", ["[]", "{", '{"mcpServers": 7}'])
async def test_install_does_not_change_an_unusable_file(bridges, tmp_path, text):
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(text)
    options = ("install", "--client", "cursor", "--yes", "--url", "http://x")
    code, output = await run_command(bridges, *options, **home_variables(tmp_path))
    assert code == 1
    assert "Nothing was changed" in output
    assert file.read_text() == text


@pytest.mark.parametrize("obstacle", [".cursor", ".cursor/mcp.json/folder"])
async def test_install_names_a_path_that_cannot_be_used(bridges, tmp_path, obstacle):
    if obstacle == ".cursor":
        (tmp_path / obstacle).touch()
    else:
        (tmp_path / obstacle).mkdir(parents=True)
    options = ("install", "--client", "cursor", "--yes", "--url", "http://x")
    code, output = await run_command(bridges, *options, **home_variables(tmp_path))
    assert (code, "Traceback" in output) == (1, False)
    assert output.rstrip().endswith("Nothing was changed.")


async def test_install_writes_nothing_without_confirmation(bridges, tmp_path):
    options = ("install", "--client", "cursor", "--url", "http://x")
    code, _ = await run_command(bridges, *options, answer=b"n\n", **home_variables(tmp_path))
    assert code == 1
    assert files_in(tmp_path) == []


async def test_install_rejects_an_unknown_client(bridges):
    code, output = await run_command(bridges, "install", "--client", "emacs", "--url", "http://x")
    assert code == 2
    assert "claude-desktop" in output


async def test_a_symbolic_link_to_the_configuration_stays_a_link(bridges, tmp_path):
    real = tmp_path / "dotfiles.json"
    real.write_text("{}\n")
    link = tmp_path / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(real)
    options = ("install", "--client", "cursor", "--yes", "--url", "http://x")
    code, _ = await run_command(bridges, *options, **home_variables(tmp_path))
    assert code == 0
    assert link.is_symlink()
    assert "pvemcp" in real.read_text()
