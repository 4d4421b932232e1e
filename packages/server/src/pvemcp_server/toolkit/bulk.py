"""Bulk writes: one call on many guests, planned together, confirmed once, carried out in parallel.

A tool's function plans the write on one guest. Declared with `BulkLimits` the tool takes `vmids`,
or a query that becomes `vmids` (`pipeline/selection.py`), and the pipeline gets a BulkPlan for
several: a guest whose plan is refused becomes a row with its reason, and the others go on. No
failure stops the rest, unless the caller asks for that: the guests are independent of each other.
Tasks are followed then, since their ends decide about the rest.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, Final

from proxmox_client import TaskFailed
from pvemcp_server.audit.mask import mask_text
from pvemcp_server.clusters import Cluster, Notes, outcome_of
from pvemcp_server.errors import CallError, Precondition
from pvemcp_server.toolkit.call import Call, Conversation, Decision
from pvemcp_server.toolkit.needs import RequiredPrivilege
from pvemcp_server.toolkit.plan import Plan, lines
from pvemcp_server.toolkit.room import room_for_several
from pvemcp_server.toolkit.write_target import require_same_guest, writable_cluster

_PLANNED_AT_ONCE: Final = 8
_SHARE_OF_PLANS: Final = 0.9  # of the call's time: a guest that does not answer costs itself only
_REASON: Final = 600  # characters of a row's error
_REASONS: Final = 3_000  # characters of all reasons where they are one text
_SUBJECT: Final = "\0"  # stands for the guest where sentences are compared
_REPEAT: Final = "Repeat the call for this guest."
_UNSENT: Final = "Not sent: the call ended before."
_OPEN: Final = "Sent, and the call did not wait for its end."


@dataclass(frozen=True, slots=True)
class BulkLimits:
    """How many guests a write is carried out on at once, while their tasks are followed."""

    per_node: int
    per_storage: int | None = None  # of the storage that the tasks fill
    strict: bool = False
    """Follow the tasks whatever the call says, and send nothing that gets no place within the wait.

    Else the rest is sent at once when the wait is over, and everything without a wait."""


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """The plans of a write on several guests, by VMID, and why others have none."""

    cluster: Cluster
    plans: Mapping[int, Plan]
    refused: Mapping[int, str]
    limits: BulkLimits
    notes: Mapping[int, Notes]  # of each guest; a report after the write adds to them
    stop_at_failure: bool = False  # send nothing more once a write has failed
    advice: Sequence[str] = ()  # what to know about all of it before
    room: str = ""  # what nodes and storages have free for several of the guests

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The single writes: one for each guest."""
        return tuple(self.plans.values())

    @property
    def vmids(self) -> frozenset[int]:
        """The guests that it is about."""
        return frozenset[int]().union(*(plan.vmids for plan in self.parts))

    @property
    def needs(self) -> tuple[RequiredPrivilege, ...] | None:
        """Privileges for the plans' arguments; None: the tool's."""
        own = [plan.needs for plan in self.plans.values() if plan.needs is not None]
        return tuple({need: None for needs in own for need in needs}) if own else None

    @property
    def digest(self) -> str:
        """Those of all configurations that it was made from."""
        digests = {vmid: plan.digest for vmid, plan in self.plans.items() if plan.digest}
        return " ".join(f"{vmid}:{digest}" for vmid, digest in digests.items())

    @property
    def needs_consent(self) -> bool:
        """Whether the user has to agree to any of the plans."""
        return any(plan.needs_consent for plan in self.plans.values())

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is done to which guests, what that loses and discloses, and what to know before.

        Every guest is named. What is the same for several is said once.
        """
        plans = self.plans
        left_out = f"Refused, so left out: {_list(self.refused)}." if self.refused else ""
        texts = (
            *_actions(self.cluster.name, plans.values()),
            *_shared({vmid: [plan.loses] for vmid, plan in plans.items()}),
            *_shared({vmid: [plan.discloses] for vmid, plan in plans.items()}),
            *self.warnings,
            left_out,
        )
        return tuple(line for text in texts for line in lines(text))

    @property
    def sentence(self) -> str:
        """The question to the user, and the text of a dry run."""
        return " ".join(self.sentences)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Facts to know before, each with the guests that it is about, and those about all."""
        own = _shared({vmid: plan.warnings for vmid, plan in self.plans.items()})
        return (*own, *self.advice)

    def preview(self) -> dict[str, Any]:
        """Return the answer of a dry run; nothing was changed."""
        room = [self.room] if self.room else []
        room += _shared({vmid: [plan.room] for vmid, plan in self.plans.items()})
        refused = [{"vmid": vmid, "error": reason} for vmid, reason in self.refused.items()]
        return {
            "dry_run": True,
            "vmids": list(self.plans),
            "would": self.sentence,
            **({"room": " ".join(room)} if room else {}),
            **({"refused": refused} if refused else {}),
        }

    def advised(self, advice: Sequence[str]) -> "BulkPlan":
        """Return the same plans with more to know before."""
        return replace(self, advice=(*self.advice, *advice))

    def checked(self, check: Callable[[Plan], Awaitable[None]]) -> "BulkPlan":
        """Return the same plans, each of which awaits `check` right before it is sent."""
        return replace(self, plans={v: plan.checked(check) for v, plan in self.plans.items()})

    async def carry_out(self, call: Call) -> dict[str, Any]:
        """Send each write once and return a row per guest; raise CallError if none was done.

        A guest keeps its place on its node and storage until its task ends, if the caller waits
        for that: all within one wait, after which the rest is sent without waiting.
        """
        for warning in self.warnings:
            call.notes.add(warning)
        call.failures.update(self.refused)
        writes = _Writes(self, call)
        try:
            rows = await asyncio.gather(*(writes.row(*each) for each in self.plans.items()))
        except asyncio.CancelledError:
            writes.note_unfinished(self.plans)
            raise
        for note in _shared(self.notes):
            call.notes.add(note)
        if not any(each["success"] for each in rows):
            raise CallError(f"It succeeded on no guest. {by_reason(call.failures)}")
        left_out = [
            {"vmid": vmid, "success": False, "error": reason}
            for vmid, reason in self.refused.items()
        ]
        done = all(each["success"] for each in (*rows, *left_out))
        return {"success": done, "results": sorted([*rows, *left_out], key=lambda r: r["vmid"])}


