"""What a check is: the tables that it reads, how it finds things in their rows, the next call."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from pvemcp_server.clusters import Cluster
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.registry import ALL, LoadRequest, Table
from pvemcp_server.toolkit.next_call import Arguments, NextCall

Condition = Mapping[str, Any]


class Severity(IntEnum):
    """How urgent a finding is, the most urgent first."""

    CRITICAL = 0
    WARNING = 1
    NOTICE = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Topic(StrEnum):
    """An area of GetAttention."""

    NODES = "Nodes"
    CLOCKS = "Clocks"
    HA = "HA"
    CEPH = "Ceph"
    DISKS = "Disks"
    STORAGES = "Storages"
    CAPACITY = "Capacity"
    BACKUPS = "Backups"
    REPLICATION = "Replication"
    TASKS = "Tasks"
    SNAPSHOTS = "Snapshots"
    CERTIFICATES = "Certificates"
    SUBSCRIPTIONS = "Subscriptions"
    UPDATES = "Updates"
    SMART = "Smart"
    AGENTS = "Agents"


ON_REQUEST = (Topic.SMART, Topic.AGENTS)
"""Topics of one call per disk or guest: they are looked at only when they are named."""

Narrow = Callable[[Cluster, Values, datetime], Awaitable[LoadRequest | None]]


async def _whole_table(_cluster: Cluster, _limits: Values, _now: datetime) -> LoadRequest:
    return ALL


@dataclass(frozen=True, eq=False)
class Read:
    """The part of a table that checks need; loaded once per cluster, whatever checks use it."""

    table: Table
    columns: tuple[str, ...]
    narrow: Narrow = _whole_table  # returns None if there is nothing to ask for


@dataclass(frozen=True)
class Evidence:
    """The rows of one cluster that were read, and the time and the thresholds to judge them by."""

    cluster: str
    limits: Values
    now: datetime
    rows: Mapping[Read, Sequence[Any]]
    incomplete: frozenset[Read] = frozenset()  # without what did not answer or may not be seen

    def __getitem__(self, read: Read) -> Sequence[Any]:
        return self.rows[read]

    def has(self, reads: Iterable[Read]) -> bool:
        """Return whether all of these reads have been made."""
        return all(read in self.rows for read in reads)

    def before(self, **span: float) -> datetime:
        """Return the time so long ago: `before(hours=24)`."""
        return self.now - timedelta(**span)


@dataclass(frozen=True)
class Item:
    """A thing that needs attention. Items of one finding are sorted by `figure`, highest first."""

    severity: Severity
    name: str
    figure: float = 0.0
    detail: str = ""  # the figure in words, after the name
    since: datetime | None = None
    number: int = 1  # of things that the item stands for
    partly_seen: bool = False  # filled in where rows that could not be read might disprove it
    cluster: str = ""  # filled in where there are several
    arguments: Arguments = field(default_factory=dict)  # of a call about it alone


Find = Callable[[Evidence], Iterable[Item]]
Next = Callable[[Values, Sequence[Item]], NextCall]


@dataclass(frozen=True)
class Check:
    """One kind of finding."""

    topic: Topic
    reads: tuple[Read, ...]
    singular: str
    plural: str
    next: Next
    find: Find
    of_whole_cluster: bool  # whether a part of the cluster gives no answer
    of_absence: bool  # whether rows that could not be read might disprove what it finds

    @property
    def name(self) -> str:
        return self.find.__name__

    def is_about(self, kind: ClusterKind) -> bool:
        """Return whether clusters of this kind have the rows that it reads."""
        return all(kind in read.table.kinds for read in self.reads)

    def words(self, number: int) -> str:
        return f"{number} {self.singular if number == 1 else self.plural}"


_CHECKS: list[Check] = []


def check(
    topic: Topic,
    *reads: Read,
    singular: str,
    plural: str,
    next_call: Next,
    of_whole_cluster: bool = False,
    of_absence: bool = False,
) -> Callable[[Find], Find]:
    """Declare a check by decorating the function that finds its items in the rows of a cluster."""

    def declare(find: Find) -> Find:
        _CHECKS.append(
            Check(topic, reads, singular, plural, next_call, find, of_whole_cluster, of_absence)
        )
        return find

    return declare


def checks(topics: Iterable[Topic]) -> list[Check]:
    """Return the declared checks of these topics, in the order of Topic."""
    chosen = frozenset(topics)
    return [each for topic in Topic if topic in chosen for each in _CHECKS if each.topic is topic]


def calls(tool: str, **arguments: Any) -> Next:
    """Return a next call with fixed arguments."""
    return lambda _limits, _items: NextCall(tool, arguments)


def about_one(tool: str, several: Next) -> Next:
    """Return a next call about a thing that is found alone, and another one about several."""

    def choose(limits: Values, items: Sequence[Item]) -> NextCall:
        if len(items) == 1:
            return NextCall(tool, items[0].arguments)
        return several(limits, items)

    return choose


def asks(
    table: Table, *conditions: Condition | Callable[[Values], Condition], any_of: bool = False
) -> Next:
    """Return a next call that queries a table; a condition may depend on the thresholds."""

    def query(limits: Values, _items: Sequence[Item]) -> NextCall:
        parts = [each(limits) if callable(each) else each for each in conditions]
        return query_of(table, *parts, any_of=any_of)

    return query


def query_of(table: Table, *conditions: Condition, any_of: bool = False) -> NextCall:
    """Return the query of the rows of a table that match, as the tool's schema describes it."""
    query: dict[str, Any] = {"from": table.name}
    if conditions:
        logic = {"logic": "or"} if any_of and len(conditions) > 1 else {}
        query["where"] = {**logic, "conditions": list(conditions)}
    return NextCall("ExecuteQuery", {"query": query})


def where(name: str, operator: str, value: Any = None) -> Condition:
    """Return a condition of a query."""
    condition = {"field": name, "operator": operator}
    if value is None:
        return condition
    values = value if isinstance(value, tuple) else (value,)
    return {**condition, "value": [_text(each) for each in values]}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
