"""A wrong value of any command ends with one sentence, never with a trace."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from pvemcp_server.cli.main import app
from pvemcp_server.cli.state import command
from pvemcp_server.cli.terminal import usable_streams
from pvemcp_server.errors import CallError

NOT_JSON = ["", '{"a":', "[" * 200_000, "1" * 5_000, "nosuch"]
JSON_COMMANDS = [
    ["roles", "create", "ops", "--grants-file", "{file}"],
    ["roles", "change", "Operator", "--grants-file", "{file}"],
    ["tools", "call", "ListNodes", "@{file}"],
    ["queries", "run", "@{file}"],
    ["queries", "save", "nodes", "@{file}"],
]


def _commands(group: Any, *path: str) -> Iterator[tuple[list[str], Any]]:
    """Yield each command with its path."""
    for name in group.commands:
        one = group.commands[name]
        if hasattr(one, "commands"):
            yield from _commands(one, *path, name)
        else:
            yield [*path, name], one


def _with_required(path: list[str], one: Any, option: Any, value: str) -> list[str]:
    """Return a command line with this option and any word for what else it needs."""
    required = [each for each in one.params if each.required and each is not option]
    options = [f"{each.opts[0]}=x" for each in required if each.param_type_name == "option"]
    words = ["1" for each in required if each.param_type_name == "argument"]
    own = [value] if option.param_type_name == "argument" else [f"{option.opts[0]}={value}"]
    return [*path, *options, *(own if own[0] else []), *words, *([] if own[0] else own)]


def _options(wanted: Any) -> list[tuple[list[str], Any, Any]]:
    return [
        (path, one, option)
        for path, one in _commands(get_command(app))
        for option in one.params
        if wanted(option)
    ]


def test_an_empty_name_is_refused_and_does_not_stand_for_all(run):
    names = {"cluster", "identity", "key", "tool"}
    cases = _options(lambda each: not each.required and not each.multiple and each.name in names)
    assert {"tools call", "queries run", "doctor"} <= {" ".join(path) for path, _, _ in cases}
    for path, one, option in cases:
        refused = run(*_with_required(path, one, option, ""), fails=True)
        assert refused.stderr == f"{option.name}: is empty; name one, or leave it out.\n", path


def test_a_folder_in_place_of_a_file_is_named(run, tmp_path):
    cases = _options(lambda each: each.opts[0].endswith("-file") and not each.multiple)
    assert len(cases) >= 9
    for path, one, option in cases:
        refused = run(*_with_required(path, one, option, str(tmp_path)), fails=True)
        if f"{tmp_path}" in refused.stderr:  # others read another required file first
            assert refused.stderr == f"{option.opts[0]}: {tmp_path} is a folder; name a file.\n"
        assert refused.stderr.count("\n") == 1, path


@pytest.mark.parametrize("words", JSON_COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_what_is_not_json_is_one_sentence(run, words, tmp_path):
    file = tmp_path / "file"
    for text in NOT_JSON:
        file.write_text(text)
        refused = run(*(word.format(file=file) for word in words), fails=True).stderr
        assert "not JSON" in refused or "nested too deeply" in refused
        assert refused.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["clusters", "add", "--kind", "x"],
        ["audit", "list", "--guest", "x"],
        ["serve", "--port", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_value_is_named_without_the_words_of_a_library(run, words):
    refused = run(*words, fails=True)
    assert refused.exit_code == 2
    assert f"Invalid value for '{words[-2]}'" in refused.stderr
    assert "Value error" not in refused.stderr
    assert "Input should" not in refused.stderr


def test_a_wrong_command_line_is_one_line(run):
    words = [["nosuch"], ["--nosuch"], ["--state-dir"], ["keys", "nosuch"]]
    for path, one in _commands(get_command(app)):
        words.append([*path, "--nosuch"])
        words += [path] if any(each.required for each in one.params) else []
        words += [[*path, *"12345"]] if all(each.nargs == 1 for each in one.params) else []
    assert len(words) > 150
    for line in words:
        refused = run(*line, fails=True)
        assert refused.exit_code == 2, line
        assert refused.stderr.count("\n") == 1, line
        assert refused.stderr.endswith(" --help.\n"), line
        assert ". ." not in refused.stderr
        assert refused.stdout == "", line


def test_a_wrong_command_line_shows_no_control_characters(run):
    refused = run("keys", "\x1b[2J\n\tx", fails=True).stderr
    assert refused == "No such command '\\x1b[2J\\n\\tx'. See pvemcp keys --help.\n"


def test_a_role_without_a_tool_is_refused_with_the_options_that_name_one(run):
    for words in (["create", "ops"], ["change", "Operator", "--cluster", "prod"]):
        assert run("roles", *words, fails=True).stderr.startswith("--tool: name a tool")


def test_a_backup_that_cannot_be_read_is_named_once(run, tmp_path):
    file = tmp_path / "none"
    missing = run("restore", file, fails=True).stderr
    assert missing == f"{file} cannot be read: No such file or directory.\n"
    file.write_text("text")
    assert "use a file of `pvemcp backup`" in run("restore", file, fails=True).stderr


def test_a_long_value_does_not_hide_the_sentence_of_an_error(capsys):
    async def fail() -> None:
        raise CallError(f"No key '{'x' * 5_000}'. There is laptop.")

    with pytest.raises(typer.Exit):
        command(fail)()
    shown = capsys.readouterr().err
    assert len(shown) < 300
    assert shown.endswith("There is laptop.\n")


def test_closed_standard_streams_are_opened(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as ended:
        app(["--version"])
    assert ended.value.code == 0
    assert sys.stdin.read() == ""
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()


def test_an_error_of_a_stream_is_one_line():
    with pytest.raises(SystemExit) as ended, usable_streams():
        Path("/dev/full").write_text("help")
    assert ended.value.code == "No space left on device: the output."
