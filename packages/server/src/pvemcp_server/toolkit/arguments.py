"""Argument types that several tools share; each carries the description that the model reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from pvemcp_formats import Format


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern in words: the error message quotes this instead of the regular expression."""

    words: str


@dataclass(frozen=True, slots=True)
class Words:
    """Words that people use for the choices of an argument, by choice: {"lxc": "ct container"}."""

    meanings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Absent:
    """Words that mean the same as leaving the argument out."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clamp:
    """Reads a number above the largest one as that, and 0 as if the argument were absent."""

    most: int | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """Entries of a list are texts of their own, not several values with commas between them."""


@dataclass(frozen=True, slots=True)
class AlsoNamed:
    """Another name that models use for the argument, as that of the same thing in other tools."""

    name: str


def _distinct(values: list[int] | None) -> list[int] | None:
    return values and sorted(set(values))


MOST_GUESTS: Final = 50  # of one write

NO_FILTER = Absent(("all", "any", "*"))

ClusterName = Annotated[str | None, NO_FILTER, Field(description="Cluster; all if absent")]
OneCluster = Annotated[
    str | None, NO_FILTER, Field(description="Cluster; needed if you reach several")
]
ItsCluster = Annotated[str | None, NO_FILTER, Field(description="Cluster, if several")]
INTEGER: Final = WithJsonSchema({"type": "integer"})  # bounds cost tokens; errors name them
VmId = Annotated[int, INTEGER, Field(ge=100, le=999_999_999, description="VMID")]
AnyVm = Annotated[VmId | None, NO_FILTER, Field(description="VMID")]
VmIds = Annotated[
    list[int], NO_FILTER, Field(max_length=1000, description="VMIDs; empty means all")
]
ManyVms = Annotated[
    list[int] | None,
    AfterValidator(_distinct),
    AlsoNamed("vmid"),
    Field(min_length=1, max_length=MOST_GUESTS, description=f"VMIDs, up to {MOST_GUESTS}"),
]
SelectingQuery = Annotated[
    Any,  # checked by the query parser
    WithJsonSchema({"type": "string"}),  # the object itself is read too
    Field(description="Or ExecuteQuery JSON, rows with vmid"),
]
StopAtFailure = Annotated[bool, Field(description="Stop at the first failure")]
NodeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", description="Node"),
    Rule("a node name has letters, digits and hyphens, at most 63"),
]
AnyNode = Annotated[NodeName | None, NO_FILTER]
StorageName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$", max_length=100, description="Storage"),
    Rule("a storage name is a letter, then letters, digits, dots, hyphens or underscores"),
]
AnyStorage = Annotated[StorageName | None, NO_FILTER]
Volid = Annotated[
    str, Field(max_length=500, description="Volume id, as storage:path, from a list tool")
]
SnapshotName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]+$", max_length=40, description="Snapshot name"),
    Rule("a snapshot name is a letter, then one or more letters, digits, hyphens or underscores"),
]
DetailLevel = Annotated[Literal["Minimal", "Full"], Field(description="Full: all fields")]

# every tool has it, so its schema is as short as it can be; lists, which it matters for, name all
OutputFormat = Annotated[
    Format | None,
    Words({Format.JSON_NORMAL: "json"}),
    WithJsonSchema({"type": "string"}),
    Field(description="Answer format"),
]
ListFormat = Annotated[OutputFormat, Field(description=", ".join(Format))]


class Arguments(BaseModel):
    """The base of argument models: an undeclared argument is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True, frozen=True
    )


class Options(Arguments):
    """Options of every tool beside its own arguments."""

    format: OutputFormat = None


class ListOptions(Options):
    """Options of list tools: columns and paging."""

    format: ListFormat = None
    fields: Annotated[list[str] | None, Field(description="Columns")] = None
    limit: Annotated[int | None, Clamp(), INTEGER, Field(ge=1, description="Page size")] = None
    cursor: Annotated[str | None, Field(description="From a note")] = None


class ChartOptions(Options):
    """Options of tools whose answers can be drawn, while the setting `chart_images` is on."""

    chart: Annotated[bool, Field(description="Also a PNG")] = False


class WriteOptions(Options):
    """Options of writes: a preview, and waiting for the outcome."""

    dry_run: Annotated[bool, Field(description="Preview only")] = False
    wait: Annotated[bool, Field(description="Wait for its end")] = False
