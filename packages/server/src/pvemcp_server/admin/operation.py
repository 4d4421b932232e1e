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
        may=ISSUERS,
        needs_recent_sign_in=grants_writes,
    )
    async def create_key(context: AdminContext, new: KeyFields) -> ShownKey:
        \"\"\"Create a key; its secret is in this answer and nowhere else.\"\"\"

The decorated function itself refuses who may not run it, so route, page and command cannot differ.
Routes and pages ask the operation also before they read a request's body; pages hide what is not
permitted. A GET only reads. Any other method needs the session's CSRF token, also where it changes
no record: it may contact a cluster.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Final, TypeVar, cast, get_origin

from pydantic import BaseModel

from pvemcp_server.admin import SUBJECTS
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import Permission, Roles
from pvemcp_server.errors import RecentSignInNeeded
from pvemcp_server.store.records import AdminRole

RecentSignIn = bool | Callable[..., Awaitable[bool]]
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
    `needs_recent_sign_in` may be a function of the operation's arguments that decides.
    """

    name: str  # as the audit records it, without `admin.`
    tag: str
    run: Callable[..., Awaitable[Any]]
    route: Route | None
    commands: tuple[Command, ...]
    elsewhere: str
    permission: Permission
    needs_recent_sign_in: RecentSignIn

    async def check_permission(self, context: AdminContext) -> None:
        """Raise NotPermitted where that depends on no argument."""
        if not self.permission.own:
            await self._check_permission(context, is_own=False)

    async def check(self, context: AdminContext) -> None:
        """Raise NotPermitted or RecentSignInNeeded where that depends on no argument."""
        await self.check_permission(context)
        if self.needs_recent_sign_in is True and not context.authority.is_recent:
            raise RecentSignInNeeded

    async def check_call(self, context: AdminContext, arguments: Mapping[str, Any]) -> None:
        """Raise NotPermitted or RecentSignInNeeded for a call with these arguments."""
        own = self.permission.own
        await self._check_permission(
            context, is_own=bool(own) and context.is_account(arguments[own])
        )
        need = self.needs_recent_sign_in
        if context.authority.is_recent or need is False:
            return
        if need is True or await need(**arguments):
            raise RecentSignInNeeded

    async def _check_permission(self, context: AdminContext, *, is_own: bool) -> None:
        if not is_own:
            await context.require(self.permission)

    @property
    def description(self) -> str:
        """What it does, for API and command line: the first paragraph of the docstring."""
        paragraph, _, _ = inspect.cleandoc(self.run.__doc__ or "").partition("\n\n")
        return " ".join(paragraph.split())

    @property
    def only_reads(self) -> bool:
        """Whether it changes no record, by its route's method."""
        return self.route is not None and self.route.method == "GET"

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
    another one. A subject that is not `for_tokens` is closed to service tokens.
    """

    tag: str  # heading in the REST API
    groups: Mapping[str, str] = field(default_factory=dict)
    for_tokens: bool = True

    def operation(
        self,
        name: str,
        *offers: Route | Command,
        may: Roles,
        own: str = "",
        needs_recent_sign_in: RecentSignIn = False,
        elsewhere: str = "",
    ) -> Callable[[Run], Run]:
        """Declare the decorated function as an operation with this route and these commands."""
        scope = scope_of(name, may) if self.for_tokens else ""

        def declare(run: Run) -> Run:
            if name in _OPERATIONS:
                raise ValueError(f"The operation {name} is declared twice.")
            signature = inspect.signature(run)

            @functools.wraps(run)
            async def checked(*args: Any, **kwargs: Any) -> Any:
                arguments = signature.bind(*args, **kwargs).arguments
                context = next(iter(arguments.values()))
                await operation.check_call(context, arguments)
                return await run(*args, **kwargs)

            routes = [offer for offer in offers if isinstance(offer, Route)]
            operation = _OPERATIONS[name] = Operation(
                name=name,
                tag=self.tag,
                run=checked,
                route=routes[0] if routes else None,
                commands=tuple(offer for offer in offers if isinstance(offer, Command)),
                elsewhere=elsewhere,
                permission=Permission(name, may, scope, own),
                needs_recent_sign_in=needs_recent_sign_in,
            )
            return cast(Run, checked)

        return declare


def scope_of(operation: str, may: Roles) -> str:
    """Return the scope that a service token needs: its subject, and whether it changes anything."""
    subject, _, _ = operation.partition(".")
    return f"{subject}:{'read' if AdminRole.AUDITOR in may else 'write'}"


def scopes() -> list[str]:
    """List every scope that a service token may have."""
    return sorted({each.permission.scope for each in operations().values()} - {""})


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
