"""Writes of one answer that leave together, and what ends the wait for the next one."""

import asyncio

import anyio
import pytest

from pvemcp_server.http.write_buffer import MOST_BYTES, BufferedTransport

pytestmark = pytest.mark.anyio


class Line(asyncio.Transport):
    """A transport that remembers what it was told to send, piece by piece."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.sent = []
        self.closed = False
        self.news = anyio.Event()

    def write(self, data):
        self.sent.append(data)
        self.news.set()

    def close(self):
        self.closed = True


@pytest.fixture
async def line():
    return Line()


@pytest.fixture
async def gathering(line):
    return BufferedTransport(line, asyncio.get_running_loop())


async def test_what_is_written_before_the_end_leaves_in_one_piece(line, gathering):
    gathering.write(b"head")
    gathering.write(b"body")
    assert line.sent == []
    gathering.flush()
    assert line.sent == [b"headbody"]


async def test_lines_keep_their_turn(line, gathering):
    gathering.write(b"head")
    gathering.writelines([b"bo", b"dy"])
    gathering.flush()
    assert line.sent == [b"headbody"]


async def test_an_event_of_a_stream_leaves_by_itself(line, gathering):
    gathering.write(b"event")
    with anyio.fail_after(10):
        await line.news.wait()
    assert line.sent == [b"event"]


async def test_much_is_not_held_back(line, gathering):
    """The transport below must see it, or it could not ask us to pause."""
    gathering.write(b"x" * MOST_BYTES)
    gathering.write(b"y")
    assert [len(piece) for piece in line.sent] == [MOST_BYTES + 1]


async def test_closing_loses_nothing(line, gathering):
    gathering.write(b"last")
    gathering.close()
    assert (line.sent, line.closed) == ([b"last"], True)


async def test_nothing_is_sent_when_nothing_was_written(line, gathering):
    gathering.flush()
    gathering.write(b"")
    gathering.flush()
    assert b"".join(line.sent) == b""


async def test_all_else_is_the_transport_below(gathering):
    assert gathering.get_extra_info("peername") == ("192.0.2.1", 4711)


async def test_an_answer_over_http_is_sent_at_once(served, monkeypatch):
    pieces = []
    send = BufferedTransport.flush

    def noted(self):
        if self._parts:
            pieces.append(b"".join(self._parts))
        send(self)

    monkeypatch.setattr(BufferedTransport, "flush", noted)
    host, port = served.url.removeprefix("http://").split(":")
    with anyio.fail_after(30):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await stream.receive()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert pieces == [answer]
