"""Exchanges: deadlines of slow clients, and the end of streams."""

import asyncio
from time import monotonic

import anyio
import pytest

from pvemcp_server.http.exchange import ActiveRequests, HttpExchange

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("work", ["read", "send"])
async def test_the_exchange_of_an_overdue_client_is_cancelled(work):
    async def never(*_):
        await anyio.sleep_forever()

    ended = anyio.Event()
    exchanges = []

    async def serve():
        exchanges.append(HttpExchange(never, never))
        try:
            await (exchanges[0].read() if work == "read" else exchanges[0].send(START))
        except anyio.get_cancelled_exc_class():
            ended.set()
            raise

    task = asyncio.create_task(serve())
    await anyio.wait_all_tasks_blocked()
    exchanges[0].check_deadline(monotonic())
    assert exchanges[0].timed_out is False
    exchanges[0].check_deadline(monotonic() + 61)
    with anyio.fail_after(20):
        await ended.wait()
    assert exchanges[0].timed_out is True
    assert (await asyncio.gather(task, return_exceptions=True))[0] is not None


async def test_a_closed_stream_sees_a_disconnect_and_is_completed():
    sent = []

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)

    async def transport(_scope, receive, send):
        await send(START)
        exchange.close()
        assert await receive() == {"type": "http.disconnect"}

    exchange = HttpExchange(receive, send, is_stream=True)
    with anyio.fail_after(20):
        await ActiveRequests().serve(exchange, transport, {"method": "GET"})
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
