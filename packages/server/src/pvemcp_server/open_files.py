"""Open files of this process: their limit, what may use how many, and how many are in use."""

import sys
from errno import EMFILE
from pathlib import Path
from typing import Final, NamedTuple

MOST_CONNECTIONS: Final = 2000
MOST_TO_CLUSTERS: Final = 2000
RESERVED_FILES: Final = 256  # for clusters, the database and connections that are just accepted
SPARE_FILES: Final = 16  # fewer free ones are a shortage
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


def open_files() -> int | None:
    """Return how many files this process has open; None where the system does not list them."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir()) - 1  # the list is open too
    except OSError as error:
        return file_limit() if error.errno == EMFILE else None


def shortage() -> str:
    """Return how many files are open if that is nearly all; else nothing."""
    limit, used = file_limit(), open_files()
    if limit < 0 or used is None or limit - used >= min(SPARE_FILES, limit // 8):
        return ""
    return f"{used} of {limit} open files are in use"
