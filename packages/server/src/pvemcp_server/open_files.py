"""Open files of this process: their limit, what may use how many, and how many are in use."""

import sys
from typing import Final, NamedTuple

MOST_CONNECTIONS: Final = 2000
MOST_TO_CLUSTERS: Final = 2000
RESERVED_FILES: Final = 256  # for clusters, the database and connections that are just accepted
OTHER_FILES: Final = 64  # of the reserved ones: for all but clusters


class Shares(NamedTuple):
    """How many sockets a process may hold."""

    from_clients: int
    to_clusters: int


def file_limit() -> int:
    """Return how many files the process may have open; -1 where there is no such limit."""
    if sys.platform == "win32":
        return -1
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def shares(files: int) -> Shares:
    """Return how a process with this limit of open files shares them out."""
    if files < 0:  # no limit
        return Shares(MOST_CONNECTIONS, MOST_TO_CLUSTERS)
    reserved = min(RESERVED_FILES, files // 2)
    from_clients = max(2, min(MOST_CONNECTIONS, files - reserved))
    others = min(OTHER_FILES, reserved // 2)
    return Shares(from_clients, max(2, min(MOST_TO_CLUSTERS, files - from_clients - others)))
