"""Questions of administrators: the calls that a model sends for each, and the facts of the answer.

A question is declared once, in the module of its subject; test_questions.py and
benchmarks/questions.py ask all of them on the demo. Its function yields pairs of what the answer
says and what the state of the emulator says.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest
from pvemcp_server.pipeline.pagination import estimate

MOST_CALLS: Final = 2
MOST_TOKENS: Final = 1_000


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool, as a model sends it."""

    tool: str
    arguments: dict[str, Any]

    @property
    def text(self) -> str:
        return json.dumps({"name": self.tool, "arguments": self.arguments}, separators=(",", ":"))


@dataclass(frozen=True)
class Reply:
    """What a call returned, in the default format."""

    text: str
    notes: str
    failed: bool

    @property
    def data(self) -> Any:
        """The document, or the rows as dictionaries."""
        data = json.loads(self.text)["data"]
        if isinstance(data, dict) and data.keys() == {"headers", "rows"}:
            return [dict(zip(data["headers"], row, strict=True)) for row in data["rows"]]
        return data

    def column(self, *names: str) -> list[Any]:
        """Return the values of a column in the order of the rows, or tuples of several."""
        rows = [tuple(row.get(name) for name in names) for row in self.data]
        return rows if len(names) > 1 else [row[0] for row in rows]

    def set(self, *names: str) -> set[Any]:
        return set(self.column(*names))


class Sender(Protocol):
    """Sends a call to the server; test clients are one."""

    def __call__(self, tool: str, /, **arguments: Any) -> Awaitable[Any]: ...


def anything(_: object) -> bool:
    """Fit all guests, tasks or backups."""
    return True


@dataclass(frozen=True)
class Demo:
    """The state of the demo's clusters, which answers are compared with."""

    states: dict[str, ClusterState]

    @property
    def prod(self) -> ClusterState:
        return self.states["prod"]

    @property
    def home(self) -> ClusterState:
        return self.states["home-lab"]

    @property
    def now(self) -> float:
        return self.prod.now

    def guests(
        self, fits: Callable[[Guest], object] = anything, *, known: bool = True
    ) -> Iterator[tuple[ClusterState, Guest]]:
        """List the guests that fit with their clusters; those on offline nodes unless `known`."""
        for state in self.states.values():
            for guest in state.guests.values():
                if (state.nodes[guest.node].online or not known) and fits(guest):
                    yield state, guest

    def vmids(self, fits: Callable[[Guest], object]) -> set[tuple[str, int]]:
        """Return cluster and VMID of the guests on online nodes that fit."""
        return {(state.name, guest.vmid) for state, guest in self.guests(fits)}

    def guest(self, name: str) -> Guest:
        """Return the first guest with a name."""
        return next(guest for _, guest in self.guests(lambda g: g.name == name, known=False))


Step = ToolCall | Callable[..., ToolCall | list[ToolCall]]
"""A call, or a function that returns the next calls from the replies before."""
Pairs = Iterator[tuple[object, object]]
Facts = Callable[..., Pairs]
"""Yields what the replies say, and what the state says."""


@dataclass(frozen=True)
class Question:
    """A question, its calls, and the facts that a right answer has."""

    id: str
    words: str
    steps: Sequence[Step]
    facts: Facts
    calls: int = MOST_CALLS
    tokens: int = MOST_TOKENS
    tokens_per_row: int = 0
    """Added to `tokens` for each row of the last reply, where their number depends on the hour."""
    lacks: str = ""
    """What the answer says that it does not have."""
    no_tool: tuple[str, ...] = ()
    """Tools that would do it and do not exist yet."""
    toolsets: frozenset[str] = frozenset()
    """Those that the key needs for its calls; a new key has none."""
    writes: bool = False


@dataclass
class Asked:
    """The replies to a question, and their cost in estimated tokens, both ways."""

    replies: list[Reply] = field(default_factory=list)
    tokens: int = 0
    texts: list[str] = field(default_factory=list)


def bar(asked: Question, replies: Sequence[Reply]) -> int:
    """Return the tokens that the calls and their replies may have."""
    per_row = asked.tokens_per_row
    return asked.tokens + (per_row * len(replies[-1].data) if per_row else 0)


QUESTIONS: Final[dict[str, Question]] = {}


def question(id_: str, words: str, *steps: Step, **options: Any) -> Callable[[Facts], Facts]:
    """Declare a question; `options` are further fields of Question."""

    def declare(facts: Facts) -> Facts:
        if id_ in QUESTIONS:
            raise ValueError(f"two questions are {id_}")
        QUESTIONS[id_] = Question(id_, words, steps, facts, **options)
        return facts

    return declare


def call(tool: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(tool, arguments)


class OtherField(str):
    """A field that a condition compares with."""


Condition = tuple[str, str] | tuple[str, str, Any]


def query(
    table: str,
    *select: str,
    where: Iterable[Condition] = (),
    any_of: Iterable[Condition] = (),
    group: Sequence[str] = (),
    having: Iterable[Condition] = (),
    order: str = "",
    limit: int = 0,
    per: tuple[str, int] | None = None,
    cluster_name: str = "",
) -> ToolCall:
    """Return a call of ExecuteQuery; `order` is a field, with a minus for the largest first.

    `per` is a field and a number: the first rows of each group.
    """
    body: dict[str, Any] = {"from": table}
    if select:
        body["select"] = list(select)
    if conditions := [_condition(*each) for each in where]:
        body["where"] = {"conditions": conditions}
    if conditions := [_condition(*each) for each in any_of]:
        body["where"] = {"logic": "or", "conditions": conditions}
    if group:
        body["groupBy"] = list(group)
    if conditions := [_condition(*each) for each in having]:
        body["having"] = {"conditions": conditions}
    if order:
        direction = "desc" if order.startswith("-") else "asc"
        body["orderBy"] = [{"field": order.removeprefix("-"), "direction": direction}]
    if limit:
        body["limit"] = limit
    if per:
        body["limitPer"] = {"fields": [per[0]], "count": per[1]}
    where_asked = {"cluster_name": cluster_name} if cluster_name else {}
    return ToolCall("ExecuteQuery", {"query": body, **where_asked})


def _condition(name: str, operator: str, value: Any = None) -> dict[str, Any]:
    if operator.endswith("EXISTS"):
        inner = {"conditions": [_condition(*each) for each in value or ()]}
        return {"field": name, "operator": operator, **inner}
    if isinstance(value, OtherField):
        return {"field": name, "operator": operator, "valueField": value}
    if value is None:
        return {"field": name, "operator": operator}
    values = value if isinstance(value, list) else [value]
    return {"field": name, "operator": operator, "value": [str(each) for each in values]}


async def ask(send: Sender, asked: Question) -> Asked:
    """Send the calls of a question."""
    result = Asked()
    for step in asked.steps:
        calls = step if isinstance(step, ToolCall) else step(*result.replies)
        for each in calls if isinstance(calls, list) else [calls]:
            answer = await send(each.tool, format="JsonCompact", **each.arguments)
            reply = Reply(answer.text, answer.notes, answer.failed)
            result.replies.append(reply)
            texts = [each.text, f"{reply.text}\n{reply.notes}"]
            result.texts += texts
            result.tokens += sum(map(estimate, texts))
    return result


def differences(asked: Question, demo: Demo, replies: Sequence[Reply]) -> list[str]:
    """Return where the replies differ from the state."""
    return [
        f"{asked.id} {asked.words!r}: says {found!r}, is {expected!r}"
        for found, expected in asked.facts(demo, *replies)
        if found != expected
    ]
