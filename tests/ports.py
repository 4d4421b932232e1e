"""Ports for programs that have to know theirs before they start."""

import os
import socket
from itertools import count

# Not from the ephemeral ports: any connection of another test could take one that is free now
FIRST, NUMBER = 20_000, 12_000
_candidates = (FIRST + (os.getpid() * 97 + step) % NUMBER for step in count())


def free_port(following: int = 0) -> int:
    """Return a free port, after which as many are free; a process gets each only once."""
    return next(
        port for port in _candidates if all(_is_free(port + step) for step in range(following + 1))
    )


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
