"""Messages of a session that reach another process than the one they are for.

A balancer may send each request of a client to another process. Most of them any process serves, as
the session's id is sealed. These are for one process, which only has what they are about:

| message | goes to |
|---|---|
| posted by a client of HTTP+SSE | the process that holds its event stream, which the URL names |
| the answer to a question of a running call | the process that asked, which the id names |
| the cancellation of a call that does not run here | every process |
| a subscription to a resource, the end of a session | every process, after it was served here |
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope, Send

from pvemcp_server.access.model import Caller
from pvemcp_server.errors import CallError, ServerError, StateUnavailable
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.gate import user_of
from pvemcp_server.mcp.json_rpc import Replay
from pvemcp_server.store.database import DatabaseFailed, waits
from pvemcp_server.store.process_channel import EVERY, Content, ProcessChannel

ANSWER_SECONDS: Final = 2.0  # in which another process answers; then the message is sent again
ATTEMPTS: Final = 3
FRESH_SECONDS: Final = 60.0  # after which a message counts no more; machines' clocks differ less
_KEPT_HEADERS: Final = ("accept", "content-type", "mcp-session-id", "mcp-protocol-version")
log = logging.getLogger(__name__)

FindCaller = Callable[[str, str], Awaitable[Caller]]
Admits = Callable[[Caller], Awaitable[bool]]


class Relay:
    """Passes messages to other processes and serves theirs.

    Such a message names its caller, whom the sender has authenticated; the receiver reads the
    current rights itself. `apps` serve them by path, and are not the gate: limits are counted once.

    Each is served once, also if it is sent again by a user of the database, who can read none: its
    id is known as long as it counts. Only one that was passed on is answered, and its answer kept:
    those to what every process serves would fill the memory of each with what one key sends.
    """

    def __init__(
        self,
        channel: ProcessChannel,
        find: FindCaller,
        admits: Admits,
        clock: Callable[[], float],
    ) -> None:
        self.apps: Mapping[str, ASGIApp] = {}
        self._channel = channel
        self._find = find
        self._admits = admits
        self._waiting: dict[str, asyncio.Future[Content]] = {}
        self._clock = clock
        self._answers: OrderedDict[str, Content | None] = OrderedDict()  # None: still served
        self._taken: OrderedDict[str, float] = OrderedDict()  # when, in the order of `_answers`

    @property
    def process(self) -> str:
        """The name of this process; empty where there is no other one."""
        return self._channel.process if self._channel.has_others else ""

    async def run(self) -> None:
        """Serve messages of other processes until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._channel.listen(lambda content: self._receive(content, tasks))
            await anyio.sleep_forever()

    async def pass_on(self, process: str, scope: Scope, body: bytes, send: Send) -> bool:
        """Let another process serve the request; return False if it does not answer.

        It is sent again when no answer comes, as the database may restart; it is served once.
        """
        request = {**self._written(scope, body), "is_answered": True}
        answer = asyncio.get_running_loop().create_future()
        self._waiting[request["id"]] = answer
        try:
            for _ in range(ATTEMPTS):
                try:
                    await self._channel.send(process, request)
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await asyncio.shield(answer)
                    break
                except DatabaseFailed:
                    await anyio.sleep(ANSWER_SECONDS)
                except TimeoutError:
                    continue
        finally:
            del self._waiting[request["id"]]
        if not answer.done():
            return False
        content = answer.result()
        headers = [(name.encode(), value.encode()) for name, value in content["headers"]]
        await send({"type": "http.response.start", "status": content["status"], "headers": headers})
        await send({"type": "http.response.body", "body": content["body"].encode()})
        return True

    async def announce(self, scope: Scope, body: bytes) -> None:
        """Let every other process serve the request too, without an answer."""
        try:
            await self._channel.send(EVERY, {**self._written(scope, body), "is_answered": False})
        except DatabaseFailed:
            log.warning("A message of a session did not reach the other processes", exc_info=True)

    def _written(self, scope: Scope, body: bytes) -> dict[str, Any]:
        caller: Caller = scope["state"]["caller"]
        headers = Headers(scope=scope)
        return {
            "id": secrets.token_hex(8),
            "from": self._channel.process,
            "sent": self._clock(),
            "path": scope["path"],
            "method": scope["method"],
            "query": scope["query_string"].decode("latin-1"),
            "headers": [(name, headers[name]) for name in _KEPT_HEADERS if name in headers],
            "body": body.decode("utf-8", "replace"),
            "key": caller.key_id,
            "address": caller.address,
            "scopes": None if caller.scopes is None else sorted(caller.scopes),
            "token": caller.token,
        }

    def _receive(self, content: Content, tasks: TaskGroup) -> None:
        if "answers" in content:
            waiting = self._waiting.get(content["answers"])
            if waiting is not None and not waiting.done():
                waiting.set_result(content)
        elif abs(self._clock() - content["sent"]) > FRESH_SECONDS:
            log.warning(
                "A message from another process was ignored: it was sent again after a minute, or "
                "the clocks of the machines differ by more"
            )
        elif content["id"] not in self._answers:
            self._forget()
            self._answers[content["id"]], self._taken[content["id"]] = None, self._clock()
            tasks.start_soon(self._serve, content)
        elif (answer := self._answers[content["id"]]) is not None:
            tasks.start_soon(self._answer, content["from"], answer)

    def _forget(self) -> None:
        """Forget the messages that count no more, whatever the clock of their sender."""
        while self._taken and self._clock() - next(iter(self._taken.values())) > 2 * FRESH_SECONDS:
            self._taken.popitem(last=False)
            self._answers.popitem(last=False)

    async def _serve(self, content: Content) -> None:
        """Serve a request that another process has received, and answer it."""
        waits.set(True)  # as for a request that arrives at the gate
        try:
            try:
                caller = await self._find(content["key"], content["address"])
                if content["scopes"] is not None:
                    scopes, token = frozenset(content["scopes"]), content["token"]
                    caller = replace(caller, scopes=scopes, token=token)
                if not await self._admits(caller):
                    return
            except (StateUnavailable, DatabaseFailed):
                # nothing of it was served yet: it may be, when it is sent again
                self._answers.pop(content["id"], None)
                self._taken.pop(content["id"], None)
                raise
            response = _Response()
            await self._run(content, caller, response)
            if content["is_answered"]:
                await self._keep_and_answer(content, response)
        except (CallError, ServerError, DatabaseFailed):
            log.warning("A message from another process was not served", exc_info=True)
        except Exception:
            log.exception("A message from another process was not served")

    async def _keep_and_answer(self, content: Content, response: "_Response") -> None:
        answer = {
            "answers": content["id"],
            "status": response.status,
            "headers": response.headers,
            "body": response.body.decode("utf-8", "replace"),
        }
        self._answers[content["id"]] = answer
        await self._answer(content["from"], answer)

    async def _run(self, content: Content, caller: Caller, response: "_Response") -> None:
        body = content["body"].encode()
        length = ("content-length", str(len(body)))
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": content["method"],
            "path": content["path"],
            "raw_path": content["path"].encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": content["query"].encode("latin-1"),
            "headers": [
                (name.encode(), value.encode("latin-1"))
                for name, value in (*content["headers"], length)
            ],
            "client": None,
            "server": None,
            "user": user_of(caller.key_id),
            "state": {"caller": caller, "body": body, "process": self.process},
        }
        receive = Replay(body, _no_more)
        try:
            await self.apps[content["path"]](scope, receive, response.take)
        except Refused as refused:
            await refused.response(scope, receive, response.take)

    async def _answer(self, process: str, answer: Content) -> None:
        try:
            await self._channel.send(process, answer)
        except DatabaseFailed:
            log.warning("An answer did not reach the other process, which asks again")


class _Response:
    """The response of an application, collected."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[str, str]] = []
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message["headers"]
                if name.lower() in (b"content-type", b"content-length", b"retry-after")
            ]
        else:
            self.body += message.get("body", b"")


async def _no_more() -> Message:
    await anyio.sleep_forever()
    return {"type": "http.disconnect"}
