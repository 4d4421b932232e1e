"""Fixture tools that run as tasks of the extension, and the methods that follow them.

What clients may ask, and with which header, is checked by the product's own code.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from fixture_questions import answers, ask, form
from fixture_tools import fixture, said
from mcp.shared.exceptions import MCPError

from pvemcp_server.mcp.tasks import check_request, knows_tasks, require_extension

TTL_MS, POLL_MS = 60_000, 100
TEXT, NUMBER, BOOLEAN = {"type": "string"}, {"type": "number"}, {"type": "boolean"}


def now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(eq=False)
class Job:
    """One task: what it waits for, and how it ended."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created: str = field(default_factory=now)
    status: str = "working"
    outcome: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, types.ElicitRequest] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None

    def described(self) -> dict[str, Any]:
        asked = {name: one.model_dump(by_alias=True) for name, one in self.questions.items()}
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": now(),
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
            **({"inputRequests": asked} if asked else {}),
            **self.outcome,
        }

    async def ask(self, **questions: types.ElicitRequest) -> dict[str, Any]:
        """Return the client's answers, once it has answered all questions."""
        self.questions, self.status = questions, "input_required"
        await self.answered.wait()
        self.status = "working"
        return self.given

    def take(self, responses: dict[str, Any]) -> None:
        for name in self.questions.keys() & responses.keys():
            self.given[name] = responses[name]
            del self.questions[name]
        if not self.questions:
            self.answered.set()

    async def run(self, working: Awaitable[types.CallToolResult]) -> None:
        """Run to the end; a protocol error is recorded apart from a tool's error."""
        try:
            result = await working
        except asyncio.CancelledError:
            self.status = "cancelled"
        except MCPError as error:
            self.outcome = {"error": {"code": error.error.code, "message": error.error.message}}
            self.status = "failed"
        else:
            self.outcome = {"result": result.model_dump(by_alias=True, exclude_none=True)}
            self.status = "completed"


JOBS: dict[str, Job] = {}
Work = Callable[[Job, dict[str, Any]], Awaitable[types.CallToolResult]]


def start(work: Work, arguments: dict[str, Any]) -> dict[str, Any]:
    job = Job()
    JOBS[job.id] = job
    job.work = asyncio.create_task(job.run(work(job, arguments)))
    return {"resultType": "task", **job.described()}


def job_fixture(
    description: str, properties: dict[str, Any] | None = None, *, needs_tasks: bool = False
) -> Callable[[Work], Work]:
    """Declare a tool that runs as a task for clients with the extension, else at once."""

    def declare(work: Work) -> Work:
        async def run(ctx: Any, params: types.CallToolRequestParams) -> Any:
            if needs_tasks:
                require_extension(ctx)
            if knows_tasks(ctx):
                return start(work, params.arguments or {})
            return await work(Job(), params.arguments or {})

        run.__name__ = work.__name__
        fixture(description, properties)(run)
        return work

    return declare


@fixture("Greets", {"name": TEXT})
async def greet(ctx, params):
    return said(f"Hello, {params.arguments['name']}!")


@job_fixture("Takes its time", {"seconds": NUMBER, "label": TEXT})
async def slow_compute(job, arguments):
    await asyncio.sleep(arguments["seconds"])
    return said(f"computed {arguments.get('label', '')}")


@job_fixture("Always fails", needs_tasks=True)
async def failing_job(job, arguments):
    await asyncio.sleep(1)
    return said("this job always fails", failed=True)


@job_fixture("Breaks the protocol")
async def protocol_error_job(job, arguments):
    raise MCPError(types.INTERNAL_ERROR, "this job breaks")


@job_fixture("Asks before it deletes", {"filename": TEXT})
async def confirm_delete(job, arguments):
    await job.ask(**{secrets.token_hex(4): form("Delete it?", confirm=BOOLEAN)})
    return said(f"deleted {arguments['filename']}")


@job_fixture("Asks two things at once")
async def multi_input(job, arguments):
    await job.ask(first=form("Who?", name=TEXT), second=form("And who else?", name=TEXT))
    return said("both answered")


@fixture("Asks, and then runs as a task")
async def test_tool_with_task(ctx, params):
    require_extension(ctx)
    found = answers(params, user_name=types.ElicitResult)
    if found is None:
        return ask(user_name=form("What is your name?", name=TEXT))

    async def work(job: Job, arguments: dict[str, Any]) -> types.CallToolResult:
        return said(f"Hello, {found['user_name'].content['name']}!")

    return start(work, {})


def found_job(ctx: Any, params: Any) -> Job:
    check_request(ctx, params)
    if params.task_id not in JOBS:
        raise MCPError(types.INVALID_PARAMS, "Unknown task")
    return JOBS[params.task_id]


async def get(ctx: Any, params: Any) -> dict[str, Any]:
    return found_job(ctx, params).described()


async def update(ctx: Any, params: Any) -> dict[str, Any]:
    found_job(ctx, params).take(params.input_responses or {})
    return {}


async def cancel(ctx: Any, params: Any) -> dict[str, Any]:
    job = found_job(ctx, params)
    if job.work:
        job.work.cancel()
    return {}


HANDLERS = {"tasks/get": get, "tasks/update": update, "tasks/cancel": cancel}
