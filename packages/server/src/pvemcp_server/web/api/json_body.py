"""Bodies of the admin REST API: JSON of valid Unicode, as every consumer of it can write again."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json


class JsonRequest(Request):
    """A request whose JSON holds no lone surrogates and no NaN; Python's own parser takes both."""

    async def json(self) -> Any:
        """Return the body; raise ValueError, which is answered with 400."""
        return from_json(await self.body(), allow_inf_nan=False)


class JsonRoute(APIRoute):
    """A route of the API; all of them are, so that no body is read in another way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which reads the body as JsonRequest does."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json
