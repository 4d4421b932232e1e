"""The demo clusters: a Proxmox emulator in a process of its own, while no real one is there."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pvemcp_server.access.clusters import DEFAULT_IDENTITY
from pvemcp_server.cli.state import State
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.records import ClusterRecord, TlsMode

READY_SECONDS = 60
LOOPBACK = "127.0.0.1"


class Demo:
    """Starts the emulator and keeps the records of its clusters in step with it.

    `clusters.json` in the demo's folder names the clusters that are ours to change and remove,
    while they lead to this machine: people may add a real one of that name, or lead ours to one.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.config.state_dir / "demo"
        self.started = False

    async def wanted(self) -> bool:
        """Whether no cluster is configured but the demo's own."""
        return all(map(self._is_ours, await self._state.access.clusters.all()))

    async def forget(self) -> None:
        """Removes the demo's clusters: they are nothing without their emulator."""
        for one in await self._state.access.clusters.all():
            if self._is_ours(one):
                await self._state.access.clusters.remove(one.name)
        self._list.unlink(missing_ok=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The emulator, from its first answer to the end of the block."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = await self._start()
        try:
            for cluster in await self._ready(process):
                await self._save(cluster)
            self.started = True
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _start(self) -> Process:
        # The open pipe is its lifeline: the emulator ends when we do, however that happens
        with self._log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "proxmox_client.emulator"),
                *("--demo", "--ready-file", "-", "--until-stdin-closes"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
            )

    async def _ready(self, process: Process) -> list[Mapping[str, Any]]:
        """What the emulator writes, on one line, once it answers; its secrets touch no file."""
        assert process.stdout  # noqa: S101 - a pipe was asked for
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise ConfigError(f"The Proxmox emulator did not start; {self._log} says more.")
        clusters: list[Mapping[str, Any]] = json.loads(line)["clusters"]
        return clusters

    async def _save(self, cluster: Mapping[str, Any]) -> None:
        configs, name = self._state.access.clusters, str(cluster["name"])
        reach = {
            "hosts": cluster["hosts"],
            "tls_mode": TlsMode.PINNED,
            "fingerprints": cluster["fingerprints"],
        }
        token = {"token_id": cluster["token_id"], "secret": cluster["token_secret"]}
        if name in {one.name for one in await configs.all()}:
            await configs.change(name, **reach)
            await configs.change_identity(name, DEFAULT_IDENTITY, **token)
            return
        self._list.write_text(json.dumps(sorted({*self._names(), name})))
        await configs.create(name, **reach, **token, description="Demo cluster (emulated)")

    def _is_ours(self, record: ClusterRecord) -> bool:
        is_here = all(host.startswith(f"{LOOPBACK}:") for host in record.hosts)
        return is_here and record.name in self._names()

    def _names(self) -> set[str]:
        return set(json.loads(self._list.read_text())) if self._list.exists() else set()

    @property
    def _list(self) -> Path:
        return self._folder / "clusters.json"

    @property
    def _log(self) -> Path:
        return self._folder / "emulator.log"
