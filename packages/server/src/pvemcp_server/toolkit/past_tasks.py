"""How long a write takes, from past tasks of its kind: of the same guest, else of its node.

A plan shows it in its dry run only, like the room: it changes from task to task, and a question or
an approval is for one text. Only tasks of guests that the caller may see are counted.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Final

from proxmox_client import ProxmoxError
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.clusters import Cluster
from pvemcp_server.toolkit.write_target import TargetGuest

_LATEST: Final = 100  # tasks of a kind that are read of a node
_MOST: Final = 10  # of these that count
_LONGEST: Final = 365 * 24 * 3600  # seconds of a task; a longer one has a wrong time


@dataclass(frozen=True, slots=True)
class PastTasks:
    """The tasks on record that are like the one that a write starts: `kind` is Proxmox's type."""

    node: str
    kind: str
    vmid: int


def past_tasks(guest: TargetGuest, qemu: str, lxc: str) -> PastTasks:
    """Return the past tasks of a guest by the type that they have for its kind."""
    return PastTasks(guest.node, qemu if guest.resource.type == "qemu" else lxc, guest.vmid)


@dataclass(frozen=True, slots=True)
class TimeTaken:
    """How long such tasks took: a sentence, and the longest of them; empty if none is known."""

    text: str = ""
    longest: timedelta | None = None


async def time_taken(cluster: Cluster, pasts: Sequence[PastTasks]) -> TimeTaken:
    """Return how long such tasks took, as far as they are on record."""
    if not pasts:
        return TimeTaken()
    kinds = sorted({(past.node, past.kind) for past in pasts})
    visible = {str(vmid) for vmid in (await cluster.inventory_view()).by_vmid}

    async def read(node: str, kind: str) -> list[TaskRow]:
        try:
            rows = await cluster.pve.node(node).tasks(
                source="archive", limit=_LATEST, type=kind, status=("ok", "warning")
            )
        except ProxmoxError:  # the plan itself needs none of them
            return []
        latest = rows[:_LATEST]  # whatever the host sends: they are looked at for each guest
        ended = [row for row in latest if row.end_time and row.id in visible]
        return [row for row in ended if (row.end_time or 0) - row.start_time < _LONGEST]

    answers = await asyncio.gather(*(read(*kind) for kind in kinds))
    rows = dict(zip(kinds, answers, strict=True))
    fitting = [_own(past, of := rows[past.node, past.kind]) or of for past in pasts]
    taken = [seconds for some in fitting if (seconds := _seconds(some))]
    if not taken:
        return TimeTaken()
    longest = timedelta(seconds=max(map(max, taken)))
    if len(pasts) == 1:
        return TimeTaken(_of_one(pasts[0], rows[pasts[0].node, pasts[0].kind]), longest)
    medians = [median(seconds) for seconds in taken]
    span = dict.fromkeys((_readable(min(medians)), _readable(max(medians))))
    return TimeTaken(f"Each usually takes {' to '.join(span)}, by past tasks.", longest)


def _of_one(past: PastTasks, rows: Sequence[TaskRow]) -> str:
    own = _own(past, rows)
    seconds = _seconds(own or rows)
    whose = "of this guest" if own else f"of other guests on {past.node}"
    longest = f", {_readable(max(seconds))} at most" if len(seconds) > 1 else ""
    last = f"the last {len(seconds)} {past.kind} tasks" if len(seconds) > 1 else "the only task"
    return f"Usually {_readable(median(seconds))}{longest}, by {last} {whose}."


def _own(past: PastTasks, rows: Iterable[TaskRow]) -> list[TaskRow]:
    return [row for row in rows if row.id == str(past.vmid)]


def _seconds(rows: Sequence[TaskRow]) -> list[int]:
    """Return how long the latest tasks took."""
    return [max(0, (row.end_time or 0) - row.start_time) for row in rows[:_MOST]]


def _readable(seconds: float) -> str:
    """Return a time in the unit in which it is at least 2."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
