"""Arguments that several tools share; each carries the description that the model reads."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_formats import Format


@dataclass(frozen=True, slots=True)
class Rule:
    """What a pattern asks for, in words: the error says this instead of the pattern."""

    words: str


ClusterName = Annotated[str | None, Field(description="Cluster; all reachable ones when absent")]
OneCluster = Annotated[str | None, Field(description="Cluster; needed if several are reachable")]
VmId = Annotated[int, Field(ge=100, le=999_999_999, description="Guest number (VMID)")]
VmIds = Annotated[list[int], Field(max_length=1000, description="Guest numbers; empty means all")]
NodeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", description="Node"),
    Rule("a node's name has letters, digits and hyphens, and no more than 63 of them"),
]
StorageName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$", max_length=100, description="Storage"),
    Rule("a storage's name is a letter, then letters, digits, dots, hyphens or underscores"),
]
Volid = Annotated[
    str, Field(max_length=500, description="Volume id, as storage:path, from a list tool")
]
SnapshotName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]+$", max_length=40, description="Snapshot name"),
    Rule("a snapshot's name is a letter, then at least one more, or digits, hyphens, underscores"),
]
DetailLevel = Annotated[Literal["Minimal", "Full"], Field(description="Full: all fields")]


class Arguments(BaseModel):
    """The base of argument models: an argument nobody declared is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


class Options(Arguments):
    """What every tool accepts beside its own arguments."""

    format: Annotated[Format | None, Field(description="Output format of this answer")] = None


class ListOptions(Options):
    """What list tools accept: columns and paging."""

    fields: Annotated[list[str] | None, Field(description="Columns to return")] = None
    limit: Annotated[int | None, Field(ge=1, description="Rows per page")] = None
    cursor: Annotated[str | None, Field(description="Next page, from a note")] = None


class WriteOptions(Options):
    """What writes accept: looking before leaping, and waiting for the outcome."""

    dry_run: Annotated[bool, Field(description="Only say what would happen")] = False
    wait: Annotated[bool, Field(description="Wait for the task's outcome")] = False
