"""A reverse proxy with a path prefix, as an ASGI application."""

from dataclasses import dataclass

import anyio
import httpx2 as httpx

HOP_BY_HOP = (b"connection", b"content-length", b"transfer-encoding")


@dataclass(frozen=True)
class ReverseProxy:
    """Passes on what is below a path prefix, with or without it; all else is not ours."""

    server: httpx.AsyncClient
    prefix: str
    strips: bool

    async def __call__(self, scope, receive, send):
        """Send the request on, and its answer back until the client is gone."""
        path = scope["raw_path"].decode()
        if not f"{path}/".startswith(f"{self.prefix}/"):
            await send({"type": "http.response.start", "status": 418, "headers": []})
            await send({"type": "http.response.body", "body": b"another application"})
            return
        if self.strips:
            path = path.removeprefix(self.prefix) or "/"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        url = httpx.URL(str(self.server.base_url)).copy_with(
            raw_path=path.encode() + (b"?" + scope["query_string"]) * bool(scope["query_string"])
        )
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        request = httpx.Request(scope["method"], url, headers=headers, content=body)
        answer = await self.server.send(request, stream=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_gone, receive, tasks.cancel_scope)
            try:
                kept = [each for each in answer.headers.raw if each[0].lower() not in HOP_BY_HOP]
                start = {"type": "http.response.start", "status": answer.status_code}
                await send({**start, "headers": kept})
                async for part in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
            tasks.cancel_scope.cancel()

    async def _until_gone(self, receive, cancel_scope):
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel_scope.cancel()
