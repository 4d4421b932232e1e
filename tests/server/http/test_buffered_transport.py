"""Buffered writes of one response are sent together, and never held back for long."""

import asyncio

import anyio
import pytest

from pvemcp_server.http.connection import BUFFER_BYTES, BufferedTransport

pytestmark = pytest.mark.anyio


class RecordingTransport(asyncio.Transport):
    """A transport that records each write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.sent = []
        self.closed = False
        self.written = anyio.Event()

    def write(self, data):
        self.sent.append(data)
        self.written.set()

    def close(self):
        self.closed = True


@pytest.fixture
async def transport():
    return RecordingTransport()


@pytest.fixture
async def buffered(transport):
    return BufferedTransport(transport, asyncio.get_running_loop())


async def test_writes_before_a_flush_are_sent_together(transport, buffered):
    buffered.write(b"head")
    buffered.write(b"body")
    assert transport.sent == []
    buffered.flush()
    assert transport.sent == [b"headbody"]


async def test_lines_are_sent_after_earlier_writes(transport, buffered):
    buffered.write(b"head")
    buffered.writelines([b"bo", b"dy"])
    buffered.flush()
    assert transport.sent == [b"headbody"]


async def test_an_event_of_a_stream_is_sent_without_a_flush(transport, buffered):
    buffered.write(b"event")
    with anyio.fail_after(10):
        await transport.written.wait()
    assert transport.sent == [b"event"]


async def test_a_full_buffer_is_sent_at_once(transport, buffered):
    # the transport below must see the data, or it could not pause the writer
    buffered.write(b"x" * BUFFER_BYTES)
    buffered.write(b"y")
    assert [len(piece) for piece in transport.sent] == [BUFFER_BYTES + 1]


async def test_closing_sends_the_buffer(transport, buffered):
    buffered.write(b"last")
    buffered.close()
    assert (transport.sent, transport.closed) == ([b"last"], True)


async def test_an_empty_buffer_sends_nothing(transport, buffered):
    buffered.flush()
    buffered.write(b"")
    buffered.flush()
    assert b"".join(transport.sent) == b""


async def test_other_attributes_are_those_of_the_transport_below(buffered):
    assert buffered.get_extra_info("peername") == ("192.0.2.1", 4711)


async def test_a_response_is_sent_in_one_write(served, monkeypatch):
    pieces = []
    flush = BufferedTransport.flush

    def recording_flush(self):
        if self._parts:
            pieces.append(b"".join(self._parts))
        flush(self)

    monkeypatch.setattr(BufferedTransport, "flush", recording_flush)
    host, port = served.url.removeprefix("http://").split(":")
    with anyio.fail_after(30):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await stream.receive()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert pieces == [answer]
