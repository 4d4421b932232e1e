"""What commands print: text of clients and of Proxmox gives a terminal no orders."""

import ast
import json
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from pvemcp_server import cli
from pvemcp_server.admin.operation import operations
from pvemcp_server.cli.context import cell_text, print_answer, print_table, to_json
from pvemcp_server.cli.logs import formatter_of
from pvemcp_server.cli.state import command
from pvemcp_server.config import Config
from pvemcp_server.errors import CallError
from pvemcp_server.settings import declared_settings

SAFE = {"one_line", "printable", "to_json", "no_cluster", "style"}
OWN = {  # texts of this program, and answers that were cleaned as for models
    "__version__", "CERTIFICATE_COMMANDS[kind]", "step", "hidden", "texts[format].rstrip('\\n')",
}  # fmt: skip
ORDERS = ["\x1b[2J", "\x9b31m", "\u202e", "\x7f", "\u2028", "\r"]


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_printed_is_obeyed_by_a_terminal(order, capsys):
    text = f"name{order}"
    print_answer({"name": text}, text, as_json=False)
    print_answer({"name": text}, text, as_json=True)
    print_table([SimpleNamespace(name=text)], [("name", str)])
    for line in capsys.readouterr().out.split("\n"):
        assert line.isprintable()
    assert json.loads(to_json({"name": text})) == {"name": text}


def _unsafe(node: ast.expr) -> list[str]:
    """Return the parts of a printed text that are neither literal nor made safe."""
    match node:
        case ast.Constant():
            return []
        case ast.IfExp():
            return [*_unsafe(node.body), *_unsafe(node.orelse)]
        case ast.JoinedStr():
            return [text for each in node.values for text in _unsafe(each)]
        case ast.FormattedValue():
            return _unsafe(node.value)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in SAFE:
            return []
    text = ast.unparse(node)
    return [] if text in OWN else [text]


def test_every_command_makes_what_it_prints_safe():
    unsafe = {
        f"{file.name}: {text}"
        for file in Path(cli.__path__[0]).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.echo", "typer.secho")
        for text in _unsafe(node.args[0])
    }
    assert unsafe == set()


@pytest.mark.parametrize("order", [*ORDERS, "\n"])
def test_an_error_that_is_printed_is_not_obeyed_by_a_terminal(order, capsys):
    async def fail() -> None:
        raise CallError(f"Proxmox: {order}")

    with pytest.raises(typer.Exit):
        command(fail)()
    assert capsys.readouterr().err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied", "x")]
)
def test_an_error_of_the_system_is_one_line(error, capsys):
    async def fail() -> None:
        raise error

    with pytest.raises(typer.Exit):
        command(fail)()
    assert capsys.readouterr().err.count("\n") == 1


def _refuse(order: str) -> None:
    raise ValueError(f"Proxmox: {order}")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("order", [*ORDERS, "\n2026-11-30T00:00:00Z [error    ] forged"])
def test_no_text_in_a_record_begins_a_line_of_the_log(order, log_format):
    try:
        _refuse(order)
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed: %s", (order,), trace)
    first, *others = formatter_of(Config(log_format=log_format)).format(record).split("\n")
    assert first.isprintable()
    assert all(line.isprintable() and line.startswith("  ") for line in others)


