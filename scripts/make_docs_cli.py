"""Write docs/reference/cli.md: every command with its arguments and options.

python scripts/make_docs_cli.py           write it
python scripts/make_docs_cli.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

from pages import renew_or_check
from pvemcp_server.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
INTRO = """\
# Command line

Generated from the declarations by `make docs`.

`pvemcp` administers the state that `PVEMCP_STATE_DIR` or `PVEMCP_DATABASE_URL` names (see
[configuration](configuration.md)), also while a server runs on it: a change takes effect there
within a second. Each change is in the audit under `cli:` and the name of the system's user.
`--json` prints JSON for programs. An error is one line on standard error, with exit code 1.
Secrets are read from files or standard input, never from the command line, which other users can
see.
"""
HIDDEN = {"help", "install_completion", "show_completion"}


def page() -> str:
    """Return the whole page."""
    root = get_command(app)
    return "\n".join([INTRO, *_commands(root, "pvemcp")]).rstrip() + "\n"


def _commands(command: typer.core.TyperCommand | typer.core.TyperGroup, path: str) -> Iterator[str]:
    commands = getattr(command, "commands", None)
    if commands is None:
        yield from _command(command, path)
        return
    depth = "#" * (path.count(" ") + 1)
    if path != "pvemcp":
        yield f"{depth}# {path}\n"
        yield f"{command.help}\n"
    plain = [name for name in commands if not hasattr(commands[name], "commands")]
    groups = [name for name in commands if hasattr(commands[name], "commands")]
    for name in (*plain, *groups):
        yield from _commands(commands[name], f"{path} {name}")


def _command(command: typer.core.TyperCommand, path: str) -> Iterator[str]:
    yield f"### {path}\n"
    yield f"{(command.help or '').strip()}\n"
    parameters = [each for each in command.params if each.name not in HIDDEN]
    if parameters:
        yield "| | |"
        yield "|---|---|"
        for each in parameters:
            yield f"| {_name(each)} | {_text(each)} |"
        yield ""


def _name(parameter: object) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.name.upper()
        return f"`{name}`" if parameter.required else f"`[{name}]`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"{names} **required**" if parameter.required else names


def _text(parameter: object) -> str:
    text = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    if default in (None, False, "", (), []) or callable(default):
        return text
    return f"{text} (default: {default})"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
