"""Configuration files of clients: what is added, and that all else stays."""

import json
import shlex
import tomllib
from base64 import b64decode
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from pvemcp_bridge import config_file, json_config, toml_config, yaml_config
from pvemcp_bridge.clients import CLIENTS, Connection, quoted
from pvemcp_bridge.config_file import UnusableConfig

URL, KEY = "https://pve.example/mcp", "pvemcp_secret-key"
WITH_KEY, WITHOUT_KEY = Connection(URL, KEY), Connection(URL)
READ = {json_config: json.loads, toml_config: tomllib.loads, yaml_config: yaml.safe_load}
BOTH_WAYS = pytest.mark.parametrize("bridged", [True, False])


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS)
def client(request):
    """Give each client, one after the other."""
    return request.param


def servers(client, text):
    """Return the servers in a configuration by name."""
    section = READ[client.format](text)[client.section]
    return {each["name"]: each for each in section} if isinstance(section, list) else section


@BOTH_WAYS
def test_a_new_configuration_holds_the_entry(client, bridged):
    text = client.text(WITH_KEY, bridged=bridged)
    assert servers(client, text) == {"pvemcp": client.entry(WITH_KEY, bridged=bridged)}
    assert text.endswith("\n")


@BOTH_WAYS
def test_without_a_key_no_header_and_no_variable_holds_one(client, bridged):
    text = client.text(WITHOUT_KEY, bridged=bridged)
    assert not [word for word in ("API_KEY", "API-Key", '""') if word in text]


def test_a_key_is_never_an_argument_of_the_bridge(client):
    entry = client.entry(WITH_KEY)
    environment = next(entry[name] for name in ("env", "envs", "environment") if name in entry)
    assert environment == {"MCP_URL": URL, "MCP_API_KEY": KEY}
    assert KEY not in json.dumps({**entry, **dict.fromkeys(("env", "envs", "environment"))})


def test_a_command_of_several_words_is_kept(client):
    words = ("C:\\Program Files\\py.exe", 'C:\\Users\\Jo "x"\\pvemcp-bridge.pyz')
    text = client.text(Connection(URL, KEY, command=words))
    (entry,) = servers(client, text).values()
    command = entry.get("cmd") or entry["command"]
    assert (command if isinstance(command, list) else [command, *entry["args"]]) == list(words)


