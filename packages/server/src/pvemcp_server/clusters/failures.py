"""The net around what is read of one cluster, so that its failure costs its own rows only."""

import logging
from collections.abc import Awaitable
from typing import TypeVar

from proxmox_client import ProxmoxError
from pvemcp_server.errors import CallError, StateUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


async def outcome_of(read: Awaitable[T], what: str) -> T | Exception:
    """Return the result of a read, or the error that ended it.

    Any error counts: an answer that we cannot handle must not cost the rows of other clusters. An
    unexpected one is logged with its traceback; `explain` refers to the log. Raise
    StateUnavailable, because then permissions cannot be checked.
    """
    try:
        return await read
    except StateUnavailable:
        raise
    except (CallError, ProxmoxError, TimeoutError) as error:
        return error
    except Exception as error:
        log.exception("Reading %s failed", what)
        return error