class _Writes:
    """The writes of a bulk call: each is sent once, when it has places on its node and storage."""

    def __init__(self, bulk: BulkPlan, call: Call) -> None:
        self._call, self._limits = call, bulk.limits
        self._stop_at_failure = bulk.stop_at_failure
        self._follows = bulk.limits.strict or bulk.stop_at_failure  # whatever the call says
        self._wait_ends = monotonic() + call.task_wait_seconds
        self._progress = _Progress(call.conversation, len(bulk.plans))
        self._nodes = _places(bulk.limits.per_node)
        self._storages = _places(bulk.limits.per_storage)
        self._sent, self._failed, self._done = list[int](), list[int](), set[int]()

    async def row(self, vmid: int, plan: Plan) -> dict[str, Any]:
        """Send the write of a guest and return its row."""
        node = plan.guest.node if plan.guest else ""
        known = {*plan.ids, "ok"}  # the same in every row, and the same as its success
        async with self._nodes(node), self._storages(plan.storage):
            if reason := self._obstacle():
                return _failure(self._call, vmid, reason)
            self._sent.append(vmid)
            own = replace(
                self._call,
                conversation=_GuestConversation(self._progress, vmid),
                wait=self._call.wait or self._follows,
                wait_ends=self._wait_ends,
            )
            outcome = await outcome_of(self._send(plan, own), f"guest {vmid}")
            if isinstance(outcome, Exception):
                self._failed.append(vmid)  # before the next one gets the place
        if isinstance(outcome, Exception):
            upid = str(outcome.upid) if isinstance(outcome, TaskFailed) else ""
            return _failure(self._call, vmid, await _reason(self._call, outcome), upid)
        self._done.add(vmid)
        return {"vmid": vmid, **{k: v for k, v in outcome.items() if k not in known}}

    async def _send(self, plan: Plan, call: Call) -> dict[str, Any]:
        """Send a write; look at its guest again if it has waited for the tasks of others."""
        if plan.guest and call.wait and (self._done or self._failed):
            await require_same_guest(call, plan.guest)
        return await plan.send(call)

    def note_unfinished(self, vmids: Iterable[int]) -> None:
        """Note for the audit whether each write without a row was sent, once all have stopped."""
        for vmid in vmids:
            if vmid not in self._done:
                self._call.failures.setdefault(vmid, _OPEN if vmid in self._sent else _UNSENT)

    def _obstacle(self) -> str:
        """Return why nothing more may be sent; empty if it may."""
        if self._call.closing.is_set():
            return f"Not sent: the server is shutting down. {_REPEAT}"
        if self._failed and self._stop_at_failure:
            return f"Not sent: guest {self._failed[0]} failed before."
        is_late = monotonic() > self._wait_ends and len(self._sent) >= self._limits.per_node
        if self._follows and is_late:
            return f"Not sent: the longest wait for tasks is over. {_REPEAT}"
        return ""


