"""One run of the bridge, from the first line of the client to the last."""

import asyncio
import gc
import logging
import os
import sys

from pvemcp_bridge.bridge import Bridge
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.shutdown import Reason, Shutdown
from pvemcp_bridge.stdio import Writer, private, start_reader
from pvemcp_bridge.target import Target
from pvemcp_bridge.transport import Account, Transport

__all__ = ["run"]

log = logging.getLogger(__name__)

_MIN_WRITE_SECONDS = 0.3


def run(target: Target, mask: Masker) -> None:
    """Run the bridge until the client is done, then end the process."""
    reader_is_alive = asyncio.run(_run(target, mask))
    logging.shutdown()
    sys.stderr.flush()
    if reader_is_alive:
        # The thread still waits for input; on Windows a normal exit would wait for the thread
        os._exit(0)


def _account(target: Target, mask: Masker) -> Account | None:
    if target.has_key:
        return None
    from pvemcp_bridge.oauth.account import UserAccount  # takes time that a key does not need

    return UserAccount(target, mask.add)


async def _run(target: Target, mask: Masker) -> bool:
    """Run until a reason to shut down; return whether the reader thread still waits for input."""
    shutdown = Shutdown()
    writer = Writer(private(1), lambda: shutdown.request(Reason.OUTPUT_BROKEN))
    gc.freeze()  # the modules loaded by now stay; no collection needs to scan them
    for risk in target.risks:
        log.warning("%s", risk)
    log.info("Forwarding messages to %s.", target.origin)
    async with Transport(target, _account(target, mask)) as transport:
        bridge = Bridge(transport, writer, read_timeout=target.read_timeout, mask=mask)
        reader = start_reader(
            private(0), bridge.receive, lambda: shutdown.request(Reason.INPUT_CLOSED)
        )
        reason = await shutdown.wait()
        log.info("Shutting down: %s.", reason.name.lower().replace("_", " "))
        await bridge.finish(reason.reply_seconds, shutdown.immediate)
        await bridge.close(reason.close_seconds)
    seconds = max(reason.reply_seconds, _MIN_WRITE_SECONDS)
    await asyncio.wait({asyncio.create_task(writer.close())}, timeout=seconds)
    return reader.is_alive()
