"""Parts of the bridge: exact JSON, events in any chunks, header values, paths, retries."""

import base64
import collections
import itertools
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvemcp_bridge import cli, jsontext, main, messages, options, retry, sse
from pvemcp_bridge.clients import CLIENTS
from pvemcp_bridge.errors import Busy, Lost, Unavailable, Unreachable
from pvemcp_bridge.headers import encode_value
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.options import OPTIONS
from pvemcp_bridge.sse import Event, EventReader, EventTooLong
from pvemcp_bridge.target import BadTarget, origin_of, target
from pvemcp_bridge.tls import Trust, normalize_fingerprint

PAGE = Path(__file__).parents[2] / "docs" / "users" / "bridge.md"

KEYS_AT_RISK = {
    "http://192.0.2.1:8811": (Trust(), "not encrypted"),
    "http://pve.example/mcp": (Trust(), "not encrypted"),
    "http://localhost.example": (Trust(insecure=True), "not encrypted"),
    "https://127.0.0.1": (Trust(insecure=True), "certificate is not verified"),
    "https://pve.example": (Trust(insecure=True), "certificate is not verified"),
    "https://a.example": (Trust(insecure=True, fingerprint="0" * 64), ""),
    "https://b.example": (Trust(), ""),
    "http://localhost:8811": (Trust(), ""),
    "http://127.9.9.9": (Trust(), ""),
    "http://[::1]:8811": (Trust(insecure=True), ""),
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), values, max_size=6)
indents = st.sampled_from([None, 1, 4])


@given(objects, indents)
def test_a_member_is_returned_as_its_exact_text(value, indent):
    text = json.dumps(value, indent=indent)
    for name, inner in value.items():
        assert json.loads(jsontext.member(text, name)) == inner
    assert jsontext.member(text, "missing member") is None


@pytest.mark.parametrize("rest", [", x", "," + "[" * 5_000 + "]" * 5_001, ",NaN]"])
def test_what_is_no_json_after_a_very_long_number_is_bad_json(rest):
    with pytest.raises(jsontext.BadJson):
        jsontext.parse(f"[{'1' * 5_000}{rest}")


@given(objects, st.text(), values, indents)
def test_replacing_a_member_keeps_all_others(value, name, new, indent):
    text = jsontext.with_member(json.dumps(value, indent=indent), name, json.dumps(new))
    assert json.loads(text) == value | {name: new}


@given(st.lists(values, max_size=6), indents)
def test_elements_returns_the_text_of_each_array_element(value, indent):
    pieces = list(jsontext.elements(json.dumps(value, indent=indent)))
    assert [json.loads(piece) for piece in pieces] == value


@given(values, indents)
def test_one_line_keeps_the_value(value, indent):
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
def test_events_do_not_depend_on_chunk_boundaries(events, end, cuts):
    texts = [
        end.join([":comment", *(f"data: {line}" for line in lines), "", ""]) for lines in events
    ]
    data = "".join(texts).encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = EventReader()
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    read = [event.data.decode() for chunk in chunks for event in reader.feed(chunk)]
    read += [event.data.decode() for event in reader.finish()]
    assert read == [text for lines in events if (text := "\n".join(lines))]


def test_an_event_is_as_long_as_the_reader_accepts():
    assert [event.data for event in EventReader(9).feed(b"data: 12345678\n\n")] == [b"12345678"]
    reader = EventReader(9)  # comments and events that ended do not count
    assert len([*reader.feed(b": 12345678\n\ndata: 1\n\n" * 9)]) == 9
    for text in (b"data: 123456789\n", b"data: 1\n" * 5, b"x" * 10):
        reader = EventReader(9)
        with pytest.raises(EventTooLong):
            collections.deque(each for byte in text for each in reader.feed(bytes([byte])))


def test_events_have_id_and_retry_and_other_types_are_ignored():
    reader = EventReader()
    data = b"\xef\xbb\xbfid: 7\nretry: 250\ndata\n\nevent: ping\ndata: x\n\ndata:y\n\n"
    first, second = reader.feed(data)
    assert (first.data, first.id, first.retry) == (b"", "7", 0.25)
    assert (second.data, second.id, second.retry) == (b"y", "", None)


@given(st.text(st.characters(codec="utf-8")))
def test_a_header_value_is_visible_ascii_and_decodes_again(text):
    value = encode_value(text)
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
def test_claude_desktop_has_a_configuration_path_on_each_system(platform, place):
    home = Path("home")
    assert CLIENTS["claude-desktop"].path(home, platform) == home / place


def test_the_docs_page_names_every_option_and_command():
    page = PAGE.read_text()
    for option in OPTIONS:
        assert all(f"`{flag}`" in page for flag in option.flags)
        assert f"`{option.variable}`" in page
    for name in main.COMMANDS:
        assert f"`{name}`" in page