def planned_for_each(
    plan_one: Callable[..., Awaitable[Any]], limits: BulkLimits
) -> Callable[..., Awaitable[Plan | BulkPlan]]:
    """Return the function of a tool that takes `vmids` from one that plans for `vmid`.

    Its argument `query` has become `vmids` by then.
    """

    async def plan_all(
        call: Call,
        *,
        vmids: list[int],
        cluster_name: str | None,
        stop_at_failure: bool,
        **arguments: Any,
    ) -> Plan | BulkPlan:
        if len(vmids) == 1:
            plan: Plan = await plan_one(call, cluster_name=cluster_name, vmid=vmids[0], **arguments)
            return plan
        cluster = await writable_cluster(call, cluster_name, vmids=vmids)
        each = partial(plan_one, cluster_name=cluster.name, **arguments)
        bulk = await _plan_all(call, cluster, each, vmids, limits)
        return replace(bulk, stop_at_failure=stop_at_failure)

    return plan_all


async def _plan_all(
    call: Call,
    cluster: Cluster,
    plan_one: Callable[..., Awaitable[Plan]],
    vmids: list[int],
    limits: BulkLimits,
) -> BulkPlan:
    """Return the plans for all guests, made at once; raise Precondition if every one is refused."""

    async def plan(own: Call, vmid: int) -> Plan:
        return await plan_one(own, vmid=vmid)

    plans, refused, notes = await plan_each(call, plan, vmids)
    if not plans:
        raise Precondition(f"Refused for every guest. {by_reason(refused)}")
    room = await _room(cluster, list(plans.values()))
    return BulkPlan(cluster, plans, refused, limits, notes, room=room)


async def _room(cluster: Cluster, plans: Collection[Plan]) -> str:
    """Return the room on nodes and storages that get several guests: each may fit alone."""
    by_node: dict[str, list[int]] = {}
    for plan in plans:
        if plan.runs_on and plan.guest:
            by_node.setdefault(plan.runs_on, []).append(plan.guest.status.memory_max or 0)
    several = {node: sum(sizes) for node, sizes in by_node.items() if len(sizes) > 1}
    takes = [plan.takes for plan in plans]
    return room_for_several(await cluster.inventory_view(), several, takes)


async def plan_each(
    call: Call, plan_one: Callable[[Call, int], Awaitable[Plan]], vmids: Collection[int]
) -> tuple[dict[int, Plan], dict[int, str], dict[int, Notes]]:
    """Return the plans made, the reasons of the refused ones, and the notes of each guest.

    The notes are also added to the call, those about several guests once.
    """
    places = asyncio.Semaphore(_PLANNED_AT_ONCE)
    until = asyncio.get_running_loop().time() + call.seconds_left * _SHARE_OF_PLANS
    notes = {vmid: Notes() for vmid in vmids}

    async def plan(vmid: int) -> Plan:
        async with places, asyncio.timeout_at(until):
            return await plan_one(replace(call, notes=notes[vmid]), vmid)

    outcomes = await asyncio.gather(*(outcome_of(plan(v), f"guest {v}") for v in vmids))
    plans, refused = dict[int, Plan](), dict[int, str]()
    for vmid, outcome in zip(vmids, outcomes, strict=True):
        if isinstance(outcome, Exception):
            refused[vmid] = await _reason(call, outcome)
        else:
            plans[vmid] = outcome
    for note in _shared(notes):
        call.notes.add(note)
    return plans, refused, notes


