"""A proxy in front of PostgreSQL that can be away, or lose connections at a statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

SOCKET = ".s.PGSQL.5432"


class PostgresProxy:
    """A socket in a folder of its own that leads to PostgreSQL's in another one."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self._target = f"{server}/{SOCKET}"
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._lost_at, self._times = b"", 0
        self.lost = 0  # connections that `lose_at` has ended

    async def start(self) -> None:
        """Accept connections, as PostgreSQL does when it is back."""
        self._listener = await asyncio.start_unix_server(
            self._serve, self.folder / SOCKET, limit=1 << 20
        )

    def stop(self) -> None:
        """End all connections and refuse new ones, as PostgreSQL does when it stops."""
        if self._listener is not None:
            self._listener.close()
            (self.folder / SOCKET).unlink()
            self._listener = None
        for writer in self._writers:
            writer.transport.abort()

    def lose_at(self, text: str, times: int = 1) -> None:
        """End the next connections that send a statement with this text, before its answer."""
        self._lost_at, self._times = text.encode(), times

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_unix_connection(self._target, limit=1 << 20)
        self._writers |= {writer, to_server[1]}
        try:
            await asyncio.gather(
                self._copy(reader, to_server[1], watched=True),
                self._copy(to_server[0], writer, watched=False),
            )
        finally:
            self._writers -= {writer, to_server[1]}
            for each in (writer, to_server[1]):
                each.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if watched and self._times and self._lost_at in data:
                    self._times -= 1
                    self.lost += 1
                    break
                writer.write(data)
                await writer.drain()
        for each in list(self._writers):
            if each is writer:
                each.transport.abort()


@asynccontextmanager
async def postgres_proxy(folder: Path, server: str) -> AsyncIterator[PostgresProxy]:
    """Run the proxy while inside."""
    await anyio.Path(folder).mkdir()
    proxy = PostgresProxy(folder, server)
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
