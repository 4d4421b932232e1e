"""Chaos and soak test: clients of three eras call while parts of a fleet fail.

    python benchmarks/soak_fleet.py [--minutes 30] [--balancer haproxy] [--faults kill,restart]

Real servers, PostgreSQL and a balancer with the configuration of docs/users/replicas.md; the
cluster is emulated in this process, which counts the writes that arrive. Without `--minutes` each
fault happens once. It fails

- when a read fails that was not on its way when its server was killed (with HTTP+SSE a client
  learns from its next call that its stream has ended),
- when Proxmox received a write twice, or one without an intent in the audit, or an answered call
  has no row there (reads of the last second before a kill excepted),
- when the audit's chain is not whole, or files or memory of a server grow.

`--balancer workers` runs `pvemcp serve --workers`, `--balancer none` one server on SQLite. Needs
PostgreSQL, HAProxy or nginx, and libfaketime for jumps of the clock (Debian packages).
"""

import argparse
import asyncio
import json
import random
import re
import resource
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
from mcp.client import Client
from sqlalchemy import select

from proxmox_client.emulator import Emulator, Scenario
from proxmox_client.emulator.gateway import Gateway
from pvemcp_server.access import open_access
from pvemcp_server.access.model import Toolset
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store, records
from support.lab import add_lab
from support.postgres import PostgresServer, postgres_server

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from try_proxies import certificate
from try_replicas import (
    START_SECONDS,
    Fleet,
    Server,
    connected,
    fleet,
    free_ports,
)

ERAS = {"auto": 20, "legacy": 20, "sse": 10}  # of 50 clients
FREEZE_SECONDS = 6.0  # longer than a server without a sign of life counts as alive
LOST_SECONDS = 1.0  # of the reads that a killed server had not yet written to the audit
MOST_MIB, MOST_FILES = 12.0, 24  # that a server may grow by, after a third of its life
SAMPLE_SECONDS = 10.0
AHEAD, BACK = 7_200, -3_600  # jumps of a server's clock, and of PostgreSQL's
CLUSTER_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "slow": {"seconds": 3.0},
    "hang": {"percent": 30.0},
    "drop": {"percent": 30.0, "method": "GET"},
    "error": {"percent": 50.0},
    "malformed": {"percent": 50.0, "method": "GET"},
    "no-body": {"percent": 50.0},
}
SETTINGS = {
    "enabled": True,
    "calls_per_minute_per_key": 100_000,
    "inventory_freshness_seconds": 2,
}
TOKEN = re.compile(rb"chaos-[a-z]+-\d+-\d+")
CLOCK = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@dataclass
class Call:
    """One call of a client."""

    client: str  # also the name of its key
    token: str  # in a write's description; empty for a read
    began: float
    ended: float = inf
    error: str = ""

    @property
    def era(self) -> str:
        return self.client.partition("-")[0]


@dataclass
class Event:
    """A fault: its kind, and when it was."""

    kind: str
    began: float
    ended: float = inf


class Clock:
    """The clock of processes that run under libfaketime."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(CLOCK),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead."""
        self._file.write_text(f"{seconds:+d}\n")
        self._file.chmod(0o644)


class Proxmox:
    """What the emulated cluster has received: writes by their token, and reads of inventories."""

    def __init__(self) -> None:
        self.writes: Counter[str] = Counter()
        self.inventories = 0
        answer = Gateway.answer

        async def counted(gateway: Gateway, request: Any) -> Any:
            self.inventories += request.path.endswith("/cluster/resources")
            if request.method != "GET" and (token := TOKEN.search(request.body)):
                self.writes[token[0].decode()] += 1
            return await answer(gateway, request)

        Gateway.answer = counted  # type: ignore[method-assign]  # to count


@dataclass
class Sample:
    """The memory (MiB) and open files of a process at a time."""

    at: float
    memory: float
    files: int


