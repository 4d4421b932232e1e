"""The watch over the open files of this process."""

import logging
from typing import Final

import anyio

from pvemcp_server.open_files import shortage
from pvemcp_server.store import Store
from pvemcp_server.store.background import ticks

WATCH_SECONDS: Final = 5.0
NOTICE: Final = "open-files"
log = logging.getLogger(__name__)


class FileWatch:
    """Reports once when nearly all files that the process may have are open.

    At the limit no client and no cluster gets a connection, and the log of each failure names
    something else.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_short = False

    async def run(self, stop: anyio.Event) -> None:
        """Look every WATCH_SECONDS, until `stop` is set."""
        async for _ in ticks(stop, WATCH_SECONDS):
            await self.look()

    async def look(self) -> None:
        """Compare the open files with the limit; log and note when a shortage begins."""
        fact = shortage()
        began, self._is_short = bool(fact) and not self._is_short, bool(fact)
        if not began:
            return
        message = f"{fact}. A higher limit is set with ulimit -n, or LimitNOFILE= of systemd."
        log.warning("%s", message)
        try:
            await self._store.notices.record(NOTICE, "limit", message)
        except Exception:
            log.warning("The notice of open files could not be stored", exc_info=True)
