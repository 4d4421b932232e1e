"""Several server processes on one port: `pvemcp serve --workers N`.

The parent opens the listening sockets and passes them on, so all workers accept from the same
queues: when one ends, no connection is lost. With a socket for each (SO_REUSEPORT) those in the
queue of a worker that ends would be reset. Uvicorn's own supervisor runs a bare `uvicorn.Server`;
ours drains, and its workers are retired one by one.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from pvemcp_server.cli import logs
from pvemcp_server.cli.deferred_gc import deferred_gc
from pvemcp_server.cli.listener import Listener
from pvemcp_server.cli.state import open_state
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.http.signals import RETIRE

READY: Final = b"ready\n"  # written by a worker once it answers requests
START_SECONDS: Final = 60.0
STABLE_SECONDS: Final = 10.0  # a worker that ends earlier is started again after a pause
LONGEST_PAUSE: Final = 30.0
log = logging.getLogger(__name__)


def check_workers(config: Config, number: int) -> None:
    """Raise ConfigError if so many workers cannot serve this state.

    Limits that hold for all processes, and messages of sessions between them, need PostgreSQL; one
    process on SQLite serves 500 clients.
    """
    if number > 1 and not config.database.startswith("postgresql"):
        raise ConfigError(
            f"{number} workers need PostgreSQL, which their limits and sessions share. Set "
            "PVEMCP_DATABASE_URL, or serve with one worker."
        )
    if number > 1 and RETIRE is None:
        raise ConfigError("This system runs one worker only; several need Linux or another Unix.")


class Workers:
    """The worker processes, each started again when it dies.

    SIGTERM and SIGINT stop all, as they stop a single server. SIGHUP replaces one after the other:
    a new one answers before the old one ends.
    """

    def __init__(self, listener: Listener, number: int) -> None:
        self._listener = listener
        self._number = number
        self._workers: list[Process] = []
        self._stopping = asyncio.Event()
        self._replacing = asyncio.Lock()

    async def run(self, announce: Callable[[], Awaitable[Any]]) -> None:
        """Serve until stopped; raise ConfigError if the workers do not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        reload: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(
            signal.SIGHUP, lambda: reload.add(asyncio.create_task(self._replace_all()))
        )
        try:
            async with self._replacing:  # SIGHUP replaces none before all are there
                started = await asyncio.gather(
                    *map(self._start, range(self._number)), return_exceptions=True
                )
            for each in started:
                if isinstance(each, OSError):
                    raise ConfigError(f"A worker cannot be started: {each.strerror}.") from each
                if isinstance(each, BaseException):
                    raise each
            # by place: they were added in the order in which their processes were made
            self._workers = [each for each in started if isinstance(each, Process)]
            if not self._stopping.is_set():
                await announce()
            async with asyncio.TaskGroup() as tasks:
                for place in range(self._number):
                    tasks.create_task(self._keep(place))
        finally:
            self._signal(signal.SIGTERM)
            for task in reload:
                task.cancel()
            await asyncio.gather(*(worker.wait() for worker in self._workers))

    def _stop(self, number: int) -> None:
        self._stopping.set()
        self._signal(number)  # a second Ctrl-C reaches them too

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            if worker.returncode is None:
                with suppress(ProcessLookupError):
                    worker.send_signal(number)

    async def _start(self, place: int) -> Process:
        """Start a worker and return it once it answers requests; raise ConfigError otherwise."""
        config, metrics = self._listener.config, self._listener.metrics
        files = [each.fileno() for each in self._listener.sockets]
        own = [each.fileno() for each in metrics[place]] if metrics else []
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pvemcp_server.cli.workers"),
            *(",".join(map(str, each)) for each in (files, own)),
            stdin=PIPE,  # a worker ends when it closes, also after a kill of this process
            stdout=PIPE,
            pass_fds=[*files, *own],
            start_new_session=True,  # Ctrl-C reaches it from here only
            env={**os.environ, "PVEMCP_HOST": config.host, "PVEMCP_PORT": str(config.port)},
        )
        self._workers.append(worker)
        if self._stopping.is_set():  # the signal for all came before this one was there
            with suppress(ProcessLookupError):
                worker.terminate()
        assert worker.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await worker.stdout.readline()
        except TimeoutError:
            line = b""
        if line != READY and not self._stopping.is_set():
            with suppress(ProcessLookupError):
                worker.kill()
            raise ConfigError("A worker does not start: its log has the reason.")
        log.info("Worker %d answers requests", worker.pid)
        return worker

    async def _keep(self, place: int) -> None:
        """Start the worker of this place again whenever it dies, until all are stopped."""
        pause, started = 1.0, monotonic()
        while True:
            worker = self._workers[place]
            await worker.wait()
            async with self._replacing:  # a worker that is replaced has not died
                if self._stopping.is_set():
                    return
                if self._workers[place] is not worker:
                    continue
                log.error("Worker %d ended with %s", worker.pid, worker.returncode)
                if monotonic() - started < STABLE_SECONDS:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._stopping.wait()
                            return
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    pause = 1.0
                started = monotonic()
                await self._place(place)

    async def _place(self, place: int) -> bool:
        """Start a worker for this place; return whether it answers."""
        before = len(self._workers)
        try:
            worker = await self._start(place)
        except (ConfigError, OSError) as error:  # OSError: no process can be made
            log.error("%s", error)  # noqa: TRY400 - the worker has logged the traceback
            return False
        finally:
            del self._workers[before:]  # it was there to get signals while it started
        self._workers[place] = worker
        return True

    async def _replace_all(self) -> None:
        """Start a worker in place of each, and retire the old one when the new one answers."""
        async with self._replacing:
            for place, old in enumerate(list(self._workers)):
                if self._stopping.is_set() or not await self._place(place):
                    return
                with suppress(ProcessLookupError):
                    old.send_signal(RETIRE or signal.SIGTERM)
                await old.wait()
            log.info("All workers were replaced")


async def _work(files: Sequence[int], metrics_files: Sequence[int]) -> None:
    """Serve as a worker on the sockets that the parent has opened, until stopped.

    The latter are of the port for the figures of this worker.
    """
    config = Config.load()
    logs.configure(config)
    loop = asyncio.get_running_loop()
    parent = sys.stdin.fileno()

    def on_input() -> None:
        if not os.read(parent, 1):  # the parent has ended
            loop.remove_reader(parent)
            signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent, on_input)
    sockets = [socket.socket(fileno=file) for file in files]
    metrics_sockets = [socket.socket(fileno=file) for file in metrics_files]
    async with open_state(config) as state:
        with deferred_gc():
            from pvemcp_server.app import serve_until_stopped

        async def announce() -> None:
            os.write(sys.stdout.fileno(), READY)

        await serve_until_stopped(state, sockets, announce, metrics_sockets)


if __name__ == "__main__":
    asyncio.run(_work(*([int(file) for file in each.split(",") if file] for each in sys.argv[1:])))
