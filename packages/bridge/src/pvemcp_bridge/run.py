"""One run of the bridge, from the first line of the client to its last."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable

from pvemcp_bridge.bridge import Bridge
from pvemcp_bridge.lifetime import Ending, Lifetime
from pvemcp_bridge.stdio import Writer, binary, start_reader
from pvemcp_bridge.target import Target
from pvemcp_bridge.transport import Transport

__all__ = ["run"]

log = logging.getLogger(__name__)

_WRITE_SECONDS = 0.3


def run(target: Target, mask: Callable[[str], str]) -> None:
    """Carries messages until the client is done, then ends the process."""
    reading = asyncio.run(_carry(target, mask))
    logging.shutdown()
    sys.stderr.flush()
    if reading:
        # the thread still waits for input; on Windows ending normally would wait for it
        os._exit(0)


async def _carry(target: Target, mask: Callable[[str], str]) -> bool:
    """Runs to the end; True when the input is still open then."""
    lifetime = Lifetime()
    writer = Writer(binary(1), lambda: lifetime.end(Ending.OUTPUT_BROKEN))
    gc.freeze()  # what is loaded by now stays: no collection needs to look at it
    log.info("Carrying messages to %s.", target.origin)
    async with Transport(target) as transport:
        bridge = Bridge(transport, writer, silence=target.silence, mask=mask)
        reader = start_reader(binary(0), bridge.receive, lambda: lifetime.end(Ending.INPUT_CLOSED))
        ending = await lifetime.ending()
        log.info("Ending: %s.", ending.name.lower().replace("_", " "))
        await bridge.finish(ending.replies, lifetime.hurry)
        await bridge.close(ending.farewell)
    patience = max(ending.replies, _WRITE_SECONDS)
    await asyncio.wait({asyncio.create_task(writer.close())}, timeout=patience)
    return reader.is_alive()
