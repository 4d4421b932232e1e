"""What running guests report about themselves, or the reason why one cannot be asked."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from proxmox_client import AgentRefused, Conflict, Lxc, Qemu
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import counted
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import LoadRequest

T = TypeVar("T")

_RUNNING = "running"
_UNKNOWN = "unknown"  # without statistics, so perhaps running
_STOPPED = re.compile(r"(VM|CT) \d+ (is )?not running")
_REASONS = 3  # that a note names
_LONGEST = 100  # characters of one


class _WithProblem(Protocol):
    @property
    def problem(self) -> str | None: ...


async def reports(
    cluster: Cluster,
    request: LoadRequest,
    kind: str,
    ask: Callable[[Qemu | Lxc], Awaitable[T]],
    what: str,
) -> list[tuple[GuestResource, T | str]]:
    """Return each running guest of a kind with its report, or with Proxmox's reason for none.

    A reason is the state of the guest's agent. Other failures, such as a missing privilege, become
    notes, and the guest is left out.
    """
    guests = {
        guest.vmid: guest
        for guest in await fanout.guests(cluster, request, kind)
        if guest.status in (_RUNNING, _UNKNOWN) and not guest.template
    }

    async def report(vmid: int) -> T | str | None:
        api = cluster.api_of(guests[vmid])
        try:
            return await ask(api)
        except (AgentRefused, Conflict) as error:
            reason = str(error).strip()
        if guests[vmid].status == _UNKNOWN:  # a stopped VM without an agent has the same reason
            return reason if (await api.status()).status == _RUNNING else None
        return None if _STOPPED.match(reason) else reason

    answers = await fanout.each(cluster, guests, report, request, what)
    return [(guests[vmid], answer) for vmid, answer in answers.items() if answer is not None]


def note_problems(cluster: Cluster, rows: Iterable[_WithProblem], what: str) -> None:
    """Note how many guests have no such report, with the commonest reasons.

    They are quoted: a guest chooses the words of its agent's errors.
    """
    reasons = Counter(row.problem for row in rows if row.problem)
    if not reasons:
        return
    commonest = reasons.most_common(_REASONS)
    named = ", ".join(f"{number}: {shown_name(reason, _LONGEST)}" for reason, number in commonest)
    more = ", …" if len(reasons) > _REASONS else ""
    cluster.notes.add(
        f"Without {what} on {cluster.name}: {counted(reasons.total(), 'running guest')}. The "
        f"column problem says why ({named}{more}).",
        fact=True,
    )


def without_repeats(items: Sequence[T]) -> list[T]:
    """Return the items in their order, each once."""
    return list(dict.fromkeys(items))
