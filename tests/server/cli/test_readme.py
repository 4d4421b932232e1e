"""README's commands, run as printed: they work, or a placeholder is one line that says so."""

import re
import shlex
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def printed_commands() -> list[list[str]]:
    """Return the words of each command of pvemcp in README's code blocks."""
    blocks = re.findall(r"^```\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(".venv/bin/pvemcp ")]


def test_the_commands_of_the_readme_work_as_printed(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("token.txt").write_text("secret\n")
    shown = {" ".join(words[:2]): words for words in reversed(printed_commands())}
    assert shown.keys() == {"clusters add", "keys create", "settings set"}
    assert "Key laptop" in run(*shown["keys create"]).stdout
    assert run(*shown["settings set"]).stdout == "Changed enabled.\n"
    assert run(*shown["clusters add"], fails=True).stderr == (
        "name: is needed; at a terminal the command asks for it.\n"
    )


def test_a_placeholder_of_the_readme_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in printed_commands() if "--fingerprint" in words]
    missing = run(*words, fails=True).stderr
    assert missing == "--token-secret-file: token.txt: No such file or directory.\n"
    Path("token.txt").write_text("secret\n")
    wrong = run(*words, fails=True).stderr
    assert wrong.startswith("fingerprints: each is 32 pairs of hex digits, the SHA-256 that")
    assert wrong.count("\n") == 1
