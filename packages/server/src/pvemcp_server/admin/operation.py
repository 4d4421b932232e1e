"""Administrative operations: declared once, offered as REST route, command and form.

An operation is an async function of an `AdminContext`. Its signature is its contract: parameters
named in the route's path, other plain parameters, at most one Pydantic model with the fields to
enter, and the answer. A parameter of type `Pipeline` receives the pipeline of tool calls. `web/api`
derives the routes and `cli/operations.py` the commands; pages call the function.

    subject = Subject("API Access", {"keys": "Create, change and remove API keys."})

    @subject.operation(
        "keys.create",
        Route("POST", "/keys", created=True),
        Command("keys create", text="Key {name}: {secret}"),
    )
    async def create_key(context: AdminContext, new: KeyFields) -> ShownKey:
        \"\"\"Create a key; its secret is in this answer and nowhere else.\"\"\"

Every signed-in administrator may run every operation. A GET only reads. Any other method needs the
session's CSRF token, also where it changes no record: it may contact a cluster.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel

from pvemcp_server.admin import SUBJECTS
from pvemcp_server.admin.context import AdminContext

Run = TypeVar("Run", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Route:
    """The REST route of an operation, below `/admin/api`."""

    method: str
    path: str
    created: bool = False  # answers with status 201


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table that shows a value in a form of its own."""

    name: str
    text: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a command: `arguments` by their names on the command line."""

    context: AdminContext
    arguments: Mapping[str, Any]
    answer: Any


@dataclass(frozen=True)
class Command:
    """A command for an operation, and how it prints the answer.

    A list is printed as a table of `columns`. Anything else is printed as `text`: a template with
    the names of the answer's fields and of the arguments, or a function. `--json` prints the
    answer itself, and `{done: last argument}` where there is none.
    """

    path: str  # as typed after `pvemcp`
    columns: tuple[str | Column, ...] = ()
    text: str | Callable[[Result], str] = ""
    help: str = ""  # the operation's docstring when empty
    fixed: Mapping[str, Any] = field(default_factory=dict)  # values without an option
    omit: tuple[str, ...] = ()  # fields without an option
    part: Callable[[Any], Any] | None = None  # the part of the answer to print
    failed: Callable[[Any], bool] | None = None  # exit with 1 for such an answer
    done: str = "removed"
    by_hand: bool = False  # written in the module of `cli` with the name of the operation's module


@dataclass(frozen=True)
class Operation:
    """An operation as declared.

    `elsewhere` names what replaces a missing command or route, or what else offers it.
    """

    name: str  # as the audit records it, without `admin.`
    tag: str
    run: Callable[..., Awaitable[Any]]
    route: Route | None
    commands: tuple[Command, ...]
    elsewhere: str

    @property
    def description(self) -> str:
        """What it does, for API and command line: the first paragraph of the docstring."""
        paragraph, _, _ = inspect.cleandoc(self.run.__doc__ or "").partition("\n\n")
        return " ".join(paragraph.split())

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the function, annotations evaluated."""
        return inspect.signature(self.run, eval_str=True).parameters

    @property
    def answer(self) -> Any:
        """The type of the answer."""
        return inspect.signature(self.run, eval_str=True).return_annotation

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of text."""
        return get_origin(self.answer) is AsyncIterator


_OPERATIONS: Final[dict[str, Operation]] = {}


@dataclass(frozen=True)
class Subject:
    """What the operations of a module have in common.

    `groups` are its groups of commands, each with its help; `clusters identities` is a group in
    another one.
    """

    tag: str  # heading in the REST API
    groups: Mapping[str, str] = field(default_factory=dict)

    def operation(
        self, name: str, *offers: Route | Command, elsewhere: str = ""
    ) -> Callable[[Run], Run]:
        """Declare the decorated function as an operation with this route and these commands."""

        def declare(run: Run) -> Run:
            if name in _OPERATIONS:
                raise ValueError(f"The operation {name} is declared twice.")
            routes = [offer for offer in offers if isinstance(offer, Route)]
            _OPERATIONS[name] = Operation(
                name=name,
                tag=self.tag,
                run=run,
                route=routes[0] if routes else None,
                commands=tuple(offer for offer in offers if isinstance(offer, Command)),
                elsewhere=elsewhere,
            )
            return run

        return declare


def operations() -> Mapping[str, Operation]:
    """Return all operations by name, in the order of their subjects."""
    modules = [import_module(f"{__package__}.{name}").__name__ for name in SUBJECTS]
    return {operation.name: operation for module in modules for operation in operations_of(module)}


def operations_of(module: str) -> list[Operation]:
    """List the operations that a module declares, in its order."""
    return [each for each in _OPERATIONS.values() if each.run.__module__ == module]


def model_of(parameter: inspect.Parameter) -> type[BaseModel] | None:
    """Return the model whose fields the parameter takes, if it takes one."""
    kind = parameter.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
