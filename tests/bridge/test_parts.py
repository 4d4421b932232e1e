"""The bridge's parts by themselves: exact JSON, events in any pieces, header values, paths."""

import base64
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_bridge import jsontext, main, messages, retry
from pvemcp_bridge.clients import CLIENTS, client_config
from pvemcp_bridge.errors import Unreachable
from pvemcp_bridge.headers import safe_value
from pvemcp_bridge.logs import masker
from pvemcp_bridge.options import OPTIONS
from pvemcp_bridge.sse import EventReader
from pvemcp_bridge.target import BadTarget, target
from pvemcp_bridge.tls import normal_fingerprint

PAGE = Path(__file__).parents[2] / "docs" / "users" / "bridge.md"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars.filter(lambda one: one not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), values, max_size=6)
indents = st.sampled_from([None, 1, 4])


@given(objects, indents)
def test_a_member_is_found_as_it_was_written(value, indent):
    text = json.dumps(value, indent=indent)
    for name, inner in value.items():
        assert json.loads(jsontext.member(text, name)) == inner
    assert jsontext.member(text, "not there, surely") is None


@given(objects, st.text(), values, indents)
def test_a_replaced_member_leaves_all_others_alone(value, name, new, indent):
    text = jsontext.with_member(json.dumps(value, indent=indent), name, json.dumps(new))
    assert json.loads(text) == value | {name: new}


@given(st.lists(values, max_size=6), indents)
def test_the_elements_of_an_array_are_its_pieces(value, indent):
    pieces = list(jsontext.elements(json.dumps(value, indent=indent)))
    assert [json.loads(piece) for piece in pieces] == value


@given(values, indents)
def test_one_line_is_the_same_value(value, indent):
    line = jsontext.one_line(json.dumps(value, indent=indent, ensure_ascii=False))
    assert "\n" not in line
    assert json.loads(line) == value


@given(st.text())
def test_any_text_is_a_message_or_malformed(text):
    for message in messages.parse_messages(text):
        if isinstance(message, messages.Malformed):
            assert json.loads(message.reply)["error"]["code"] in (-32700, -32600)


@given(objects | st.lists(objects))
def test_any_object_is_a_message_or_malformed(value):
    for message in messages.parse_messages(json.dumps(value)):
        if isinstance(message, messages.Malformed):
            assert json.loads(message.reply)["error"]["code"] == -32600
        else:
            assert message.method or "result" in message.body or "error" in message.body


line_ends = st.sampled_from(["\n", "\r\n", "\r"])
no_line_ends = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))


@given(
    st.lists(st.lists(no_line_ends, min_size=1, max_size=3), max_size=5),
    line_ends,
    st.lists(st.integers(0, 400), max_size=8),
)
def test_events_do_not_depend_on_how_their_bytes_arrive(events, end, cuts):
    texts = [
        end.join([":comment", *(f"data: {line}" for line in lines), "", ""]) for lines in events
    ]
    data = "".join(texts).encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = EventReader()
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    read = [event.data.decode() for piece in pieces for event in reader.feed(piece)]
    read += [event.data.decode() for event in reader.finish()]
    assert read == [text for lines in events if (text := "\n".join(lines))]


def test_events_carry_ids_and_pauses_and_foreign_types_are_left_out():
    reader = EventReader()
    data = b"\xef\xbb\xbfid: 7\nretry: 250\ndata\n\nevent: ping\ndata: x\n\ndata:y\n\n"
    first, second = reader.feed(data)
    assert (first.data, first.id, first.retry) == (b"", "7", 0.25)
    assert (second.data, second.id, second.retry) == (b"y", "", None)


@given(st.text(st.characters(codec="utf-8")))
def test_a_header_value_is_visible_ascii_and_can_be_read_back(text):
    value = safe_value(text)
    assert re.fullmatch(r"[\x20-\x7e]*", value)
    assert value == value.strip()
    encoded = re.fullmatch(r"=\?base64\?(.*)\?=", value)
    assert (base64.b64decode(encoded[1]).decode() if encoded else value) == text


@pytest.mark.parametrize(
    ("platform", "place"),
    [
        ("linux", ".config/Claude/claude_desktop_config.json"),
        ("darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
    ],
)
def test_claude_desktop_keeps_its_file_where_each_system_wants_it(platform, place):
    home = Path("home")
    assert CLIENTS["claude-desktop"].path(home, platform) == home / place


def test_a_configuration_holds_the_key_in_the_environment_alone():
    config = client_config(CLIENTS["vscode"], "pvemcp", "/b", {"MCP_URL": "u", "MCP_API_KEY": "k"})
    server = {"command": "/b", "args": [], "env": {"MCP_URL": "u", "MCP_API_KEY": "k"}}
    assert config == {"servers": {"pvemcp": {"type": "stdio", **server}}}


def test_the_page_tells_every_option_command_and_client():
    page = PAGE.read_text()
    for option in OPTIONS:
        assert all(f"`{flag}`" in page for flag in option.flags)
        assert f"`{option.variable}`" in page
    for name in (*CLIENTS, *main.COMMANDS):
        assert f"`{name}`" in page


def test_the_secrets_of_a_target_are_its_key_wherever_it_stands():
    mask = masker(
        target("https://u:password1@x/mcp/path-key-1?q=query-key", "header-key-1").secrets
    )
    said = "password1 path-key-1 q=query-key Bearer header-key-1 mcp"
    assert mask(said) == "*** *** *** Bearer *** mcp"


@pytest.mark.parametrize("key", ["two words", "grün", "line\nend"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key):
    with pytest.raises(BadTarget) as refused:
        target("https://x", key)
    assert key not in str(refused.value)


def test_a_fingerprint_may_be_written_as_any_tool_shows_it():
    digest = "ab" * 32
    colons = ":".join(["AB"] * 32)
    for text in (digest, digest.upper(), colons, f"SHA256:{digest}", f" sha-256={colons} "):
        assert normal_fingerprint(text) == digest


@pytest.mark.anyio
async def test_the_log_says_what_is_wrong_before_the_first_repetition(caplog):
    attempts = itertools.count()
    told = (
        "initialize: The server cannot be reached (refused). Trying again for up to 20 s. "
        "`pvemcp-bridge doctor` shows where it fails."
    )

    async def work():
        if next(attempts) == 0:
            raise Unreachable("The server cannot be reached (refused).")
        assert caplog.messages == [told]
        return "reply"

    assert await retry.patiently("initialize", work, retry.PATIENCE, lambda: True) == "reply"
