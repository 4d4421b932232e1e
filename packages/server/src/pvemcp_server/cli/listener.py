"""The port and the state folder, claimed before a server changes or prints anything."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.state_lock import check_unlocked, state_lock

HIGHEST_PORT: Final = 65535
BACKLOG: Final = 2048  # connections that may wait while the server starts
_MISSING: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # errors of a machine without IPv6


@dataclass(frozen=True)
class Listener:
    """Open sockets, and the configuration with their port."""

    config: Config
    sockets: list[socket.socket]
    metrics: Sequence[Sequence[socket.socket]] = ()  # of the port for /metrics of each process


@contextmanager
def claimed(config: Config, *, alone: bool, processes: int = 1) -> Iterator[Listener]:
    """Listen on the configured address and lock the state folder; raise ConfigError otherwise.

    `alone` locks the folder exclusively; without PostgreSQL the lock is always exclusive. Each
    process has its own figures, so each of `processes` has a port for /metrics: the configured
    one, and those that follow it.
    """
    with ExitStack() as stack:
        sockets = _listening(config, config.host, config.port, "PVEMCP_", stack)
        metrics: list[list[socket.socket]] = []
        for port in _metrics_ports(config, processes):
            opened = _listening(config, config.metrics_host, port, "PVEMCP_METRICS_", stack)
            if opened[0].getsockname()[1] == sockets[0].getsockname()[1]:
                raise ConfigError("PVEMCP_METRICS_PORT has to be another port than PVEMCP_PORT.")
            metrics.append(opened)
        bound = config.model_copy(update={"port": sockets[0].getsockname()[1]})
        shared = config.database.startswith("postgresql") and not alone
        stack.enter_context(state_lock(bound, shared=shared))
        yield Listener(bound, sockets, metrics)


def _metrics_ports(config: Config, processes: int) -> list[int]:
    """Return the port for /metrics of each process; 0 picks any for each."""
    first = config.metrics_port
    if first is None:
        return []
    if first + processes - 1 > HIGHEST_PORT:
        raise ConfigError(
            f"PVEMCP_METRICS_PORT is {first}, but {processes} processes take as many ports from "
            f"there on; choose {HIGHEST_PORT - processes + 1} or a lower one."
        )
    return [first + number if first else 0 for number in range(processes)]


def _listening(
    config: Config, host: str, port: int, variables: str, stack: ExitStack
) -> list[socket.socket]:
    """Open a socket for each address of the host, all on one port.

    `variables` is what the names of the environment variables begin with that choose them.
    """
    sockets: list[socket.socket] = []
    chosen, failed = port, OSError()
    try:
        for family, address in _addresses(host, port):
            try:
                opened = socket.create_server(
                    (address, chosen), family=family, backlog=BACKLOG, reuse_port=False
                )
            except OSError as missing:
                if missing.errno not in _MISSING:
                    raise
                failed = missing
                continue
            sockets.append(stack.enter_context(opened))
            chosen = opened.getsockname()[1]
        if not sockets:
            raise failed
    except OSError as refused:
        check_unlocked(config, shared=True)
        options = ", or --host and --port" if variables == "PVEMCP_" else ""
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {_reason(refused)}. Choose others "
            f"with {variables}HOST and {variables}PORT{options}."
        ) from None
    return sockets


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    if host == "::":
        # a socket of its own for IPv4: in one for both, clients would have mapped addresses
        return [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104 - as configured
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in addresses))


def _reason(refused: OSError) -> str:
    if refused.errno == errno.EADDRINUSE:
        return "another program uses it"
    if refused.errno is None or isinstance(refused, socket.gaierror):
        return str(refused.strerror or refused)
    return os.strerror(refused.errno)  # its own text also names the address, as a Python tuple
