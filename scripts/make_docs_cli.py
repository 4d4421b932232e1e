"""Write docs/reference/cli.md: every command with its arguments and options.

python scripts/make_docs_cli.py           renew it
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
`--json` answers for programs. What goes wrong is one line on standard error, and the exit code 1.
Secrets are read from files or standard input, never from the command line, where everybody could
see them.
"""
SHOWN_ONCE = {"help", "install_completion", "show_completion"}


def page() -> str:
    """The whole page."""
    root = get_command(app)
    return "\n".join([INTRO, *_commands(root, "pvemcp")]).rstrip() + "\n"


def _commands(command: typer.core.TyperCommand | typer.core.TyperGroup, path: str) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is None:
        yield from _command(command, path)
        return
    depth = "#" * (path.count(" ") + 1)
    if path != "pvemcp":
        yield f"{depth}# {path}\n"
        yield f"{command.help}\n"
    plain = [name for name in below if not hasattr(below[name], "commands")]
    groups = [name for name in below if hasattr(below[name], "commands")]
    for name in (*plain, *groups):
        yield from _commands(below[name], f"{path} {name}")


def _command(command: typer.core.TyperCommand, path: str) -> Iterator[str]:
    yield f"### {path}\n"
    yield f"{(command.help or '').strip()}\n"
    told = [one for one in command.params if one.name not in SHOWN_ONCE]
    if told:
        yield "| | |"
        yield "|---|---|"
        for one in told:
            yield f"| {_name(one)} | {_words(one)} |"
        yield ""


def _name(parameter: object) -> str:
    if parameter.param_type_name == "argument":
        needed = parameter.name.upper()
        return f"`{needed}`" if parameter.required else f"`[{needed}]`"
    spelt = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
    return f"{spelt} **needed**" if parameter.required else spelt


def _words(parameter: object) -> str:
    said = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    if default in (None, False, "", (), []) or callable(default):
        return said
    return f"{said} (default: {default})"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
