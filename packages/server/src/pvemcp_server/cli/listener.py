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
    metrics: Sequence[Sequence[socket.socket]] = ()  # of a port for /metrics for each process


@contextmanager
def claimed(config: Config, *, alone: bool, workers: int = 1) -> Iterator[Listener]:
    """Listen on the configured address and lock the state folder; raise ConfigError otherwise.

    `alone` locks the folder exclusively; without PostgreSQL the lock is always exclusive. Each of
    the `workers` has its own figures, and so a port of its own for them: the one that is
    configured, and those after it.
    """
    with ExitStack() as stack:
        sockets = _listening(config, config.host, config.port, "PVEMCP_", stack)
        bound = config.model_copy(update={"port": sockets[0].getsockname()[1]})
        metrics = [
            _listening(config, config.metrics_host, port, "PVEMCP_METRICS_", stack)
            for port in _metrics_ports(bound, workers)
        ]
        shared = config.database.startswith("postgresql") and not alone
        stack.enter_context(state_lock(bound, shared=shared))
        yield Listener(bound, sockets, metrics)


def _metrics_ports(config: Config, workers: int) -> Sequence[int]:
    """Return the port of each worker for /metrics; nothing without a configured one."""
    first = config.metrics_port
    if not first:
        return [] if first is None else [0] * workers
    ports = range(first, first + workers)
    if ports[-1] > HIGHEST_PORT:
        raise ConfigError(
            f"PVEMCP_METRICS_PORT is the first of {workers} ports, one for each worker: choose one "
            f"up to {HIGHEST_PORT + 1 - workers}."
        )
    if config.port in ports:
        raise ConfigError(
            f"PVEMCP_PORT {config.port} would be a port for /metrics too: choose another "
            "PVEMCP_METRICS_PORT."
        )
    return ports


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
