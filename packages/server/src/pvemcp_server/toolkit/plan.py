"""Writes: checked first, described in a sentence, then sent; the task is followed to its end.

A write tool only reads, and answers with a Plan. The pipeline shows the plan's sentence (in a dry
run, or when it asks the user to confirm) and only then calls `carry_out`. A write on many guests
is a BulkPlan (`toolkit/bulk.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any, Final, Self

from proxmox_client import (
    DeadlineExceeded,
    NodeUnreachable,
    ProxmoxError,
    Task,
    TaskFailed,
    TlsError,
    UnexpectedAnswer,
    Unreachable,
)
from pvemcp_server.clusters import Cluster, explain, reason_of
from pvemcp_server.errors import Unanswered
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.needs import RequiredPrivilege
from pvemcp_server.toolkit.past_tasks import PastTasks
from pvemcp_server.toolkit.room import Space
from pvemcp_server.toolkit.task_wait import follow
from pvemcp_server.toolkit.undo import Undo
from pvemcp_server.toolkit.write_target import TargetGuest

_LINE: Final = 500  # characters: a question shows the first 600 of each sentence


def lines(text: str) -> list[str]:
    """Return a sentence in pieces that no question shortens; joined by blanks they are the same.

    None of many arguments is pushed out of the question then; a long word still is shortened.
    """
    return wrap(text, _LINE, break_long_words=False, break_on_hyphens=False)


def is_shown_whole(text: str) -> bool:
    """Return whether a question shows all of a sentence: no word of it is too long."""
    return all(len(line) <= _LINE for line in lines(text))


@dataclass(frozen=True, slots=True)
class ConfirmedRead:
    """A read that the user has to agree to first; it changes nothing."""

    cluster: Cluster
    would: str  # a sentence with the verb first: "Read /etc/hostname in qemu 101 (web) on lab."
    read: Callable[[], Awaitable[Mapping[str, Any]]]  # returns the answer
    discloses: str
    digest: str = ""  # it changes no configuration

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it reads and to whom that is shown."""
        return (self.would, self.discloses)

    async def carry_out(self, _call: Call) -> dict[str, Any]:
        """Return the answer."""
        return dict(await self.read())


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked write: its description, what it loses, and the call that carries it out."""

    cluster: Cluster
    would: str  # a sentence with the verb first: "Delete snapshot 'x' of qemu 101 (web) on lab."
    ids: Mapping[str, Any]  # fields of the answer beside success and upid
    act: Callable[[], Awaitable[Task | None]]  # sends it; the task where Proxmox starts one
    loses: str = ""  # a sentence on what cannot be restored; empty when nothing is lost
    discloses: str = ""  # a sentence on what a third party learns; empty when nothing is sent
    warnings: tuple[str, ...] = field(default=())  # facts to know before, no reason to refuse
    report: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    """Reads further fields of the answer after a write without a task."""
    needs: tuple[RequiredPrivilege, ...] | None = None  # of these arguments; None: the tool's
    room: str = ""  # what the target has free at the moment: for the dry run only
    progress: str = ""  # of the task that it is about: beside the question, as it goes on
    takes: tuple[Space, ...] = ()  # on storages, likewise
    runs_on: str = ""  # the node on which the guest runs then, and did not before
    guest: TargetGuest | None = None  # the one that it is about
    others: frozenset[int] = frozenset()  # further guests that it is about
    guests: int = 1  # that one request is about: each counts as a write where data is lost
    digest: str | None = None
    """Of the configuration that it was made from: if that changes, a consent does not count."""
    past: PastTasks | None = None  # say how long it takes: for the dry run only
    storage: str = ""  # the one that the task fills, where that bounds how many run at once
    undo: Undo | None = None  # where it is known before
    read_undo: Callable[[], Awaitable[Undo | None]] | None = None
    """Reads, when it has ended well, how it is undone and what it left; None if nothing does."""
    # the outcome as fields of the answer: of the task, and of steps after it
    finish: Callable[[Call, Task], Awaitable[dict[str, Any]]] = follow

    @property
    def parts(self) -> "tuple[Plan, ...]":
        """The single writes: itself."""
        return (self,)

    @property
    def vmids(self) -> frozenset[int]:
        """The guests that it is about; one that it makes is none of them."""
        return self.others | ({self.guest.vmid} if self.guest else frozenset())

    @property
    def storages(self) -> frozenset[str]:
        """The storages that it writes to, as its fields name them."""
        named = (self.storage, self.ids.get("storage"), self.ids.get("target_storage"))
        return frozenset(filter(None, named))

    @property
    def needs_consent(self) -> bool:
        """Whether the user has to agree before it is carried out, whatever its tool's effect."""
        return bool(self.loses or self.discloses)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it does, what it loses and discloses, and what to know before."""
        return tuple(filter(None, (self.would, self.loses, self.discloses, *self.warnings)))

    @property
    def sentence(self) -> str:
        """The question to the user, and the text of a dry run."""
        return " ".join(self.sentences)

    def preview(self) -> dict[str, Any]:
        """Return the answer of a dry run; nothing was changed."""
        figures = {"room": self.room, "progress": self.progress}
        known = {name: text for name, text in figures.items() if text}
        return {"dry_run": True, **self.ids, "would": self.sentence, **known}

    def advised(self, advice: Sequence[str]) -> Self:
        """Return the same plan with more to know before."""
        return replace(self, warnings=(*self.warnings, *advice))

    def checked(self, check: Callable[[Self], Awaitable[None]]) -> Self:
        """Return the same plan, which awaits `check` right before it is sent."""

        async def act() -> Task | None:
            await check(self)
            return await self.act()

        return replace(self, act=act)

    async def carry_out(self, call: Call) -> dict[str, Any]:
        """Send the write and return the answer, with the outcome if the caller waits for it."""
        for warning in self.warnings:
            call.notes.add(warning)
        return await self.send(call)

    async def send(self, call: Call) -> dict[str, Any]:
        """Send the write and follow its task; the answer has its outcome if the caller waits.

        The write is sent once, never retried. Raise Unanswered when no usable answer came back,
        since Proxmox may have carried it out; a TLS error is raised as it is, because nothing was
        sent. The inventory is invalidated in either case, also after an error: Proxmox may have
        begun.
        """
        try:
            task = await self.act()
        except TlsError:
            raise
        except (Unreachable, NodeUnreachable, DeadlineExceeded, UnexpectedAnswer) as error:
            raise Unanswered(explain(error, self.cluster.account)) from error
        finally:
            self.cluster.changed()
        answer: dict[str, Any] = {"success": True, **self.ids}
        if task is None:
            answer |= await self._reported()
        else:
            call.upids.append(task.upid.text)
            try:
                answer |= {"upid": task.upid.text} | await self.finish(call, task)
            except TaskFailed:
                raise
            except (ProxmoxError, asyncio.CancelledError):  # the task goes on
                if self.undo:
                    call.undos.append(self.undo)
                raise
            finally:
                self.cluster.changed()
        is_done = task is None or bool(answer.get("ok"))
        if self.undo and (undo := await self._undo_after(self.undo, is_done=is_done)):
            call.undos.append(undo)
        return answer

    async def _undo_after(self, planned: Undo, *, is_done: bool) -> Undo | None:
        """Return how it is undone, as far as what it left can be read by now."""
        if self.read_undo is None or not is_done:
            return planned
        try:
            return await self.read_undo()
        except ProxmoxError:
            return planned

    async def _reported(self) -> Mapping[str, Any]:
        """Return the state after the write, as far as it can be read: the write itself is done."""
        if self.report is None:
            return {}
        try:
            return await self.report()
        except ProxmoxError as error:
            self.cluster.notes.add(
                f"It is done, and the state after it could not be read: {reason_of(error)}."
            )
            return {}