async def _reason(call: Call, error: Exception) -> str:
    return mask_text(" ".join((await call.explain(error)).split()))[:_REASON]


def _failure(call: Call, vmid: int, reason: str, upid: str = "") -> dict[str, Any]:
    """Return the row of a guest that was not changed, and remember it for the audit."""
    call.failures[vmid] = reason
    return {"vmid": vmid, "success": False, **({"upid": upid} if upid else {}), "error": reason}


def _places(most: int | None) -> Callable[[str], AbstractAsyncContextManager[Any]]:
    """Return a function from a name to the semaphore of its places; no name has no limit."""
    places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(most or 1))
    return lambda name: places[name] if name and most else nullcontext()


def _actions(cluster: str, plans: Iterable[Plan]) -> list[str]:
    """Return the plans' sentences; those that differ in their guest only as one with a list."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        label = plan.guest.label if plan.guest else plan.would
        groups.setdefault(plan.would.replace(label, _SUBJECT), []).append(plan)
    sentences = []
    for sentence, group in groups.items():
        if len(group) == 1:
            sentences.append(group[0].would)
            continue
        common = sentence.replace(_SUBJECT, f"each of {len(group)} guests on {cluster}")
        names = _list(plan.guest.short_label for plan in group if plan.guest)
        sentences.append(f"{common} These are {names}.")
    return sentences


def _shared(texts: Mapping[int, Iterable[str]]) -> list[str]:
    """Return each text once; one that is not about all guests with the VMIDs it is about."""
    vmids: dict[str, list[int]] = {}
    for vmid, own in texts.items():
        for text in filter(None, own):
            vmids.setdefault(text, []).append(vmid)
    return [
        text if len(about) == len(texts) else f"{text.removesuffix('.')} ({_list(about)})."
        for text, about in vmids.items()
    ]


def by_reason(reasons: Mapping[int, str]) -> str:
    """Return the reasons of failures, each once, after the VMIDs that have it."""
    vmids: dict[str, list[int]] = {}
    for vmid, reason in reasons.items():
        vmids.setdefault(reason, []).append(vmid)
    most = _REASONS // max(1, len(vmids))  # every guest is named, however long the reasons are
    return " ".join(f"{_list(about)}: {reason[:most]}" for reason, about in vmids.items())


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


@dataclass(slots=True)
class _Progress:
    """The progress of all guests together, as one that only increases."""

    conversation: Conversation
    guests: int
    percent: dict[int, float] = field(default_factory=dict)
    sent: float = 0.0

    async def report(self, vmid: int, done: float, message: str) -> None:
        self.percent[vmid] = done
        mean = sum(self.percent.values()) / self.guests
        value = min(max(mean, round(self.sent + 0.01, 2)), 99.99)
        if value > self.sent:
            self.sent = value
            await self.conversation.progress(value, 100.0, f"{vmid}: {message}")


@dataclass(frozen=True, slots=True)
class _GuestConversation:
    """The conversation of one guest's write: its progress is a part of the whole."""

    whole: _Progress
    vmid: int

    @property
    def client(self) -> str:
        return self.whole.conversation.client

    @property
    def wants_progress(self) -> bool:
        return self.whole.conversation.wants_progress

    async def progress(self, done: float, _total: float | None, message: str) -> None:
        """Report the progress of this guest's task."""
        await self.whole.report(self.vmid, done, message)

    async def ask(self, _question: str, _beside: str = "", _digest: str = "") -> Decision:
        """Return CANNOT_ASK: the user has agreed before."""
        return Decision.CANNOT_ASK
