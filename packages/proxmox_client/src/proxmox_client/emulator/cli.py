"""The command `pvemcp-emulator`."""

import argparse
import asyncio
import json
import math
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from proxmox_client.emulator.background_server import Emulator
from proxmox_client.emulator.backup_server.server import EmulatedBackupServer
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.control import ControlServer
from proxmox_client.emulator.scenario.demo import demo
from proxmox_client.emulator.scenario.model import Scenario

STDOUT = Path("-")


def main() -> None:
    """Serve emulated clusters until interrupted; an error is one line."""
    parser = _parser()
    options = parser.parse_args()
    try:
        scenario = _scenario(options.scenario, parser) if options.scenario else demo()
        asyncio.run(serve(scenario, options))
    except OverflowError as error:  # --first-port leaves too few ports for all nodes
        parser.error(f"--first-port: {error}".rstrip("."))
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        parser.exit(1, f"{parser.prog}: {error.strerror or error}{place}.\n")
    finally:
        if options.ready_file not in (None, STDOUT):
            options.ready_file.unlink(missing_ok=True)


async def serve(scenario: Scenario, options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; write the ready file when every port listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), stop.set)  # readable at EOF: the parent has exited
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            Emulator(
                scenario,
                clock=Clock(options.speed),
                address=options.address,
                first_port=options.first_port,
            )
        )
        shows_secret = options.ready_file is None
        for cluster in emulator:
            _log(_summary(cluster, shows_secret=shows_secret))
        for server in emulator.backup_servers.values():
            _log(_summary_of_server(server, shows_secret=shows_secret))
        if options.control_port is not None:
            control = ControlServer(emulator)
            await control.start(options.control_port)
            stack.push_async_callback(control.stop)
            _log(f"control: http://127.0.0.1:{control.port}")
        if options.ready_file is not None:
            servers = (*emulator, *emulator.backup_servers.values())
            write_ready_file([connection_details(each) for each in servers], options.ready_file)
        await stop.wait()


def _log(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a command prints


def connection_details(server: EmulatedCluster | EmulatedBackupServer) -> dict[str, object]:
    """Return everything that a client needs to connect, including the secret.

    `kind` is pve for a cluster, pbs for a backup server, whose certificate can only be pinned.
    """
    token_id, secret = server.token
    details: dict[str, object] = {
        "name": server.name,
        "hosts": server.hosts,
        "token_id": token_id,
        "token_secret": secret,
    }
    if isinstance(server, EmulatedBackupServer):
        return {**details, "kind": "pbs", "fingerprints": [server.fingerprint]}
    fingerprints = list(server.fingerprints.values())
    return {**details, "kind": "pve", "fingerprints": fingerprints, "ca_pem": server.ca_pem}


def write_ready_file(clusters: list[dict[str, object]], path: Path) -> None:
    """Write the ready file atomically, readable by the owner only, as it holds secrets."""
    if path == STDOUT:
        print(json.dumps({"clusters": clusters}), flush=True)  # noqa: T201 - a command prints
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"clusters": clusters}, file)
    draft.replace(path)


def _summary(cluster: EmulatedCluster, *, shows_secret: bool) -> str:
    state, token = cluster.state, "=".join(cluster.token) if shows_secret else cluster.token[0]
    online = sum(node.online for node in state.nodes.values())
    size = f"{online}/{len(state.nodes)} nodes online, {len(state.guests)} guests"
    return _lines(f"{cluster.name}: emulated Proxmox VE {state.version}, {size}", cluster, token)


def _summary_of_server(server: EmulatedBackupServer, *, shows_secret: bool) -> str:
    token = "=".join(server.token) if shows_secret else server.token[0]
    stores = f"datastores {', '.join(server.state.datastores)}"
    title = f"{server.name}: emulated Proxmox Backup Server {server.state.version}, {stores}"
    return _lines(title, server, token)


def _lines(title: str, server: EmulatedCluster | EmulatedBackupServer, token: str) -> str:
    return f"{title}\n  hosts  {' '.join(server.hosts)}\n  token  {token}"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}. See {self.prog} --help.\n")


def _scenario(path: Path, parser: argparse.ArgumentParser) -> Scenario:
    try:
        return Scenario.load(path)
    except ValueError as error:
        parser.error(f"{path} is no scenario: {error}".rstrip("."))


def _port(text: str) -> int:
    if not 0 <= (port := int(text)) < 1 << 16:
        raise ValueError
    return port


def _speed(text: str) -> float:
    if not 0 < (speed := float(text)) < math.inf:
        raise ValueError
    return speed


_port.__name__, _speed.__name__ = "port", "speed"  # as argparse names a wrong value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pvemcp-emulator", description="Serve an emulated Proxmox VE API on loopback."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--demo",
        action="store_true",
        help="the clusters home-lab and prod, the backup server backup",
    )
    source.add_argument("--scenario", type=Path, metavar="FILE", help="the clusters of a YAML file")
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="write the connection details as JSON to this file when ready; - is stdout",
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="exit when standard input closes, so with the parent process",
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, help="speed of the clusters' clock (default 1)"
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1; in a container 0.0.0.0)",
    )
    parser.add_argument(
        "--first-port",
        type=_port,
        default=0,
        metavar="PORT",
        help="port of the first node; the next nodes take the ports after it (default: any)",
    )
    parser.add_argument(
        "--control-port",
        type=_port,
        metavar="PORT",
        help="accept faults over plain HTTP on this loopback port (0: any; off by default)",
    )
    return parser


if __name__ == "__main__":
    main()
