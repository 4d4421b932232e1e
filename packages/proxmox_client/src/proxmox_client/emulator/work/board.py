"""All tasks of a cluster: those that run and those that ended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.work.task import Task

LOG: Final = logging.getLogger(__name__)
STOPPED: Final = "received interrupt"
FORK_SECONDS: Final = 0.02
"""What it takes until a task begins: whoever asks at once finds it running."""


class Job:
    """A task while it is done: it writes its log and spends time."""

    def __init__(self, task: Task, state: ClusterState) -> None:
        self.task = task
        self.state = state

    def log(self, *lines: str) -> None:
        """Write to the task's log."""
        self.task.log.extend(lines)

    def warn(self, text: str) -> None:
        """Write a warning: the task then ends with WARNINGS."""
        self.task.log.append(f"WARN: {text}")
        self.task.warnings += 1

    async def spend(self, seconds: float) -> None:
        """Let the cluster's time pass."""
        await self.state.clock.sleep(seconds)


Work = Callable[[Job], Awaitable[None]]


class TaskBoard:
    """Starts tasks, remembers them and stops them."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, node: str, type_: str, id_: str, user: str, work: Work) -> str:
        """Begin a task; the answer is its UPID."""
        task = self._state.note_task(node, type_, id_, user, int(self._state.now))
        self._state.write_log(node, user, f"starting task {task.upid}")
        running = asyncio.create_task(self._run(task, work))
        self._running[task.upid] = running
        running.add_done_callback(lambda _: self._running.pop(task.upid, None))
        return task.upid

    def find(self, upid: str) -> Task | None:
        """The task of this name."""
        return self._state.tasks.get(upid)

    def all(self) -> Iterator[Task]:
        """Every task, the newest first."""
        return iter(sorted(self._state.tasks.values(), key=lambda task: (-task.started, -task.pid)))

    def on(self, node: str) -> list[Task]:
        """The tasks of a node, the newest first."""
        return [task for task in self.all() if task.node == node]

    def stop(self, task: Task) -> None:
        """Interrupt a task that runs."""
        if running := self._running.get(task.upid):
            task.stopping = True
            running.cancel()

    def lose(self, node: str) -> None:
        """The node is gone and its tasks with it."""
        for task in self.on(node):
            if task.running:
                task.outcome = "unexpected status"
                self.stop(task)

    async def settle(self) -> None:
        """Wait until no task runs."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stop everything that runs."""
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, task: Task, work: Work) -> None:
        try:
            await self._state.clock.sleep(FORK_SECONDS)
            await work(Job(task, self._state))
        except (TaskFailed, ApiError) as problem:
            self._end(task, str(problem))
        except Exception as problem:
            # A mistake of the emulator's own: said aloud, and the task ends all the same
            LOG.exception("%s went wrong", task.upid)
            self._end(task, f"the emulator made a mistake: {problem!r}")
        except asyncio.CancelledError:
            self._end(task, task.outcome or STOPPED)
            if not task.stopping:
                raise
        else:
            self._end(task, f"WARNINGS: {task.warnings}" if task.warnings else "OK")

    def _end(self, task: Task, outcome: str) -> None:
        task.finish(outcome, self._state.now)
        self._state.write_log(task.node, task.user, f"end task {task.upid}: {outcome}")
