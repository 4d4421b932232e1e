"""What each process of a fleet runs, for tests with several stores in one process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping


@asynccontextmanager
async def taking_part(*stores: Store) -> AsyncIterator[None]:
    """Run what each process runs, and wait until all of them take part."""
    async with AsyncExitStack() as stack:
        for store in stores:
            for work in (store.fleet.run, store.watch.run, store.cluster_writes.run):
                await stack.enter_async_context(housekeeping(work))
            await store.fleet.joined()
            await store.watch.poll()
        yield
