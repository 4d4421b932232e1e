"""Text that other programs read: line ends of files and of Unicode."""

import asyncio
import json
import os

import pytest

from pvemcp_bridge import config_file, json_config
from pvemcp_bridge.errors import Lost, Silent
from pvemcp_bridge.messages import request
from pvemcp_bridge.stdio import Writer

SERVER = {"command": "pvemcp-bridge"}


@pytest.mark.parametrize("text", ['{\r\n  "a": 1\r\n}\r\n', '{"mcpServers": {}}\r\n'])
def test_a_file_with_line_ends_of_windows_keeps_them(tmp_path, text):
    changed = json_config.with_server(text, "mcpServers", "lab", SERVER)
    assert changed.count("\r\n") == changed.count("\n") > text.count("\n")
    assert json.loads(changed)["mcpServers"] == {"lab": SERVER}
    path = tmp_path / "mcp.json"
    config_file.write(path, changed)
    assert path.read_bytes() == changed.encode()


def test_a_file_with_plain_line_ends_gets_no_others():
    assert "\r" not in json_config.with_server('{\n  "a": 1\n}\n', "mcpServers", "lab", SERVER)


@pytest.mark.anyio
async def test_line_ends_of_unicode_are_escaped_in_messages():
    reading, writing = os.pipe()
    writer = Writer(writing, lambda: None)
    text = "a\u2028b\u2029c\x85d é 😀"
    async with asyncio.timeout(20):
        await writer.send(json.dumps({"text": text}, ensure_ascii=False))
        await writer.close()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        written = lines.read()
    assert len(written.splitlines()) == 1
    assert json.loads(written) == {"text": text}


@pytest.mark.parametrize("error", [Lost("It broke."), Silent("Nothing came.")])
def test_only_a_tool_call_may_have_been_carried_out(error):
    called = json.loads(error.reply_to(request("1", "tools/call", {})))["error"]["message"]
    assert "may or may not have been carried out" in called
    for method in ("initialize", "tools/list"):
        message = json.loads(error.reply_to(request("1", method, {})))["error"]["message"]
        assert "carried out" not in message
        assert "Try again." in message
