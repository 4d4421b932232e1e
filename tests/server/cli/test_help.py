"""Help and completion: every command has an example, and names are completed."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.examples import EXAMPLES
from pvemcp_server.cli.main import app


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command below this one, with its path."""
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{path} {name}".strip())
    if not hasattr(command, "commands"):
        yield path, command


def test_every_command_shows_an_example_that_it_accepts():
    every = dict(commands(get_command(app)))
    assert every.keys() == EXAMPLES.keys()
    for path, command in every.items():
        assert command.epilog == f"Example: pvemcp {EXAMPLES[path]}"
        words = shlex.split(EXAMPLES[path])[len(path.split()) :]
        command.make_context(path, words)  # raises for an argument that it does not take


def test_a_flag_takes_no_value_in_the_help_of_any_command(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for path in ("", *dict(commands(get_command(app)))):
        assert "<bool>" not in run(*path.split(), "--help").stdout, path


def test_names_in_the_state_are_completed(run, tmp_path, monkeypatch):
    run("keys", "create", "laptop")
    run("keys", "create", "Lab")
    run("keys", "create", "other")
    context = typer.Context(get_command(app))
    assert set(complete("key")(context, "la")) == {"Lab", "laptop"}
    assert complete("role")(context, "o") == ["Operator"]
    assert complete("cluster")(context, "") == []
    assert complete("pairs")("row_c") == ["row_cap="]
    assert complete("tool")("rollback") == ["RollbackVmSnapshot"]
    assert complete("address") is None
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(tmp_path / "none"))
    assert complete("key")(context, "") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pvemcp keys remove la", "laptop"),
        ("pvemcp keys cr", "create"),
        ("pvemcp roles show Op", "Operator"),
        ("pvemcp roles change Op", "Operator"),
        ("pvemcp roles create web --tool Roll", "RollbackVmSnapshot"),
        ("pvemcp keys create web --tool Roll", "RollbackVmSnapshot"),
        ("pvemcp tools call Roll", "RollbackVmSnapshot"),
    ],
)
def test_a_shell_gets_completions(run, monkeypatch, words, expected):
    run("keys", "create", "laptop")
    monkeypatch.setenv("_PVEMCP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert expected in get_completions()


@pytest.mark.parametrize(
    "words",
    [
        "pvemcp --state-dir {there} keys remove la",
        "pvemcp keys remove --state-dir {there} la",
        "pvemcp --state-dir {none} keys remove --state-dir {there} la",
        "pvemcp --state-dir={there} tools list --key la",
    ],
)
def test_completion_reads_the_state_folder_named_before(run, monkeypatch, tmp_path, words):
    there = tmp_path / "there"
    run("--state-dir", str(there), "keys", "create", "laptop")
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(tmp_path / "none"))
    line = words.format(there=there, none=tmp_path / "none")
    monkeypatch.setenv("_PVEMCP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert "laptop" in get_completions()


def get_completions() -> str:
    """Return the output of the program for a shell that asks for completions."""
    return CliRunner().invoke(app, [], prog_name="pvemcp").output
