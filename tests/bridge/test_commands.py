"""The subcommands: doctor says where it fails, install changes one thing and keeps the rest."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

KEY = "a-key-that-must-never-show"
CLIENTS = ["claude-desktop", "claude-code", "cursor", "vscode", "windsurf", "zed"]


async def ran(bridges, *arguments, answer=b"", **env):
    """Exit code and output of one run."""
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


async def test_the_version_is_told(bridges):
    code, output = await ran(bridges, "--version")
    assert code == 0
    assert output.startswith("pvemcp-bridge ")


async def test_help_names_every_option_and_command(bridges):
    code, output = await ran(bridges, "--help", COLUMNS="200")
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


async def test_help_says_what_the_commands_do_in_whole_sentences(bridges):
    _, output = await ran(bridges, "--help", COLUMNS="80")
    assert "..." not in output.partition("Commands:")[2]


async def test_doctor_finds_all_well(bridges, server):
    code, output = await ran(bridges, "doctor", MCP_URL=server.url, MCP_API_KEY=KEY)
    assert code == 0, output
    assert "FAIL" not in output
    for words in ("answers", "accepted", "2026-07-28, 2025-11-25 by handshake", "3: look, set"):
        assert words in output
    assert "ms (median of 5)" in output
    assert server.sessions == set()
    assert KEY not in output


async def test_doctor_knows_a_server_of_the_handshake_alone(bridges, server, faults):
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "what?"}}
    server.fail("server/discover", faults.status(404, error, content_type="application/json"), 9)
    code, output = await ran(bridges, "doctor", "--url", server.url)
    assert code == 0, output
    assert "2025-11-25 by handshake" in output
    assert "3: look" in output


@pytest.mark.parametrize(
    ("status", "step", "words"),
    [(401, "key", "rejected"), (403, "key", "not allow"), (404, "protocol", "nothing at this URL")],
)
async def test_doctor_says_which_step_fails(bridges, server, faults, status, step, words):
    server.fail("server/discover", faults.status(status, b"no"), 9)
    code, output = await ran(bridges, "doctor", "--url", server.url, "--api-key", KEY)
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith(f"FAIL  {step}")
    assert words in last
    assert KEY not in output


async def test_doctor_says_when_nobody_is_there(bridges, server):
    await server.stop()
    code, output = await ran(bridges, "doctor", "--url", server.url)
    assert code == 1
    assert output.startswith("FAIL  reach")
    assert "refused the connection" in output
    assert "pvemcp-bridge doctor" not in output


def at(home):
    """The environment in which this folder is the user's home."""
    return {"HOME": str(home), "USERPROFILE": str(home), "APPDATA": str(home)}


def files_in(home):
    return sorted(path for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("client", CLIENTS)
async def test_install_writes_the_configuration_a_client_reads(bridges, tmp_path, client):
    home = at(tmp_path)
    given = ("--client", client, "--url", "https://pve.example/mcp", "--api-key", KEY)
    code, output = await ran(bridges, "install", *given, "--print", **home)
    assert code == 0, output
    assert files_in(tmp_path) == []
    code, output = await ran(bridges, "install", *given, answer=b"y\n", **home)
    assert code == 0, output
    assert KEY not in output
    (file,) = files_in(tmp_path)
    config = json.loads(file.read_text())
    ((key, servers),) = config.items()
    assert key == {"vscode": "servers", "zed": "context_servers"}.get(client, "mcpServers")
    server = servers["pvemcp"]
    assert server.pop("type", "stdio") == "stdio"
    assert Path(server.pop("command")).stem.startswith(("pvemcp-bridge", "python"))
    assert server == {
        "args": [],
        "env": {"MCP_URL": "https://pve.example/mcp", "MCP_API_KEY": KEY},
    }
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o777 == 0o600


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
    given = ("install", "--client", "cursor", "--yes", "--url", "http://x", "--name", "lab")
    code, output = await ran(bridges, *given, **at(tmp_path))
    assert code == 0, output
    before, after = COMMENTED.splitlines(), file.read_text().splitlines()
    assert [line for line in after if line in before] == before
    assert '"MCP_URL": "http://x"' in file.read_text()
    (backup,) = file.parent.glob("mcp.json.backup-*")
    assert backup.read_text() == COMMENTED
    code, output = await ran(bridges, *given, **at(tmp_path))
    assert "as it should be" in output
    again = ("install", "--client", "cursor", "--yes", "--url", "http://y", "--name", "lab")
    await ran(bridges, *again, **at(tmp_path))
    assert file.read_text().splitlines() == [line.replace("http://x", "http://y") for line in after]
    assert len(list(file.parent.glob("mcp.json.backup-*"))) == 2


@pytest.mark.parametrize("text", ["[]", "{", '{"mcpServers": 7}'])
async def test_install_leaves_a_file_it_does_not_understand(bridges, tmp_path, text):
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(text)
    given = ("install", "--client", "cursor", "--yes", "--url", "http://x")
    code, output = await ran(bridges, *given, **at(tmp_path))
    assert code == 1
    assert "Nothing was changed" in output
    assert file.read_text() == text


async def test_install_asks_and_takes_no_for_an_answer(bridges, tmp_path):
    given = ("install", "--client", "cursor", "--url", "http://x")
    code, _ = await ran(bridges, *given, answer=b"n\n", **at(tmp_path))
    assert code == 1
    assert files_in(tmp_path) == []


async def test_install_knows_its_clients(bridges):
    code, output = await ran(bridges, "install", "--client", "emacs", "--url", "http://x")
    assert code == 2
    assert "claude-desktop" in output


async def test_a_linked_configuration_stays_a_link(bridges, tmp_path):
    real = tmp_path / "dotfiles.json"
    real.write_text("{}\n")
    link = tmp_path / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(real)
    given = ("install", "--client", "cursor", "--yes", "--url", "http://x")
    code, _ = await ran(bridges, *given, **at(tmp_path))
    assert code == 0
    assert link.is_symlink()
    assert "pvemcp" in real.read_text()
