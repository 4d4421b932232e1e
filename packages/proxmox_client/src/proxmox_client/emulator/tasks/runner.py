"""The task runner of a cluster: starts, stops and finds tasks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.task import KILLED, Task

LOG: Final = logging.getLogger(__name__)
START_DELAY: Final = 0.02
"""Seconds before a task begins its work: a client that polls at once finds it running."""


class TaskContext:
    """What a task function gets: the task, the state, the log and the clock."""

    def __init__(self, task: Task, state: ClusterState) -> None:
        self.task = task
        self.state = state

    def log(self, *lines: str) -> None:
        """Write lines to the task's log."""
        self.task.log.extend(lines)

    def warn(self, text: str) -> None:
        """Write a warning to the log; the task then ends with WARNINGS."""
        self.task.log.append(f"WARN: {text}")
        self.task.warnings += 1

    async def spend(self, seconds: float) -> None:
        """Wait for this much of the cluster's time."""
        await self.state.clock.sleep(seconds)


TaskFunction = Callable[[TaskContext], Awaitable[None]]
"""The work of a task; it raises TaskFailed or ApiError with the outcome of a failure."""


class TaskRunner:
    """The running and finished tasks of a cluster."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, node: str, type_: str, id_: str, user: str, work: TaskFunction) -> str:
        """Start a task and return its UPID."""
        task = self._state.add_task(node, type_, id_, user, int(self._state.now))
        self._state.write_log(node, user, f"starting task {task.upid}")
        running = asyncio.create_task(self._run(task, work))
        self._running[task.upid] = running
        running.add_done_callback(lambda _: self._running.pop(task.upid, None))
        return task.upid

    def find(self, upid: str) -> Task | None:
        """Return the task of a UPID, or None."""
        return self._state.tasks.get(upid)

    def all(self) -> Iterator[Task]:
        """List all tasks, the newest first."""
        return iter(sorted(self._state.tasks.values(), key=lambda task: (-task.started, -task.pid)))

    def on(self, node: str) -> list[Task]:
        """List the tasks of a node, the newest first."""
        return [task for task in self.all() if task.node == node]

    def stop(self, task: Task) -> None:
        """Stop a running task; one that has ended stays as it is."""
        if running := self._running.get(task.upid):
            task.stopping = True
            running.cancel()
        elif task.running:  # of the scenario: no work to cancel
            self._finish(task, KILLED)

    def kill_on(self, node: str) -> None:
        """Kill all tasks of a node that failed."""
        for task in self.on(node):
            if task.running:
                self.stop(task)

    async def settle(self) -> None:
        """Wait until no task is running, including tasks started in the meantime."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancel all running tasks."""
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, task: Task, work: TaskFunction) -> None:
        try:
            await self._state.clock.sleep(START_DELAY)
            await work(TaskContext(task, self._state))
        except (TaskFailed, ApiError) as problem:
            self._finish(task, str(problem))
        except Exception as problem:
            # A bug of the emulator: log it; a task that never ends would block its clients
            LOG.exception("%s went wrong", task.upid)
            self._finish(task, f"the emulator made a mistake: {problem!r}")
        except asyncio.CancelledError:
            self._finish(task, KILLED)
            if not task.stopping:
                raise
        else:
            self._finish(task, f"WARNINGS: {task.warnings}" if task.warnings else "OK")

    def _finish(self, task: Task, outcome: str) -> None:
        task.finish(outcome, self._state.now)
        self._state.write_log(task.node, task.user, f"end task {task.upid} {outcome}")
