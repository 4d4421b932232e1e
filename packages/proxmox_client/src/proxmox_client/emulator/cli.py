"""The command pvemcp-emulator."""

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from proxmox_client.emulator.background_server import Emulator
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.cluster import Cluster
from proxmox_client.emulator.control import Control
from proxmox_client.emulator.scenario.demo import demo
from proxmox_client.emulator.scenario.model import Scenario

STDOUT = Path("-")


def main() -> None:
    """Serve emulated clusters until told to stop."""
    options = _parser().parse_args()
    scenario = Scenario.load(options.scenario) if options.scenario else demo()
    try:
        asyncio.run(serve(scenario, options))
    finally:
        if options.ready_file not in (None, STDOUT):
            options.ready_file.unlink(missing_ok=True)


async def serve(scenario: Scenario, options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; the ready file appears when every port listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), stop.set)  # whoever holds the other end has gone
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            Emulator(
                scenario,
                clock=Clock(options.speed),
                address=options.address,
                first_port=options.first_port,
            )
        )
        for cluster in emulator:
            _say(_summary(cluster, shows_secret=options.ready_file is None))
        if options.control_port is not None:
            control = Control(emulator)
            await control.start(options.control_port)
            stack.push_async_callback(control.stop)
            _say(f"control: http://127.0.0.1:{control.port}")
        if options.ready_file is not None:
            announce([access_to(cluster) for cluster in emulator], options.ready_file)
        await stop.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a command prints


def access_to(cluster: Cluster) -> dict[str, object]:
    """What it takes to connect to a cluster."""
    token_id, secret = cluster.token
    return {
        "name": cluster.name,
        "hosts": cluster.hosts,
        "fingerprints": list(cluster.fingerprints.values()),
        "ca_pem": cluster.ca_pem,
        "token_id": token_id,
        "token_secret": secret,
    }


def announce(clusters: list[dict[str, object]], path: Path) -> None:
    """Write the ready file at once and for the owner alone: it holds secrets."""
    if path == STDOUT:
        print(json.dumps({"clusters": clusters}), flush=True)  # noqa: T201 - a command prints
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"clusters": clusters}, file)
    draft.replace(path)


def _summary(cluster: Cluster, *, shows_secret: bool) -> str:
    state, (token_id, secret) = cluster.state, cluster.token
    online = sum(node.online for node in state.nodes.values())
    size = f"{online}/{len(state.nodes)} nodes online, {len(state.guests)} guests"
    lines = [
        f"{cluster.name}: emulated Proxmox VE {state.version}, {size}",
        f"  hosts  {' '.join(cluster.hosts)}",
        f"  token  {token_id}" + (f"={secret}" if shows_secret else ""),
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pvemcp-emulator", description="Serve an emulated Proxmox VE API on loopback."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--demo", action="store_true", help="the clusters home-lab and prod")
    what.add_argument("--scenario", type=Path, metavar="FILE", help="clusters of a YAML file")
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="where to write how to connect, as JSON; - is stdout",
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end with the process that holds our standard input",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="how fast the clusters' time runs (default 1)"
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="where to listen (default 127.0.0.1; 0.0.0.0 where a container's ports are published)",
    )
    parser.add_argument(
        "--first-port",
        type=int,
        default=0,
        metavar="PORT",
        help="the first node's port, the next nodes take those after it (default: any)",
    )
    parser.add_argument(
        "--control-port",
        type=int,
        metavar="PORT",
        help="listen for faults over plain HTTP on loopback (0 takes any port; off by default)",
    )
    return parser


if __name__ == "__main__":
    main()
