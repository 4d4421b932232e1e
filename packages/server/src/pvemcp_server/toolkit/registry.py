"""The tool registry: one decorated function per tool.

The function's signature is the input schema and its docstring the description that a model reads.
Permission, annotations, documentation and the role editor follow from the decorator's arguments.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, get_args, get_type_hints

from msgspec.structs import asdict
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from pvemcp_server.access.model import Area, Caller, Effect, Toolset
from pvemcp_server.oauth.scopes import NEEDED, Scope
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.registry import PVE_ONLY
from pvemcp_server.tables.rows import Row
from pvemcp_server.toolkit.arguments import (
    Arguments,
    ChartOptions,
    ListOptions,
    ManyVms,
    Options,
    SelectingQuery,
    StopAtFailure,
    WriteOptions,
)
from pvemcp_server.toolkit.bulk import BulkLimits, BulkPlan, planned_for_each
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.needs import RequiredPrivilege
from pvemcp_server.toolkit.plan import ConfirmedRead, Plan
from pvemcp_server.toolkit.schema import input_schema
from pvemcp_server.toolkit.undo import KeptUndo


@dataclass(frozen=True, slots=True)
class Rows:
    """A list answer: rows in order, and its columns, which an empty answer has too.

    `decimals` gives the significant digits after the point of columns that differ from the usual,
    and `reasons` why columns may be empty in every row. `newest_by` is the time by which rows are
    sorted, if they are.
    """

    rows: Sequence[Row | Mapping[str, Any]]
    columns: tuple[str, ...]
    decimals: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    newest_by: str = ""

    def tie_at(self, end: int) -> str:
        """Return words for a note if the row at `end` has the same time as the one before it."""
        if not self.newest_by:
            return ""
        last, following = (
            row[self.newest_by] if isinstance(row, Mapping) else getattr(row, self.newest_by)
            for row in self.rows[end - 1 : end + 1]
        )
        is_tie = last is not None and last == following
        return f", the next one of the same {self.newest_by}" if is_tie else ""


Document = Mapping[str, Any]
"""A single answer."""

Answer = Rows | Document | ConfirmedRead | Plan | BulkPlan | KeptUndo
"""Reads answer with Rows or a Document; one that the user has to agree to, with a ConfirmedRead.
A write answers with a Plan: nothing has changed yet.
The pipeline answers a dry run with `plan.preview()`; for Effect.DESTROY, and for a plan that loses
or discloses something, it asks the user to confirm `plan.sentence`; it records the intent in the
audit and then calls `plan.carry_out(call)`. For a KeptUndo it makes the call in it instead."""

Run = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True)
class Tool:
    """A tool as declared."""

    name: str
    title: str
    area: Area
    effect: Effect
    toolset: Toolset | None  # the set that a key needs for it
    idempotent: bool
    open_world: bool
    may_lose_data: bool  # with some arguments, as its plan says; Effect.DESTROY always does
    guarded_by: str  # the setting that switches it on; each call is confirmed or approved then
    description: str
    arguments: type[BaseModel]  # the tool's own arguments
    lists: bool  # answers Rows: fields, limit and cursor apply
    answer: type[Row] | None  # the fields of a row or of the document, for documentation
    needs: tuple[RequiredPrivilege, ...]  # privileges of the Proxmox account
    kinds: frozenset[ClusterKind]  # of clusters that it reads
    bulk: BulkLimits | None  # of a write that takes many guests
    write_permission: str  # that a role grants beside the tool; without it the tool only reads
    view: str  # the name of the view that clients with MCP Apps show beside its answer
    run: Run
    charts: bool = False  # whether its answers can be drawn
    draws: bool = False  # whether they are, by the argument `chart`

    @property
    def reads(self) -> bool:
        return self.effect is Effect.READ

    @property
    def scope(self) -> Scope:
        """The scope that an access token needs for it at least; a plan that loses data needs more.

        A tool that reads and writes needs the scope of each call.
        """
        return Scope.READ if self.write_permission else NEEDED[self.effect]

    def of(self, caller: Caller) -> "Tool":
        """Return the tool as the caller has it: without its permission to write, it only reads."""
        if not self.write_permission or caller.has_permission(self.write_permission):
            return self
        return self.reading

    @cached_property
    def reading(self) -> "Tool":
        """The tool without its permission to write."""
        return replace(
            self,
            effect=Effect.READ,
            may_lose_data=False,
            idempotent=True,
            open_world=False,
            write_permission="",
        )

    def under(self, settings: Values) -> "Tool":
        """Return the tool as the settings have it: with the argument `chart` if they allow it."""
        return self.drawing if self.charts and settings.chart_images else self

    @cached_property
    def drawing(self) -> "Tool":
        """The tool with the argument `chart`."""
        return replace(self, draws=True)

    @property
    def destructive(self) -> bool:
        """Whether a call of it loses data, with some arguments at least."""
        return self.effect is Effect.DESTROY or self.may_lose_data

    def is_switched_on(self, settings: Values) -> bool:
        """Return whether no setting keeps it off."""
        return not self.guarded_by or bool(getattr(settings, self.guarded_by))

    @property
    def annotations(self) -> dict[str, Any]:
        """The tool annotations of MCP.

        Whether a read is idempotent has no meaning there, and that a write is not is the default.
        """
        return {
            "title": self.title,
            "readOnlyHint": self.reads,
            "destructiveHint": self.destructive,
            **({"idempotentHint": True} if self.idempotent and not self.reads else {}),
            "openWorldHint": self.open_world,
        }

    @cached_property
    def accepted(self) -> type[BaseModel]:
        """The model of the tool's own arguments and of the options that its kind of tool has."""
        options: list[type[Options]] = [ListOptions] if self.lists else []
        options += [] if self.reads else [WriteOptions]
        options += [ChartOptions] if self.draws else []
        return create_model(f"{self.name}Call", __base__=(self.arguments, *(options or [Options])))

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """A plain JSON Schema object: no `$defs`, no combinators at the top, no titles."""
        return input_schema(self.accepted, first=tuple(self.arguments.model_fields))


