"""Signals that stop a server."""

import signal
from typing import Final

RETIRE: Final[int | None] = getattr(signal, "SIGUSR1", None)
"""Stops a worker while others on the same port go on, so that `/readyz` does not fail."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([] if RETIRE is None else [RETIRE]))
