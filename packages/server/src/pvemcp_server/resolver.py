"""Resolution of names that callers and strangers choose, in few threads of its own.

A name server of theirs may answer after minutes, and a thread that waits for it cannot be stopped.
In the default pool of the process, such threads would keep all other work of it waiting.
"""

import asyncio
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from pvemcp_server.errors import OverBudget

THREADS: Final = 2
MOST_PENDING: Final = 8  # names that are being resolved or wait, those that were given up included


class Resolver:
    """Resolves names by the system's resolver, a bounded number at the same time."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, "resolver")
        self._pending: dict[Future[list[str]], str] = {}

    async def resolve(self, host: str, port: int, source: str = "") -> list[str]:
        """Return the addresses of a host as a connection would; raise OSError if it has none.

        Raise OverBudget when too many names wait, or one that the same source has named before:
        a source, such as an address, occupies one thread at most, also after it gave up.
        """
        self._pending = {job: each for job, each in self._pending.items() if not job.done()}
        if len(self._pending) >= MOST_PENDING or (source and source in self._pending.values()):
            raise OverBudget("Too many host names are being resolved.", hint="Wait a minute.")
        job = self._threads.submit(_addresses, host, port)
        self._pending[job] = source
        return await asyncio.wrap_future(job)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # an empty label, or one of more than 63 characters
        raise OSError(f"{host!r} is not a host name") from error
    return [str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found]
