"""The tools that a key's client sees, and trial calls through the real pipeline with its rights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from pvemcp_server.access.model import ANY, READS, Caller, Grant, Role, Toolset
from pvemcp_server.access.roles import ADMINISTRATOR
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.pipeline.pipeline import Pipeline, Result, UnknownTool, granted_tools
from pvemcp_server.toolkit.call import Decision
from pvemcp_server.toolkit.registry import Tool, grantable

NO_KEY: Final = ""
ALL_RIGHTS: Final = Role(0, ADMINISTRATOR, "", (Grant(frozenset({ANY})),), built_in=True)

subject = Subject("Tools", {"tools": "The tools that the AI sees, and trial calls."})
AsKey = Annotated[str, Field(description="Id or name of a key; as Administrator when absent")]


def check_names(argument: str, names: Iterable[str]) -> None:
    """Raise BadArgument for a name that no tool has: a mistyped one would grant nothing."""
    known = grantable()
    for name in sorted(set(names) - {ANY, READS} - set(known)):
        raise BadArgument(argument, str(UnknownName("tool", name, known)))


class ListedTool(BaseModel):
    """A tool as tools/list shows it."""

    name: str
    title: str
    area: str
    effect: str
    description: str
    input_schema: dict[str, Any]


class Attempt(BaseModel):
    """A call to try."""

    key: str = Field(default=NO_KEY, description="Call with this key's rights; default: all rights")
    arguments: dict[str, Any] = Field(default={}, description="What the model would send")
    confirmed: bool = Field(default=False, description="Confirm a call that loses data")
    question: str = Field(
        default="",
        description="Confirm only what this question of an answer was about; default: any",
    )


class Outcome(BaseModel):
    """The answer that a client would receive."""

    failed: bool
    data: str
    notes: str = ""
    question: str = Field(default="", description="Of a call that waits to be confirmed: its id")
    # For the pages only, which are the host of a tool's view:
    question_text: SkipJsonSchema[str] = Field(default="", exclude=True)
    values: SkipJsonSchema[dict[str, Any] | None] = Field(default=None, exclude=True)


@dataclass
class TrialConversation:
    """The conversation of a trial call: it answers the confirmation and ignores progress."""

    client: str
    attempt: Attempt
    wants_progress: bool = False
    question: str = ""
    question_id: str = ""  # of its text and of the configuration that it is about
    confirmed: bool = False

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Ignore the progress: only the outcome is shown."""

    async def ask(self, question: str, beside: str = "", digest: str = "") -> Decision:
        """Keep the question, and answer it with the confirmation of the attempt.

        A confirmation of another question, or for another configuration, is none.
        """
        self.question = " ".join(filter(None, (question, beside)))
        self.question_id = sha256(f"{question}\n{digest}".encode()).hexdigest()
        is_same = self.attempt.question in ("", self.question_id)
        self.confirmed = self.attempt.confirmed and is_same
        return Decision.YES if self.confirmed else Decision.NO


async def caller_of(context: AdminContext, key: str) -> Caller:
    """Return the caller that the key stands for; without a key, the administrator with all
    rights."""
    if key == NO_KEY:
        return Caller(
            "",
            context.by,
            ALL_RIGHTS,
            toolsets=frozenset(Toolset),
            address=context.address,
            acting=context.by,
            version="administrator",
        )
    record = await context.services.access.keys.get(key)
    caller = await context.services.access.authenticator.caller(record.id, context.address)
    return replace(caller, acting=context.by)


@subject.operation(
    "tools.list",
    Route("GET", "/tools"),
    Command("tools list", columns=("name", "effect", "description")),
    may=AUDITORS,
)
async def list_tools(
    context: AdminContext, pipeline: Pipeline, key: AsKey = NO_KEY
) -> list[ListedTool]:
    """List the tools as tools/list shows them to a key."""
    caller = await caller_of(context, key)
    return [_listed(tool.of(caller)) for tool in pipeline.tools.values() if caller.may_call(tool)]


async def get_tool(context: AdminContext, pipeline: Pipeline, key: str, name: str) -> ListedTool:
    """Return a tool that the key may call; raise UnknownName for any other."""
    visible = {tool.name: tool for tool in await list_tools(context, pipeline, key)}
    if name not in visible:
        raise UnknownName("tool", name, visible)
    return visible[name]


def may_ask(tool: Tool) -> bool:
    """Return whether a call may need consent: of a tool that writes or is guarded."""
    return bool(tool.guarded_by) or not tool.reads


async def calls_to_write(
    context: AdminContext, pipeline: Pipeline, name: str, attempt: Attempt
) -> bool:
    """Return whether the tool writes or is guarded."""
    del context, attempt  # the decision depends on the tool alone
    tool = pipeline.tools.get(name)
    return tool is not None and may_ask(tool)


@subject.operation(
    "tools.call",
    Route("POST", "/tools/{name}/call"),
    Command("tools call", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=calls_to_write,
)
async def try_tool(
    context: AdminContext, pipeline: Pipeline, name: str, attempt: Attempt
) -> Outcome:
    """Call a tool with a key's rights, through the same pipeline as a client's call.

    The audit records the key, and the administrator who acts with its rights.
    """
    return await call_tool(context, pipeline, name, attempt)


async def call_tool(
    context: AdminContext, pipeline: Pipeline, name: str, attempt: Attempt
) -> Outcome:
    """Call a tool for an operation that permits it."""
    caller = await caller_of(context, attempt.key)
    conversation = TrialConversation(f"admin pages, {context.by}", attempt)
    try:
        result = await pipeline.call(caller, name, attempt.arguments, conversation)
    except UnknownTool:
        raise UnknownName("tool", name, pipeline.tools) from None
    outcome = _outcome(result, conversation)
    if result.values and pipeline.tools[name].view:
        callable_tools = granted_tools(pipeline.tools, caller)
        outcome.values = {**result.values, "tool": name, "tools": callable_tools}
    return outcome


def _outcome(result: Result, conversation: TrialConversation) -> Outcome:
    data, *notes = (block.lstrip("\n") for block in result.blocks)
    outcome = Outcome(failed=result.cause is not None, data=data)
    if conversation.question and not conversation.confirmed:
        outcome.question = conversation.question_id
        outcome.question_text = conversation.question
        changed = "The plan has changed since. " if conversation.attempt.confirmed else ""
        notes.append(
            f"{changed}It needs confirmation: {conversation.question} Confirm it and call again."
        )
    outcome.notes = "\n".join(notes)
    return outcome


def as_tool_call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of the equivalent tools/call request."""
    return {"name": name, "arguments": dict(arguments)}


def _listed(tool: Tool) -> ListedTool:
    return ListedTool(
        name=tool.name,
        title=tool.title,
        area=tool.area.value,
        effect=tool.effect.value,
        description=tool.description,
        input_schema=tool.input_schema,
    )