@pytest.mark.parametrize("command", main.COMMANDS)
@pytest.mark.parametrize("before", [[], ["--url", "http://x/mcp"], ["-i", "--header", "A: logout"]])
def test_a_command_may_stand_before_and_after_options(monkeypatch, command, before):
    seen = []
    monkeypatch.setitem(cli._COMMANDS, command, (seen.append, "x"))
    after = [] if "--url" in before else ["--url", "http://x/mcp"]
    monkeypatch.setattr("sys.argv", ["pvemcp-bridge", *before, command, *after])
    main.main()
    assert [values["url"] for values in seen] == ["http://x/mcp"]
    assert all(values.get("insecure", False) is ("-i" in before) for values in seen)


def test_an_argument_beside_the_url_is_refused(capsys):
    for arguments in (["--url", "http://x/mcp", "logut"], ["http://x/mcp", "logout"]):
        with pytest.raises(SystemExit) as ended:
            options.parse(arguments)
        assert ended.value.code == 2
    assert "logut" in capsys.readouterr().err


def test_the_key_is_masked_in_url_and_headers():
    mask = Masker(
        target("https://u:password1@x/mcp/path-key-1?q=query-key", "header-key-1").secrets
    )
    text = "password1 path-key-1 q=query-key Bearer header-key-1 mcp"
    assert mask(text) == "*** *** *** Bearer *** mcp"


@pytest.mark.parametrize("key", ["two words", "grün", "line\nend"])
def test_a_key_with_invalid_characters_is_rejected_without_showing_it(key):
    with pytest.raises(BadTarget) as caught:
        target("https://x", key)
    assert key not in str(caught.value)


def test_a_fingerprint_is_accepted_in_every_notation():
    digest = "ab" * 32
    colons = ":".join(["AB"] * 32)
    for text in (digest, digest.upper(), colons, f"SHA256:{digest}", f" sha-256={colons} "):
        assert normalize_fingerprint(text) == digest


def test_the_page_states_for_how_long_requests_are_retried():
    rows = [line for line in PAGE.read_text().splitlines() if "cannot be reached" in line]
    opening, later = (float(re.search(r"for up to (\d+) s", row)[1]) for row in rows)
    assert opening == retry.OPENING_RETRY_SECONDS == 45
    assert later == retry.RETRY_SECONDS == 20


@pytest.mark.anyio
async def test_the_log_shows_the_first_failure_before_the_first_retry(caplog):
    attempts = itertools.count()
    expected = (
        "initialize: The server cannot be reached (refused). Trying again for up to 20 s. "
        "`pvemcp-bridge doctor` shows where it fails."
    )

    async def send():
        if next(attempts) == 0:
            raise Unreachable("The server cannot be reached (refused).")
        assert caplog.messages == [expected]
        return "reply"

    assert await retry.with_retries("initialize", send, 20.0, lambda: True) == "reply"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "idempotent", "attempts"),
    [
        (Lost("lost"), False, 1),
        (Unavailable("503", status=503), False, 1),
        (Lost("lost"), True, 4),
        (Unavailable("503", status=503), True, 4),
        (Busy("429", status=429, retry_after=0), False, 4),
        (Busy("429", status=429, retry_after=60), True, 1),
    ],
)
async def test_a_failed_request_is_retried_up_to_four_times(error, idempotent, attempts):
    sent = []

    async def send():
        sent.append(error)
        raise error

    with pytest.raises(type(error)) as caught:
        await retry.with_retries("tools/call", send, 20.0, lambda: idempotent)
    assert caught.value is error
    assert len(sent) == attempts


@pytest.mark.anyio
async def test_an_unreachable_server_is_retried_until_the_time_is_over():
    sent = []

    async def send():
        sent.append(time.monotonic())
        raise Unreachable("refused")

    start = time.monotonic()
    with pytest.raises(Unreachable):
        await retry.with_retries("ping", send, 3.0, lambda: False)
    assert len(sent) > 4
    assert sent[-1] - start < 3


@pytest.mark.parametrize("url", KEYS_AT_RISK)
def test_a_url_that_exposes_the_key_is_a_risk(url):
    trust, fact = KEYS_AT_RISK[url]
    risks = target(url, trust=trust).risks
    assert [fact in risk for risk in risks] == ([True] if fact else [])


@pytest.mark.parametrize("url", ["https://HOST.example/a", "https://host.example:443/b?c"])
def test_case_and_default_port_make_no_other_origin(url):
    assert origin_of(url) == origin_of("https://host.example/mcp")
    assert origin_of(url) != origin_of("http://host.example:443/mcp")


def test_blank_lines_make_no_events(monkeypatch):
    made = []

    def counted(*arguments):
        made.append(arguments)
        return Event(*arguments)

    monkeypatch.setattr(sse, "Event", counted)
    reader = EventReader()
    for _ in range(100):
        assert not list(reader.feed(b"\n" * 100))
    assert list(reader.feed(b"event: other\n\ndata: x\n\n")) == [Event(b"x")]
    assert made == [(b"x", "", None), (b"",)]  # the second one is compared with