_TOOLS: dict[str, Tool] = {}
_OF_MANY: Final[Mapping[str, tuple[Any, Any]]] = {
    "vmids": (ManyVms, None),
    "query": (SelectingQuery, None),
}
"""The arguments in place of `vmid` where a write takes many guests."""


def tool(
    name: str,
    *,
    area: Area,
    effect: Effect,
    title: str = "",
    toolset: Toolset | None = None,
    idempotent: bool | None = None,
    open_world: bool = False,
    may_lose_data: bool = False,
    guarded_by: str = "",
    answer: type[Row] | None = None,
    needs: tuple[RequiredPrivilege, ...] = (),
    kinds: frozenset[ClusterKind] = PVE_ONLY,
    bulk: BulkLimits | None = None,
    write_permission: str = "",
    view: str = "",
    charts: bool = False,
) -> Callable[[Run], Tool]:
    """Declare a tool. Reads are idempotent; writes only with `idempotent=True`.

    `answer` is the row class of its rows or of its document; `needs` are privileges of the Proxmox
    account; `kinds` are the kinds of clusters that it reads; `open_world` marks a tool that reaches
    beyond the clusters, and `may_lose_data` a write whose plans lose data with some arguments only.
    A tool with `guarded_by` is off unless that setting is on, and no other setting and no key lets
    it run without consent or approval.
    A tool that few clients need has a `toolset`. A write on one guest, with the arguments
    `cluster_name` and `vmid`, takes many as `vmids` or rows of a query if it is declared with the
    limits of `bulk`.
    A tool that reads and writes has a `write_permission`: roles without it get one that reads.
    `view` names the view of `views` that shows its answer; with `charts`, it can also draw it.
    """

    def declare(run: Run) -> Tool:
        declared = Tool(
            name=name,
            title=title or _title(name),
            area=area,
            effect=effect,
            toolset=toolset,
            idempotent=effect is Effect.READ if idempotent is None else idempotent,
            open_world=open_world,
            may_lose_data=may_lose_data,
            guarded_by=guarded_by,
            description=inspect.cleandoc(run.__doc__ or ""),
            arguments=_arguments(name, run, many=bulk is not None),
            lists=Rows in (get_args(answers := get_type_hints(run)["return"]) or (answers,)),
            answer=answer,
            needs=needs,
            kinds=kinds,
            bulk=bulk,
            write_permission=write_permission,
            view=view,
            charts=charts,
            run=run if bulk is None else planned_for_each(run, bulk),
        )
        _TOOLS[name] = declared
        return declared

    return declare


def document(row: Row) -> Document:
    """Return the fields of a row as a single answer."""
    return asdict(row)


def tools() -> Mapping[str, Tool]:
    """Return all declared tools by name, sorted by area, then reads before writes, then name."""
    areas, effects = list(Area), list(Effect)

    def order(tool: Tool) -> tuple[int, int, str]:
        return areas.index(tool.area), effects.index(tool.effect), tool.name

    return {tool.name: tool for tool in sorted(_TOOLS.values(), key=order)}


def grantable() -> list[str]:
    """Return the names that a grant may have: those of tools, and of their permissions to write."""
    names = ((tool.name, tool.write_permission) for tool in tools().values())
    return [name for pair in names for name in pair if name]


def missing_toolsets(tools: Mapping[str, Tool], caller: Caller) -> dict[Toolset, list[str]]:
    """Return the toolsets that the key lacks, each with its tools that the role grants."""
    missing: dict[Toolset, list[str]] = {}
    for tool in tools.values():
        if tool.toolset and caller.is_granted(tool) and not caller.may_call(tool):
            missing.setdefault(tool.toolset, []).append(tool.name)
    return missing


def _arguments(name: str, run: Run, *, many: bool) -> type[BaseModel]:
    """Create the model of a tool's arguments from the signature of its function.

    With `many`, it has `vmids` in place of `vmid`, a query that selects them, and whether a
    failure stops the rest.
    """
    hints = get_type_hints(run, include_extras=True)
    fields: dict[str, tuple[Any, Any]] = {
        parameter.name: (
            hints[parameter.name],
            FieldInfo() if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(run).parameters.values()
        if hints[parameter.name] is not Call
    }
    if many:
        fields = {
            name: declared
            for n, own in fields.items()
            for name, declared in (_OF_MANY if n == "vmid" else {n: own}).items()
        } | {"stop_at_failure": (StopAtFailure, False)}
    model: type[BaseModel] = create_model(f"{name}Arguments", __base__=Arguments, **fields)  # type: ignore[call-overload]  # fields are computed
    return model


def _title(name: str) -> str:
    """Return the words of a tool's name: `List pools` for `ListPools`."""
    return "".join(f" {c}" if c.isupper() else c for c in name).strip().capitalize()
