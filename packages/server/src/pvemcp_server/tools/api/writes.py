"""Requests to Proxmox's API that change something, as plans."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxmox_client import ResponseError, Task
from pvemcp_server.clusters import Cluster, reason_of
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.write_target import require_no_protected_owner
from pvemcp_server.tools.api import effects, privileges
from pvemcp_server.tools.api.masking import masked
from pvemcp_server.tools.api.request import ApiRequest, Values, schema_of

_OLD: Final = 200  # characters of a present value
_MOST_SHOWN: Final = 12  # present values of what is deleted
_NAMELESS: Final = frozenset({"digest"})
# Parameters that name guests: a guest that a tag protects refuses every write
_OF_GUESTS: Final = frozenset(
    {"vmid", "vms", "guest", "sid", "resources", "volume", "volid", "archive", "target-vmid"}
)
_VMID: Final = re.compile(r"(?<!\d)[1-9]\d{2,8}(?!\d)")
_OF_ALL_GUESTS: Final = re.compile(r"POST /nodes/\{node\}/status")


@dataclass
class _Write:
    """Sends a request once, and keeps what Proxmox answers."""

    cluster: Cluster
    request: ApiRequest
    parameters: Values = field(repr=False)
    result: Any = None

    async def send(self) -> Task | None:
        """Send it; return the task if the answer is one."""
        pve = self.cluster.pve
        data = await pve.raw(self.request.method, self.request.path, **self.parameters)
        if isinstance(data, str) and data.startswith("UPID:"):
            return pve.task(data)
        self.result = masked(data)
        return None

    async def report(self) -> Mapping[str, Any]:
        """Return the answer of a request without a task."""
        return {} if self.result in (None, "") else {"result": self.result}


async def planned(call: Call, cluster: Cluster, request: ApiRequest) -> Plan:
    """Return the plan of a request that changes something; only reads are sent."""
    guests = await _guests(call, cluster, request)
    present = await _present(cluster, request)
    parameters = dict(request.parameters)
    if "digest" in request.endpoint.parameters and isinstance(present.get("digest"), str):
        parameters.setdefault("digest", present["digest"])
    needed, lacking = await privileges.required(cluster, request)
    refused = f"{lacking}, so Proxmox will refuse this." if lacking else ""
    if refused and not call.dry_run:
        hint = "An administrator can grant it to the account in Proxmox."
        raise Precondition(refused, hint=hint)
    asks = f" Proxmox asks for {needed}." if needed else ""
    return Plan(
        cluster=cluster,
        would=f"Send {request.method} {request.shown_path} to {cluster.name}"
        f"{_in_words(request, present)}.{guests}{asks}",
        loses=effects.loss(request.endpoint, request.parameters),
        discloses=effects.disclosure(request.endpoint, request.parameters),
        ids={"method": request.method, "path": request.shown_path},
        act=(write := _Write(cluster, request, parameters)).send,
        report=write.report,
        needs=(),  # by the schema of the request
        warnings=tuple(filter(None, (refused,))),
    )


async def _guests(call: Call, cluster: Cluster, request: ApiRequest) -> str:
    """Return a sentence that names the guests; raise Precondition if a tag protects one of them."""
    guests = (await cluster.inventory.view()).by_vmid
    texts = [str(value) for name, value in request.values.items() if name in _OF_GUESTS]
    if "replication" in request.endpoint.path:  # the id of a job is the VMID with a number
        texts.append(str(request.values.get("id", "")))
    vmids = {int(number) for text in texts for number in _VMID.findall(text)}
    named = sorted(vmids & guests.keys())
    affected = set(named)
    if _OF_ALL_GUESTS.fullmatch(f"{request.method} {request.endpoint.path}"):
        node = request.path_values["node"]
        affected |= {vmid for vmid, guest in guests.items() if guest.node == node}
    for vmid in sorted(affected):
        await require_no_protected_owner(call, cluster, vmid, "which this is about")
    labels = [f"{vmid} is {guests[vmid].name or 'without a name'}" for vmid in named[:_MOST_SHOWN]]
    return f" Guest {', '.join(labels)}." if labels else ""


async def _present(cluster: Cluster, request: ApiRequest) -> Mapping[str, Any]:
    """Return the present values, by a GET of the same path; empty where there are none."""
    if request.method == "POST":  # of a collection: it has no values of what is new
        return {}
    schema = await schema_of((await cluster.pve.version()).release)
    match = schema.find("GET", request.path)
    if match is None or effects.refusal(match[0], {}) or match[0].path != request.endpoint.path:
        return {}
    own = {n: v for n, v in request.parameters.items() if n in match[0].parameters}
    if match[0].check({**request.path_values, **own}):
        return {}
    try:
        data = await cluster.pve.raw("GET", request.path, **own)
    except ResponseError as error:
        cluster.notes.add(f"The present values could not be read: {reason_of(error)}.")
        return {}
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    return data if isinstance(data, Mapping) else {}


def _in_words(request: ApiRequest, present: Mapping[str, Any]) -> str:
    """Return the parameters, old → new where that is known; of a DELETE, what is there now."""
    new = masked({**present, **request.parameters})
    old = masked(present)
    parts = [_change(name, old, new[name]) for name in request.parameters]
    removed = str(request.parameters.get("delete", ""))
    parts += [f"{name} {_text(old[name])} → unset" for name in _names(removed) if name in old]
    words = f": {', '.join(parts)}" if parts else ""
    if request.method == "DELETE" and (now := list(_scalars(old))):
        more = " …" if len(now) > _MOST_SHOWN else ""
        words += f"; it is now {', '.join(now[:_MOST_SHOWN])}{more}"
    return words


def _change(name: str, old: Mapping[str, Any], new: Any) -> str:
    before = f"{_text(old[name])} → " if name in old else ""
    return f"{name} {before}{_text(new, most=None)}"


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[,; ]+", text) if name]


def _scalars(values: Mapping[str, Any]) -> Iterable[str]:
    for name, value in values.items():
        if name not in _NAMELESS and isinstance(value, str | int | float):
            yield f"{name} {_text(value)}"


def _text(value: Any, most: int | None = _OLD) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return repr(text if most is None or len(text) <= most else f"{text[:most]}…")
