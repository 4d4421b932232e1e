"""Requests to Proxmox's API that change something, as plans."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from proxmox_client import ResponseError, Task, Upid
from proxmox_client.api.resources import GuestResource
from proxmox_client.json_decoder import split_list
from proxmox_client.volumes import owners
from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.audit.mask import mask_text
from pvemcp_server.clusters import Cluster, reason_of
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.shown_names import quoted, shown_name
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.own_rights import refuse_protecting_tags
from pvemcp_server.toolkit.plan import Plan, is_shown_whole
from pvemcp_server.toolkit.task_guests import guests_of_task
from pvemcp_server.toolkit.undo import Undo
from pvemcp_server.toolkit.undo_check import text_of, values_at
from pvemcp_server.toolkit.write_target import require_no_protected_owner, volume_owners
from pvemcp_server.tools.api import backup_jobs, effects, privileges
from pvemcp_server.tools.api.mask import is_secret, masked
from pvemcp_server.tools.api.request import ApiRequest, Values
from pvemcp_server.tools.api.reversal import Reversal

_OLD: Final = 200  # characters of a present value
_MOST_SHOWN: Final = 5_000  # characters of all that a request does and loses
_MOST_EXCEPTIONS: Final = 12  # guests that stand for all others
_NAMELESS: Final = frozenset({"digest"})
# Parameters that name guests: a guest that a tag protects refuses every write
_OF_GUESTS: Final = frozenset(
    {"vmid", "vms", "guest", "sid", "resources", "volume", "volid", "archive", "target-vmid"}
)
_VMID: Final = re.compile(r"(?<!\d)[1-9]\d{2,8}(?!\d)")
_HA_RULE: Final = "/cluster/ha/rules/{rule}"


@dataclass
class _Write:
    """Sends a request once, and keeps what Proxmox answers."""

    cluster: Cluster
    request: ApiRequest
    parameters: Values = field(repr=False)
    holder: str  # in whose thread the answer is masked
    result: Any = None

    async def send(self) -> Task | None:
        """Send it; return the task if the answer is one."""
        pve = self.cluster.pve
        data = await pve.raw(self.request.method, self.request.path, **self.parameters)
        if isinstance(data, str) and data.startswith("UPID:"):
            return pve.task(data)
        self.result = await in_key_thread(self.holder, partial(masked, data))
        return None

    async def report(self) -> Mapping[str, Any]:
        """Return the answer of a request without a task."""
        return {} if self.result in (None, "") else {"result": self.result}


async def planned(call: Call, cluster: Cluster, request: ApiRequest) -> Plan:
    """Return the plan of a request that changes something; only reads are sent."""
    await _require_known_node(cluster, request)
    refuse_protecting_tags(call, split_list(str(request.parameters.get("tags", ""))))
    present = await _present(cluster, request)
    if "allow-move" in request.parameters:
        cluster.inventory.invalidate()  # an undo moves guests back to the pool that they are in now
    every = (await cluster.inventory.view()).guests
    before, after = backup_jobs.coverage(request, present, every)
    guests = await _guests(call, cluster, request, present, before | after)
    parameters = dict(request.parameters)
    digest = text_of(present.get("digest"))
    if digest and "digest" in request.endpoint.parameters:
        parameters.setdefault("digest", digest)
    needed, lacking = await privileges.required(cluster, request)
    refused = f"{lacking}, so Proxmox will refuse this." if lacking else ""
    if refused and not call.dry_run:
        hint = "An administrator can grant it to the account in Proxmox."
        raise Precondition(refused, hint=hint)
    asks = f" Proxmox asks for {needed}." if needed else ""
    about = f"{labels(cluster, guests, every)}{asks}"
    loses = _losses(request, guests, before - after)
    reversal = Reversal(cluster, request, present, {row.vmid: row.pool for row in every})
    holder = call.caller.holder

    def described() -> tuple[str, Undo | None]:
        return _described(cluster, request, present, about, loses), reversal.planned()

    # to mask what a hostile host has there takes seconds, and calls of other keys go on
    would, undo = await in_key_thread(holder, described)
    return Plan(
        cluster=cluster,
        would=would,
        others=frozenset(guest.vmid for guest in guests),
        guests=_count(request, guests),
        loses=loses,
        discloses=effects.disclosure(request.endpoint, request.parameters),
        ids={"method": request.method, "path": request.shown_path},
        digest=digest,
        act=(write := _Write(cluster, request, parameters, holder)).send,
        report=write.report,
        undo=undo,
        read_undo=partial(reversal.after, undo) if undo else None,
        needs=(),  # by the schema of the request
        warnings=tuple(filter(None, (refused,))),
    )


def _described(
    cluster: Cluster, request: ApiRequest, present: Mapping[str, Any], about: str, loses: str
) -> str:
    """Return what is done in words; raise BadArgument if a user would not see all of it."""
    words = _in_words(request, present)
    would = f"Send {request.method} {request.shown_path} to {cluster.name}{words}.{about}"
    _require_whole(request, would, loses)
    _require_shown(request, present, would)
    return would


async def _require_known_node(cluster: Cluster, request: ApiRequest) -> None:
    """Raise UnknownName for a node that is none: Proxmox takes `localhost` for any."""
    node = request.path_values.get("node")
    nodes = (await cluster.inventory.view()).by_node
    if node is not None and node not in nodes:
        raise cluster.unknown("node", node, nodes)


async def _guests(
    call: Call, cluster: Cluster, request: ApiRequest, present: Mapping[str, Any], of_job: set[int]
) -> list[GuestResource]:
    """Return the guests that it is about; raise Precondition if a tag protects one of them.

    Those of its object, as it is, count as those that the request names.
    """
    view = await cluster.inventory.view()
    guests = view.by_vmid
    if request.endpoint.path == _HA_RULE and not present:
        raise Precondition(
            f"Which guests {request.shown_path} names is not known: it could not be read.",
            hint="To read it takes Sys.Audit on /.",
        )
    values = [*present.items(), *request.values.items()]
    texts = [str(value) for name, value in values if name in _OF_GUESTS]
    if "replication" in request.endpoint.path:  # the id of a job is the VMID with a number
        texts.append(str(request.values.get("id", "")))
    vmids = {int(number) for text in texts for number in _VMID.findall(text)}
    vmids |= _owners(request) | of_job
    if upid := request.path_values.get("upid"):
        vmids |= guests_of_task(_task(upid), guests)
    vmids |= await volume_owners(
        cluster, effects.storages_of(request.endpoint, request.values, view.storages)
    )
    if effects.is_of_node(request.endpoint):
        node = request.path_values["node"]
        vmids |= {vmid for vmid, guest in guests.items() if guest.node == node}
    about = sorted(vmids & guests.keys())
    for vmid in about:
        await require_no_protected_owner(call, cluster, vmid, "which this is about")
    return [guests[vmid] for vmid in about]


def _owners(request: ApiRequest) -> set[int]:
    """Return the guests whose volumes the request names, in any of its values."""
    lists = (value if isinstance(value, list) else [value] for value in request.values.values())
    return {vmid for values in lists for text in values for vmid in owners(text)}


def _losses(request: ApiRequest, guests: Iterable[GuestResource], uncovered: set[int]) -> str:
    """Return what is lost, in sentences: by the request, its volumes, and a narrower backup job."""
    names = ", ".join(map(str, sorted(uncovered)))
    sentences = (
        effects.loss(request.endpoint, request.parameters),
        _restarted(request, guests),
        _foreign(request, guests),
        f"The job no longer backs up guest {names}." if uncovered else "",
    )
    return " ".join(filter(None, sentences))


def _restarted(request: ApiRequest, guests: Iterable[GuestResource]) -> str:
    """Return a sentence on containers that a move to another node restarts."""
    if not effects.moves_guests(request.endpoint):
        return ""
    running = [guest for guest in guests if guest.type == "lxc" and guest.status != "stopped"]
    names = ", ".join(str(guest.vmid) for guest in running)
    return f"A running container is restarted by its move: {names}." if names else ""


def _foreign(request: ApiRequest, guests: Iterable[GuestResource]) -> str:
    """Return a sentence on volumes of other guests than the one that it is about."""
    about = {int(number) for number in _VMID.findall(str(request.values.get("vmid", "")))}
    others = sorted(_owners(request) & {guest.vmid for guest in guests} - about)
    names = ", ".join(map(str, others))
    return f"It uses volumes of guest {names}, which that guest may use too." if others else ""


def _count(request: ApiRequest, guests: Iterable[GuestResource]) -> int:
    """Return how many writes the request counts as: one for each guest that it acts on."""
    if not effects.is_of_many_guests(request.endpoint):
        return 1
    of_node = effects.is_of_node(request.endpoint)
    return max(1, sum(not of_node or guest.status != "stopped" for guest in guests))


def _task(upid: str) -> Upid:
    """Parse the id of a task in the path; raise BadArgument if it is none."""
    try:
        return Upid.parse(upid)
    except ValueError as error:
        raise BadArgument("path", str(error)) from None


def labels(
    cluster: Cluster, guests: Collection[GuestResource], every: Collection[GuestResource]
) -> str:
    """Return a sentence that names the guests: all of them, or all that are not among many."""
    if not guests:
        return ""
    text = f" Guest {_named(guests)}."
    about = {guest.vmid for guest in guests}
    others = [guest for guest in every if guest.vmid not in about]
    if len(text) <= _MOST_SHOWN // 2 or len(others) > _MOST_EXCEPTIONS:
        return text
    but = f" but {_named(others)}" if others else ""
    return f" Every guest of {cluster.name} ({len(guests):,}){but}."


def _named(guests: Iterable[GuestResource]) -> str:
    return ", ".join(
        f"{guest.vmid} is {shown_name(guest.name) if guest.name else 'without a name'}"
        for guest in guests
    )


async def _present(cluster: Cluster, request: ApiRequest) -> Mapping[str, Any]:
    """Return the present values, by a GET of the same path; empty where there are none."""
    if request.method == "POST":  # of a collection: it has no values of what is new
        return {}
    match = request.schema.find("GET", request.path)
    if match is None or effects.refusal(match[0], {}) or match[0].path != request.endpoint.path:
        return {}
    own = {n: v for n, v in request.parameters.items() if n in match[0].parameters}
    if match[0].check({**request.path_values, **own}):
        return {}
    try:
        return await values_at(cluster, request.path, **own)
    except ResponseError as error:
        cluster.notes.add(f"The present values could not be read: {reason_of(error)}.")
        return {}


def _in_words(request: ApiRequest, present: Mapping[str, Any]) -> str:
    """Return the parameters, old → new where that is known; of a DELETE, what is there now."""
    new = masked({**present, **request.parameters})
    old = masked(present)
    before = {} if request.method == "DELETE" else old  # its parameters are no new values
    parts = [_change(name, before, new[name]) for name in request.parameters]
    removed = str(request.parameters.get("delete", ""))
    parts += [f"{name} {_text(old[name])} → unset" for name in split_list(removed) if name in old]
    words = f": {', '.join(parts)}" if parts else ""
    now = [f"{name} {_text(value)}" for name, value in old.items() if name not in _NAMELESS]
    if request.method == "DELETE" and now:
        words += f"; it is now {', '.join(now)}"
    return words


def _require_shown(request: ApiRequest, present: Mapping[str, Any], would: str) -> None:
    """Raise BadArgument if masking hides a part of what is done, beside values named as secrets.

    The user agrees to what the question shows. Values next to each other may look like a secret
    that neither of them is, so the whole sentence counts.
    """
    values = {**present, **request.parameters}
    shown = masked(values)
    hidden = [
        name
        for name, value in request.parameters.items()
        if shown[name] != value and not is_secret(name, values)
    ]
    if hidden or mask_text(would) != would:
        raise BadArgument(
            "parameters" if request.parameters else "path",
            f"{', '.join(hidden) or 'a part'} looks like a secret, or like a URL with a query. "
            "It would be hidden from the user, who has to see what is done.",
            hint="Give a secret in a parameter that is named so, or make this change in Proxmox.",
        )


def _require_whole(request: ApiRequest, *sentences: str) -> None:
    """Raise BadArgument if a question could not show, or its reader not see, all that is done."""
    if sum(map(len, sentences)) > _MOST_SHOWN or not all(map(is_shown_whole, sentences)):
        raise BadArgument(
            "parameters" if request.parameters else "path",
            "it is too long to be shown to the user as a whole, who has to see what is done.",
            hint="Send fewer at a time, or make this change in Proxmox.",
        )


def _change(name: str, old: Mapping[str, Any], new: Any) -> str:
    is_change = name in old and str(old[name]) != str(new)  # else it may only name the object
    before = f"{_text(old[name])} → " if is_change else ""
    return f"{name} {before}{_text(new, most=None)}"


def _text(value: Any, most: int | None = _OLD) -> str:
    """Return a value in quotes; of a present one, the beginning, and of objects their number."""
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return f"({len(value):,} of them)"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    more = f"… ({len(text) - most} more characters)" if most and len(text) > most else ""
    return f"{quoted(text[:most])}{more}"