SECRET = "S3cr3tValueOfThisParameter"
LINES_WITH_SECRETS = [
    *(
        f"127.0.0.1 - GET {path}?iss=x&{name}={SECRET}&scope=y HTTP/1.1 302"
        for path in ("/admin/oidc/callback", "/oauth/openid/callback", "/pve/oauth/consent")
        for name in ("code", "state", "id_token", "code_verifier", "client_secret")
    ),
    f"127.0.0.1 - GET /admin/sign-in?password={SECRET} HTTP/1.1 404",
    f"127.0.0.1 - POST /sse/messages?session_id={SECRET} HTTP/1.1 202",
]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_signs_in_or_names_a_session_is_not_logged(log_format):
    formatter = formatter_of(Config(log_format=log_format))
    for line in LINES_WITH_SECRETS:
        record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, line, (), None)
        text = formatter.format(record)
        assert SECRET not in text, line
        assert "127.0.0.1" in text and "HTTP/1.1" in text  # noqa: PT018 - the rest is kept
    ordinary = "GET /admin/audit?tool=ListVms&outcome=ok HTTP/1.1"
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, ordinary, (), None)
    assert ordinary in formatter.format(record)
    for message in ("Rejecting request for session %s: credential", "no session for ID: %s"):
        session = "0a1b2c3d" + 28 * "x-"
        record = logging.LogRecord(
            "mcp.server.sse", logging.WARNING, "", 0, message, (session,), None
        )
        text = formatter.format(record)
        assert "0a1b2c3d" in text
        assert session[:20] not in text


def test_a_table_has_words_as_headers_local_times_and_no_empty_column(capsys, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Zurich")
    time.tzset()
    try:
        row = SimpleNamespace(
            key_name="laptop", last_used=datetime(2026, 1, 2, 8, tzinfo=UTC), by=""
        )
        print_table([row], [(name, cell_text) for name in ("key_name", "last_used", "by")])
    finally:
        monkeypatch.undo()
        time.tzset()
    header, _, line = filter(str.strip, capsys.readouterr().out.splitlines())
    assert header.split("  ")[0].strip() == "key name"
    assert "last used" in header
    assert header.split()[-1] == "used"
    assert line.split() == ["laptop", "2026-01-02", "09:00:00", "CET"]


LISTS = [
    (command.path, command.columns)
    for operation in operations().values()
    for command in operation.commands
    if command.columns
]


@pytest.mark.parametrize(("path", "columns"), LISTS, ids=[path for path, _ in LISTS])
def test_every_list_is_readable_at_80_columns(path, columns, capsys, monkeypatch):
    """Print names of 20 letters, times, and texts of 250."""
    names = [each if isinstance(each, str) else each.name for each in columns]
    texts = {"at": "2026-01-02 09:00:00 CEST", "value": "JsonCompact", "default": "JsonCompact"}
    texts |= dict.fromkeys(("reason", "description", "trouble", "error"), "word " * 50)
    row = SimpleNamespace(**{name: texts.get(name, name[:1] * 20) for name in names})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")  # 80 columns, without colours
    print_table([row], [(name, str) for name in names])
    printed = capsys.readouterr()
    header, _, first, *further = printed.out.splitlines()
    assert max(map(len, printed.out.splitlines())) <= 80
    assert all(set(line.split()) == {"word"} for line in further)  # only a text is wrapped
    assert len(further) <= 6
    hidden = printed.err.removeprefix("Not shown for lack of room: ").partition(".")[0]
    shown = [name.strip() for name in header.split("  ") if name.strip()]
    every = [name.replace("_", " ") for name in names]
    assert [*shown, *filter(None, hidden.split(", "))] == every
    assert len(shown) >= min(2, len(names)), first


def test_entries_and_settings_take_a_line_each_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    entry = {
        "seq": "12345",
        "at": "2026-01-02 09:00:00 CEST",
        "tool": "admin.settings.change",
        "outcome": "refused",
        "key_name": "cli:root",
        "cluster": "prod",
        "acting": "",
        "rows": "40",
        "duration_ms": "33",
        "reason": "word " * 50,
    }
    settings = [
        SimpleNamespace(name=each.name, value=each.default, default=each.default, description="x")
        for each in declared_settings()
    ]
    for path, rows, last in (
        ("audit list", [SimpleNamespace(**entry)], "cli:root"),
        ("settings list", settings, "no"),
    ):
        print_table(rows, [(name, cell_text) for name in dict(LISTS)[path]])
        _, _, *lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(rows)
        assert lines[0].split()[-1] == last
