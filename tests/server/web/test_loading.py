"""The application of the pages is loaded by their first request, once."""

import asyncio

import pytest
from fastapi import FastAPI

from pvemcp_server.web.site import Loaded

pytestmark = pytest.mark.anyio


async def test_requests_that_come_together_load_the_application_once():
    loads = []

    def load() -> FastAPI:
        loads.append(1)
        return FastAPI()

    loaded, statuses = Loaded(load), []

    async def request() -> None:
        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        await loaded(scope, lambda: asyncio.sleep(0), send)

    await asyncio.gather(*(request() for _ in range(5)))
    assert statuses == [404] * 5
    assert loads == [1]
