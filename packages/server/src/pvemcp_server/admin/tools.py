"""The tools as a key's client sees them, and trying one through the real pipeline as that key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field

from pvemcp_server.access.model import ANY, READS, Caller, Grant, Role
from pvemcp_server.access.roles import ADMINISTRATOR
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.pipeline.pipeline import Pipeline, Result, UnknownTool
from pvemcp_server.toolkit.call import Decision
from pvemcp_server.toolkit.registry import Tool, tools

NO_KEY: Final = ""
_EVERYTHING: Final = Role(0, ADMINISTRATOR, "", (Grant(frozenset({ANY})),), built_in=True)


def check_names(argument: str, names: Iterable[str]) -> None:
    """Raises BadArgument for a name that no tool has: mistyped, it would grant nothing."""
    for name in sorted(set(names) - {ANY, READS} - tools().keys()):
        raise BadArgument(argument, str(UnknownName("tool", name, tools())))


class SeenTool(BaseModel):
    """A tool as tools/list tells it."""

    name: str
    title: str
    area: str
    effect: str
    description: str
    input_schema: dict[str, Any]


class Attempt(BaseModel):
    """A call to try."""

    key: str = Field(default=NO_KEY, description="Key to call as; without one: as Administrator")
    arguments: dict[str, Any] = Field(default={}, description="What the model would send")
    confirmed: bool = Field(default=False, description="Agree to a call that loses data")


class Tried(BaseModel):
    """What a client would have got."""

    failed: bool
    data: str
    notes: str = ""


@dataclass
class Desk:
    """The conversation of an administrator who tries a call out."""

    client: str
    confirmed: bool
    wants_progress: bool = False
    question: str = ""

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """The page shows the outcome, not the way there."""

    async def ask(self, question: str) -> Decision:
        self.question = question
        return Decision.YES if self.confirmed else Decision.NO


async def caller_of(context: AdminContext, key: str) -> Caller:
    """The caller that the key would become; without a key the administrator, who may do all."""
    if key == NO_KEY:
        return Caller("", context.by, _EVERYTHING, address=context.address, version="administrator")
    record = await context.services.access.keys.get(key)
    return await context.services.access.authenticator.caller(record.id, context.address)


async def seen_tools(
    context: AdminContext, pipeline: Pipeline, key: str = NO_KEY
) -> list[SeenTool]:
    """What tools/list shows the key."""
    caller = await caller_of(context, key)
    known = pipeline.tools.values()
    return [_seen(tool) for tool in known if caller.may_call(tool.name, tool.effect)]


async def seen_tool(context: AdminContext, pipeline: Pipeline, key: str, name: str) -> SeenTool:
    seen = await seen_tools(context, pipeline, key)
    for tool in seen:
        if tool.name == name:
            return tool
    raise UnknownName("tool", name, [tool.name for tool in seen])


async def try_tool(context: AdminContext, pipeline: Pipeline, name: str, attempt: Attempt) -> Tried:
    """Calls the tool as the key would; the audit names the key, and us as its client."""
    caller = await caller_of(context, attempt.key)
    desk = Desk(f"admin pages, {context.by}", attempt.confirmed)
    try:
        result = await pipeline.call(caller, name, attempt.arguments, desk)
    except UnknownTool:
        raise UnknownName("tool", name, pipeline.tools) from None
    return _tried(result, desk)


def _tried(result: Result, desk: Desk) -> Tried:
    data, *notes = result.blocks
    if desk.question and not desk.confirmed:
        notes.append(f"It asks first: {desk.question} Agree to it, and call again.")
    return Tried(failed=result.failed, data=data, notes="\n".join(notes))


def as_tool_call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The params of the tools/call request that does the same."""
    return {"name": name, "arguments": dict(arguments)}


def _seen(tool: Tool) -> SeenTool:
    return SeenTool(
        name=tool.name,
        title=tool.title,
        area=tool.area.value,
        effect=tool.effect.value,
        description=tool.description,
        input_schema=tool.input_schema,
    )