@pytest.mark.parametrize("name", ["pvemcp", "my lab", "yes", 'a"b', "lab.1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_servers_are_added_and_replaced_by_name(client, name, newline):
    text = client.text(Connection(URL, name="other")).replace("\n", newline)
    text = client.with_server(text, Connection("https://old.example/mcp", name=name))
    text = client.with_server(text, Connection(URL, KEY, name=name))
    assert text.count("\n") == text.count(newline)
    assert servers(client, text) == {
        "other": client.entry(Connection(URL, name="other")),
        name: client.entry(Connection(URL, KEY, name=name)),
    }
    assert client.with_server(text, Connection(URL, KEY, name=name)) == text


TOML = '''\
# mine
model = "x"  # [mcp_servers.pvemcp]
text = """
[mcp_servers.pvemcp]
"""
list = [
  ["a"],
]
[mcp_servers.pvemcp]
url = "https://old.example"  # old
[mcp_servers.pvemcp.env]
A = "1"

# of the next one
[mcp_servers.other]
command = "x"

[[profiles]]
name = "p"
'''
YAML_MAP = """\
# mine
GOOSE_MODE: auto # [x]
text: |
  extensions:
    pvemcp: no
extensions: # all of them
    # first
    'pvemcp':
        type: sse # old

    # of the next one
    other: &other
        cmd: "x: y"
slash_commands:
- command: extensions
"""
YAML_LIST = """\
name: Mine
mcpServers:
- command: a
  name: other # not pvemcp
  args:
  - name: pvemcp

# of the next one
- name: "pvemcp"
  command: old
models: []
"""
JSONC = """\
// mine
{
  "a": "// no comment", /* [ */
  "mcpServers": {"other": {"command": "x",}, "pvemcp": {"url": "old"}}, // all
}
"""


@pytest.mark.parametrize(
    ("client", "text", "lost"),
    [
        ("codex", TOML, {8, 9, 10, 11}),
        ("goose", YAML_MAP, {7, 8}),
        ("continue", YAML_LIST, {8, 9}),
        ("cursor", JSONC, {3}),
    ],
)
def test_comments_order_and_other_values_stay(client, text, lost):
    kept = [line for at, line in enumerate(text.splitlines()) if at not in lost]
    changed = CLIENTS[client].with_server(text, WITH_KEY)
    lines = iter(changed.splitlines())
    assert all(line in lines for line in kept), changed
    if client != "cursor":
        read = READ[CLIENTS[client].format]
        before, after = read(text), read(changed)
        section = CLIENTS[client].section
        assert servers(CLIENTS[client], changed)["pvemcp"] == CLIENTS[client].entry(WITH_KEY)
        assert {**before, section: None} == {**after, section: None}
        assert "old" not in changed.replace("# old", "")


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ("cursor", "[]"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", "mcp_servers = {}"),
        ("codex", "mcp_servers = 1"),
        ("codex", "[mcp_servers]\npvemcp = {}"),
        ("codex", "= 1"),
        ("goose", "{extensions: {}}"),
        ("goose", "extensions: {a: {}}"),
        ("goose", '"extensions":\n  a: {}'),
        ("goose", "a: 1\n---\nb: 2"),
        ("goose", "extensions:\n\ta: 1"),
        ("goose", "extensions:\n  a: 1\nextensions:\n  b: 1"),
        ("goose", "extensions:\n    a:\n      b: 1\n  c: 2"),
        ("goose", "extensions: &x\n  a: 1"),
        ("goose", "extensions:\n  - a: 1"),
        ("goose", "extensions:\n- a: 1\nb: 2"),
        ("goose", "extensions:\n  pvemcp: &x\n    a: 1\n  other: *x"),
        ("goose", 'extensions:\n  a: "x\n  pvemcp: 1"'),
        ("goose", "extensions:\n  a: 'it''s\n  pvemcp: 1'"),
        ("continue", "- a"),
        ("continue", "mcpServers:\n  pvemcp:\n    command: x"),
    ],
)
def test_a_file_in_another_style_is_refused(client, text):
    with pytest.raises(UnusableConfig):
        CLIENTS[client].with_server(text, WITH_KEY)


@pytest.mark.parametrize("text", ["extensions:", "extensions: {} # none", "a: 1", "---\na: 1\n"])
def test_an_empty_or_missing_block_is_filled(text):
    goose = CLIENTS["goose"]
    assert servers(goose, goose.with_server(text, WITH_KEY)) == {"pvemcp": goose.entry(WITH_KEY)}


def test_a_diff_shows_no_value_of_others(client):
    theirs = Connection("https://theirs.example", "their-key-0", name="other", options={"A": "bb"})
    former = Connection("https://former.example", "former-key-0")
    before = client.with_server(client.text(theirs), former)
    after = client.with_server(before, WITH_KEY)
    own = client.text(WITH_KEY)
    shown = config_file.diff(before, after, Path("x"), own, client.format.hidden, lambda text: text)
    assert not [
        word for word in ("their-key", "former-key", 'example"') if word in shown.replace(URL, "")
    ]
    assert KEY in shown


def linked(link):
    """Return the configuration in a link."""
    parts = urlsplit(link)
    if parts.scheme == "vscode":
        return json.loads(unquote(parts.query))
    values = {name: value for name, (value,) in parse_qs(parts.query).items()}
    if "config" in values:
        return json.loads(b64decode(values["config"], validate=True))
    return values


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.link])
def test_links_hold_the_entry_in_the_form_of_their_client(name):
    client = CLIENTS[name]
    values = linked(client.link(WITH_KEY))
    assert values["url"] == URL
    key = values["headers"]["X-API-Key"] if "headers" in values else values["header"]
    assert key.removeprefix("X-API-Key=") == KEY
    assert "header" not in "".join(linked(client.link(WITHOUT_KEY)))
    assert " " not in client.link(WITH_KEY)


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.command])
def test_commands_are_read_by_a_shell_as_they_are_meant(name):
    client = CLIENTS[name]
    for connection in (WITH_KEY, WITHOUT_KEY):
        line = client.command_line(connection)
        assert shlex.split(line) == list(client.command(connection))
        assert (KEY in line) == bool(connection.key and line)
        assert "'" not in line, "the command prompt of Windows has no such quotes"


def test_a_word_is_quoted_for_every_shell():
    assert quoted("https://pve.example:8811/mcp") == "https://pve.example:8811/mcp"
    assert quoted('{"a": "b"}') == '"{\\"a\\": \\"b\\"}"'


def test_the_other_file_of_a_client_is_used_where_it_exists(tmp_path):
    opencode = CLIENTS["opencode"]
    usual = opencode.path(tmp_path, "linux")
    assert usual == tmp_path / ".config" / "opencode" / "opencode.json"
    usual.parent.mkdir(parents=True)
    usual.with_suffix(".jsonc").touch()
    assert opencode.path(tmp_path, "darwin") == usual.with_suffix(".jsonc")
    usual.touch()
    assert opencode.path(tmp_path, "win32") == usual
