"""The demo clusters: a Proxmox emulator in its own process, used while no real cluster exists."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pvemcp_server.access.clusters import DEFAULT_IDENTITY
from pvemcp_server.cli.state import State, record_change
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.files import open_private, replaced_file
from pvemcp_server.store.records import ClusterKind, ClusterRecord, TlsMode

READY_SECONDS = 60
LOOPBACK = "127.0.0.1"


class Demo:
    """The emulator process and the records of its clusters.

    `clusters.json` in the demo's folder lists the names of the clusters that the demo created.
    The demo changes or removes a cluster only if its name is in that list and all its hosts are
    on loopback: an administrator may add a real cluster of the same name, or point a demo
    cluster to a real one.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.config.state_dir / "demo"
        self.started = False

    async def is_needed(self) -> bool:
        """Return whether no cluster is configured except the demo's own."""
        return all(map(self._is_ours, await self._state.access.clusters.all()))

    async def remove_clusters(self) -> None:
        """Remove the demo's clusters; without the emulator they cannot be reached."""
        for cluster in await self._state.access.clusters.all():
            if self._is_ours(cluster):
                await self._state.access.clusters.remove(cluster.name)
                await record_change(self._state, "clusters.remove", cluster=cluster.name)
        self._list.unlink(missing_ok=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the emulator until the end of the block; raise ConfigError if it does not start."""
        require_emulator()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = await self._start()
        try:
            for cluster in await self._read_clusters(process):
                await self._save(cluster)
            self.started = True
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _start(self) -> Process:
        # The emulator exits when its stdin closes, so it ends with this process even after a kill
        with open_private(self._log, "wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "proxmox_client.emulator"),
                *("--demo", "--ready-file", "-", "--until-stdin-closes"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
            )

    async def _read_clusters(self, process: Process) -> list[Mapping[str, Any]]:
        """Read the line of JSON that the emulator prints when it is ready.

        Its token secrets pass through the pipe only and are never written to a file.
        """
        assert process.stdout  # noqa: S101 - created with a pipe
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise ConfigError(f"The Proxmox emulator did not start; see {self._log}.")
        clusters: list[Mapping[str, Any]] = json.loads(line)["clusters"]
        return clusters

    async def _save(self, cluster: Mapping[str, Any]) -> None:
        configs, name = self._state.access.clusters, str(cluster["name"])
        connection = {
            "hosts": cluster["hosts"],
            "tls_mode": TlsMode.PINNED,
            "fingerprints": cluster["fingerprints"],
        }
        token = {"token_id": cluster["token_id"], "secret": cluster["token_secret"]}
        if name in {record.name for record in await configs.all()}:
            await configs.change(name, secrets=await self._secrets(name, token), **connection)
            await configs.change_identity(name, DEFAULT_IDENTITY, **token)
            await record_change(self._state, "clusters.change", cluster=name, **connection)
            return
        with replaced_file(self._list) as file:
            file.write(json.dumps(sorted({*self._names(), name})).encode())
        kind = ClusterKind(cluster["kind"])
        description = f"Demo (emulated {kind.product})"
        await configs.create(name, kind=kind, **connection, **token, description=description)
        await record_change(self._state, "clusters.add", cluster=name, kind=kind, **connection)

    async def _secrets(self, name: str, token: Mapping[str, str]) -> dict[str, str]:
        """Return the secrets of a cluster's tokens, for the emulator's new ports."""
        configs, identities = self._state.access.clusters, self._state.store.identities
        record = await configs.get(name)
        secrets = {
            identity.name: await identities.secret(identity, record) or ""
            for identity in await configs.identities(name)
            if identity.name != DEFAULT_IDENTITY
        }
        return {**secrets, DEFAULT_IDENTITY: token["secret"]}

    def _is_ours(self, record: ClusterRecord) -> bool:
        is_local = all(host.startswith(f"{LOOPBACK}:") for host in record.hosts)
        return is_local and record.name in self._names()

    def _names(self) -> set[str]:
        return set(json.loads(self._list.read_text())) if self._list.exists() else set()

    @property
    def _list(self) -> Path:
        return self._folder / "clusters.json"

    @property
    def _log(self) -> Path:
        return self._folder / "emulator.log"


def require_emulator() -> None:
    """Raise ConfigError unless the packages of the extra `demo` are installed."""
    try:
        import proxmox_client.emulator  # noqa: F401 - imported here only: an optional dependency
    except ModuleNotFoundError as error:
        text = f"The demo needs {error.name}: pip install 'pvemcp-server[demo]'"
        raise ConfigError(text) from None