@dataclass
class Run:
    """One run: its parts, the calls, and the faults."""

    fleet: Fleet
    workers: int  # processes behind the one server, or 0
    database: PostgresServer | None
    trust: ssl.SSLContext | bool
    keys: Mapping[str, str]  # secrets by the name of the client
    proxmox: Proxmox
    emulator: Emulator
    clocks: Sequence[Clock]  # of the first server and of PostgreSQL
    disk: "Disk | None"
    log: Path  # of the servers
    pace: float
    calls: list[Call] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    samples: dict[int, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that serve."""
        found = [psutil.Process(each.process.pid) for each in self.fleet.servers if each.process]
        return found[0].children() if self.workers else found

    def started_workers(self) -> int:
        """Return how many workers have begun to answer."""
        return self.log.read_text().count("answers requests")

    # what the clients do

    async def call_until_stopped(self, name: str, number: int) -> None:
        """Call one tool after the other; connect again when a connection is lost."""
        luck, count = random.Random(name), 0
        while not self.stop.is_set():
            with suppress(Exception):  # counted with its call
                async with connected(
                    name.partition("-")[0], self.fleet.base, self.keys[name], self.trust
                ) as client:
                    while not self.stop.is_set():
                        count += 1
                        await self._call(client, name, count, 100 + number)
                        await self._pause(self.pace * luck.uniform(0.5, 1.5))
            await self._pause(0.2)

    async def _call(self, client: Client, name: str, count: int, vmid: int) -> None:
        token = "" if count % 4 else f"chaos-{name}-{count}"
        tools = ("ListVms", {}), ("GetVmStatus", {"vmid": vmid}), ("ListNodes", {})
        tool, arguments = tools[count % 3]
        if token:
            tool, arguments = "UpdateVmConfig", {"vmid": vmid, "description": token}
        call = Call(name, token, time.monotonic())
        self.calls.append(call)
        try:
            async with asyncio.timeout(60):
                answer = await client.call_tool(tool, arguments)
            if answer.is_error:
                call.error = f"{tool}: {answer.content[0]}"[:300]
        except BaseException as error:
            call.error = f"{tool}: lost, {error!r}"[:300]
            raise
        finally:
            call.ended = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()

    async def sample(self) -> None:
        """Note memory and open files of all servers, until the run ends."""
        while not self.stop.is_set():
            for process in self.processes():
                with suppress(psutil.Error):
                    memory = process.memory_info().rss / 2**20
                    note = Sample(time.monotonic(), memory, process.num_fds())
                    self.samples[process.pid].append(note)
            await self._pause(SAMPLE_SECONDS)

    # what fails

    async def fail(self, kind: str, luck: random.Random) -> None:
        """Let a fault happen, and wait until all parts run again."""
        event = Event(kind, time.monotonic())
        self.events.append(event)
        try:
            await getattr(self, f"_{kind.replace('-', '_')}")(luck)
        except Exception as error:  # noqa: BLE001 - the run goes on, and fails at its end
            self.failures.append(f"{kind}: {error!r}")
        event.ended = time.monotonic()

    def _other_than_first(self, luck: random.Random) -> Server:
        """Return a server to end; the first one lives to the end, for its memory."""
        return luck.choice(self.fleet.servers[1:] or self.fleet.servers)

    async def _kill(self, luck: random.Random) -> None:
        if self.workers:
            started = self.started_workers()
            luck.choice(self.processes()).kill()
            await until(lambda: self.started_workers() > started)
            return
        server = self._other_than_first(luck)
        server.kill()
        server.start()
        await server.ready()

    async def _stop(self, luck: random.Random) -> None:
        server = self._other_than_first(luck)
        await server.stop()
        server.start()
        await server.ready()

    async def _freeze(self, luck: random.Random) -> None:
        process = luck.choice(self.processes())
        process.suspend()
        await asyncio.sleep(FREEZE_SECONDS)
        process.resume()

    async def _restart(self, _luck: random.Random, mode: str = "fast") -> None:
        assert self.database
        await asyncio.to_thread(self.database.restart, mode)

    async def _crash(self, luck: random.Random) -> None:
        await self._restart(luck, "immediate")

    async def _freeze_database(self, _luck: random.Random) -> None:
        assert self.database
        self.database.freeze()
        try:
            await asyncio.sleep(FREEZE_SECONDS)
        finally:
            self.database.thaw()

    async def _reload(self, _luck: random.Random) -> None:
        assert self.fleet.balancer
        name = Path(str(self.fleet.balancer.args[0])).name  # type: ignore[index]  # a list
        self.fleet.balancer.send_signal(signal.SIGHUP if name == "nginx" else signal.SIGUSR2)
        await asyncio.sleep(3)

    async def _clock(self, _luck: random.Random) -> None:
        server, database = self.clocks
        for clock, seconds in ((server, AHEAD), (server, 0), (database, BACK)):
            clock.set(seconds)
            await asyncio.sleep(FREEZE_SECONDS)
        before = self.proxmox.inventories
        await asyncio.sleep(FREEZE_SECONDS)
        if self.proxmox.inventories == before:
            self.failures.append("no inventory was read after PostgreSQL's clock was set back")
        database.set(0)
        await asyncio.sleep(FREEZE_SECONDS)

    async def _cluster(self, luck: random.Random) -> None:
        kind = luck.choice(sorted(CLUSTER_FAULTS))
        lab = self.emulator["lab"]
        fault = lab.fault(kind, **CLUSTER_FAULTS[kind])
        await asyncio.sleep(10)
        lab.faults.remove(fault)

    async def _disk(self, luck: random.Random) -> None:
        await self._file_size(luck, self.disk and self.disk.is_mounted)

    async def _file_size(self, _luck: random.Random, is_mounted: bool | None = False) -> None:
        assert self.disk
        [server] = self.fleet.servers
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:

            async def is_ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            async def is_unready() -> bool:
                return not await is_ready()

            with self.disk.full() if is_mounted else self.disk.limited():
                try:
                    await until(is_unready, 20)
                except TimeoutError:
                    self.failures.append("/readyz is not 503 while the audit cannot be written")
                before = self.proxmox.writes.copy()
                await asyncio.sleep(FREEZE_SECONDS)
                if sent := self.proxmox.writes - before:
                    self.failures.append(f"written without an intent: {sorted(sent)}")
            await until(is_ready)

    # what has to hold

    def excuse(self, call: Call, since: float) -> bool:
        """Return whether a call may fail; `since` is when the client's last good one ended."""
        for event in self.events:
            overlaps = call.began <= event.ended and event.began <= call.ended
            if event.kind == "kill" and call.began <= event.began <= call.ended:
                return True
            is_stream_over = event.kind in ("kill", "stop") and call.era == "sse"
            if is_stream_over and since <= event.ended and event.began <= call.ended:
                return True
            is_answered = event.kind == "cluster" and "lost" not in call.error
            if is_answered and call.began <= event.ended + 30 and event.began <= call.ended:
                return True
            # a write is refused while its intent cannot be stored, and may lose its answer
            if call.token and overlaps and event.kind != "reload":
                return True
        return False

    def judge_calls(self) -> None:
        """Print what the clients saw; note each failure that has no excuse."""
        print("| era | reads | failed | writes | failed | slowest |\n|---|--:|--:|--:|--:|--:|")
        for era in ERAS:
            calls = [each for each in self.calls if each.era == era]
            cells = []
            for each in ([c for c in calls if not c.token], [c for c in calls if c.token]):
                cells += [len(each), sum(bool(call.error) for call in each)]
            slowest = max((each.ended - each.began for each in calls), default=0.0)
            print(f"| {era} | {' | '.join(map(str, cells))} | {slowest:.1f} s |")
        since: dict[str, float] = defaultdict(float)
        for call in self.calls:
            if call.error and not self.excuse(call, since[call.client]):
                at = f"{call.began - self.calls[0].began:.1f} s"
                self.failures.append(f"{call.client} {at} {call.token or 'read'}: {call.error}")
            if not call.error:
                since[call.client] = call.ended

    async def judge_audit(self, config: Config) -> None:
        """Compare the audit with the calls and with the writes that Proxmox received."""
        table = records.audit
        async with open_store(config) as store:
            self.failures += [f"audit: {each}" for each in await store.audit_log.verify()]
            async with store.database.reading() as connection:
                query = select(table.c.key_name, table.c.kind, table.c.call_id, table.c.outcome)
                rows = (await connection.execute(query.add_columns(table.c.arguments))).all()
        twice = [each for each, number in self.proxmox.writes.items() if number > 1]
        self.failures += [f"received twice by Proxmox: {token}" for token in twice]
        kept = Counter((row.call_id, row.kind) for row in rows if row.call_id)
        self.failures += [f"recorded twice: {each}" for each, number in kept.items() if number > 1]
        intents = {
            json.loads(row.arguments).get("description"): row.call_id
            for row in rows
            if row.kind == "intent"
        }
        outcomes = {row.call_id: row.outcome for row in rows if row.kind == "outcome"}
        for token in self.proxmox.writes.keys() - intents.keys():
            self.failures.append(f"a write without an intent: {token}")
        for call in self.calls:
            if call.token and not call.error and outcomes.get(intents.get(call.token)) != "ok":
                self.failures.append(f"an answered write without an outcome: {call.token}")
        unknown = len(intents) - sum(each in outcomes for each in intents.values())
        reads = Counter(row.key_name for row in rows if row.kind == "call")
        lost = self._judge_reads(reads)
        print(
            f"\nAudit: {len(rows)} rows; {len(intents)} writes, of which {unknown} with an unknown "
            f"end; {self.proxmox.writes.total()} arrived at Proxmox. {reads.total()} reads and "
            f"refusals; {lost} reads of the last second before a kill are missing."
        )
        kills = sum(each.kind == "kill" for each in self.events)
        if unknown and not kills:
            self.failures.append(f"{unknown} writes without an outcome, and no server was killed")

    def _judge_reads(self, recorded: Mapping[str, int]) -> int:
        """Note clients whose rows are not as many as their calls; return the lost rows."""
        kills = [each.began for each in self.events if each.kind == "kill"]
        total = 0
        for name in self.keys:
            calls = [each for each in self.calls if each.client == name]
            good = [each for each in calls if not each.token and not each.error]
            may_miss = sum(
                any(each.ended <= kill <= each.ended + LOST_SECONDS for kill in kills)
                for each in good
            )
            failed = sum(bool(each.error) for each in calls)
            missing = len(good) - recorded.get(name, 0)
            total += max(0, missing)
            if not -failed <= missing <= may_miss:
                self.failures.append(f"{name}: {len(good)} reads, {recorded.get(name, 0)} rows")
        return total

    def judge_memory(self) -> None:
        """Print how memory and files of servers grew; note those that grew too much."""
        for pid, samples in self.samples.items():
            if len(samples) < 30:  # 5 minutes
                continue
            thirds = [samples[len(samples) // 3 : 2 * len(samples) // 3]]
            thirds.append(samples[2 * len(samples) // 3 :])
            memory = [statistics.median(each.memory for each in third) for third in thirds]
            files = [max(each.files for each in third) for third in thirds]
            minutes = (samples[-1].at - samples[0].at) / 60
            print(
                f"Server {pid}, {minutes:.0f} minutes: {samples[0].memory:.0f} MiB at first, "
                f"{memory[0]:.1f} in the second third, {memory[1]:.1f} in the last; files at most "
                f"{files[0]} and {files[1]}"
            )
            if memory[1] - memory[0] > MOST_MIB or files[1] - files[0] > MOST_FILES:
                self.failures.append(f"server {pid} grew")


@dataclass
class Disk:
    """The disk of a SQLite state: a small tmpfs, where one can be mounted."""

    folder: Path
    is_mounted: bool
    servers: Sequence[Server] = ()

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Let no file of the server grow: SQLite reports an error of its own for that."""
        [pid] = [each.process.pid for each in self.servers if each.process]
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let the disk be full."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount a tmpfs of 32 MiB, where this is permitted."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(folder))
    mounted = subprocess.run(("mount", *options), capture_output=True).returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(("umount", "-l", str(folder)), check=True)


async def until(fact: Callable[[], Any], seconds: float = START_SECONDS) -> None:
    """Wait until a fact is true; raise TimeoutError if it does not become so."""
    async with asyncio.timeout(seconds):
        while True:
            value = fact()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.1)


async def configure(config: Config, emulator: Emulator, names: Sequence[str]) -> dict[str, str]:
    """Prepare the state; return a key for each client."""
    async with open_store(config) as store, open_access(store) as access:
        await Settings(store).change(SETTINGS, by="soak")
        await add_lab(access, emulator["lab"])
        options = {"role": "Administrator", "toolsets": list(Toolset)}
        return {name: (await access.keys.create(name, **options))[1] for name in names}


@contextmanager
def one_server(folder: Path, state: Path) -> Iterator[Fleet]:
    """Start one server on SQLite."""
    [port] = free_ports(1)
    server = Server(port, folder / "server.log", {"PVEMCP_STATE_DIR": str(state)})
    server.start()
    try:
        yield Fleet(server.url, [server], None)
    finally:
        if server.process:
            server.process.kill()


@asynccontextmanager
async def prepared(options: argparse.Namespace, folder: Path) -> AsyncIterator[tuple[Run, Config]]:
    """Start all parts."""
    stack = await AsyncExitStack().__aenter__()
    async with stack:
        proxmox = Proxmox()
        scenario = Scenario.cluster("lab", nodes=3, guests=options.clients)
        emulator = await stack.enter_async_context(Emulator(scenario))
        names = [
            f"{era}-{place}"
            for era, number in ERAS.items()
            for place in range(max(1, number * options.clients // sum(ERAS.values())))
        ]
        database, disk, clocks, trust = None, None, [], True
        state = folder / "state"
        if options.balancer == "none":
            disk = stack.enter_context(small_disk(state))
            config = Config(state_dir=state)
        else:
            if "clock" in options.faults:
                clocks = [Clock(folder / f"clock-{name}") for name in ("server", "postgres")]
            environment = clocks[1].environment if clocks else None
            database = stack.enter_context(postgres_server(environment))
            config = Config(state_dir=state, database_url=database.url)  # type: ignore[arg-type]
        keys = await configure(config, emulator, names)
        if disk:
            started = stack.enter_context(one_server(folder, state))
            disk.servers = started.servers
        else:
            assert database
            trust = certificate(folder)
            first = clocks[0].environment if clocks else None
            parts = fleet(options.balancer, folder, database.url, options.servers, first)
            started = stack.enter_context(parts)
        for server in started.servers:
            await server.ready()
        workers = options.servers if options.balancer == "workers" else 0
        rest = (trust, keys, proxmox, emulator, clocks, disk, folder / "server.log", options.pace)
        run = Run(started, workers, database, *rest)
        await until(lambda: run.started_workers() >= workers)
        yield run, config


async def soak(options: argparse.Namespace, folder: Path) -> list[str]:
    """Run once; return the failures."""
    luck = random.Random(options.seed)
    async with prepared(options, folder) as (run, config):
        async with asyncio.TaskGroup() as tasks:
            for number, name in enumerate(run.keys):
                tasks.create_task(run.call_until_stopped(name, number))
            tasks.create_task(run.sample())
            try:
                await asyncio.sleep(options.quiet)
                async for kind in faults(options, luck):
                    print(f"{time.strftime('%X')} {kind}", flush=True)
                    await run.fail(kind, luck)
                    await asyncio.sleep(options.quiet)
            finally:
                run.stop.set()
        for server in run.fleet.servers:
            await server.stop()
        run.judge_calls()
        await run.judge_audit(config)
        run.judge_memory()
        lines = run.log.read_text(errors="replace").splitlines()
        run.failures += [f"an incident: {line[:300]}" for line in lines if "incident" in line]
        return run.failures


async def faults(options: argparse.Namespace, luck: random.Random) -> AsyncIterator[str]:
    """Yield the faults: each once, or at random until the time is over."""
    ends = time.monotonic() + options.minutes * 60
    for kind in options.faults:
        yield kind
    while time.monotonic() < ends:
        yield luck.choice(options.faults)


def main() -> int:
    every = "kill,freeze,stop,restart,crash,freeze-database,reload,clock"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--balancer", default="haproxy")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds between calls of a client")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds between faults")
    parser.add_argument("--faults", default=every)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    options = parser.parse_args()
    options.faults = options.faults.split(",")
    print(f"{options.clients} clients, {options.balancer}, seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="pvemcp-soak-"))
    folder.chmod(0o711)  # PostgreSQL reads its clock
    try:
        failures = asyncio.run(soak(options, folder))
    finally:
        if options.keep:
            print(f"The logs are in {folder}")
        else:
            shutil.rmtree(folder)
    for failure in failures[:50]:
        print(f"FAIL {failure}")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
