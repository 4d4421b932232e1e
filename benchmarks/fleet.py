"""Two servers over one PostgreSQL with many clusters, of which some are dead and some hang.

    python benchmarks/fleet.py [--clusters 1000] [--nodes 2] [--guests 100] [--most-mib 1024]
    python benchmarks/fleet.py --findings

The clusters are simulated in the servers' processes (`support/simulated.py`), so the figures are
the servers' own work, without TLS and network. 5 % of the clusters refuse connections and 5 % never
answer. Each row of the table is one call: what it took, what it sent to Proxmox, and what its
answer says about the rest. Fails when a server starts later or takes more memory than the bars, or
when an answer over all clusters does not say what it left out.

With `--findings` it measures the rows of the scale findings again, each beside its figures of
commit fe8d6d0: those were taken with TLS and an emulator in another process, so their seconds of
CPU are more than the calls' own, and requests and limits are what compares.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
import psutil

from pvemcp_server.access import open_access
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.store.records import TlsMode
from support.postgres import postgres
from support.simulated import SECRET, TOKEN_ID, read_counter

SERVER = Path(__file__).parent / "support" / "simulated.py"
START_SECONDS = 10.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CLUSTER = {"field": "cluster", "operator": "=", "value": "c0010"}
BY_CLUSTER = {
    "from": "guests",
    "select": ["cluster", "COUNT(*) as number"],
    "groupBy": ["cluster"],
    "orderBy": "cluster asc",
}
CALLS = {  # name of the row: tool and arguments; a call with `cluster` is for one of them
    "ListVms, one cluster": ("ListVms", {"cluster_name": "c0010"}),
    "ListVms, all": ("ListVms", {}),
    "ListVms, all, again": ("ListVms", {}),
    "query, one cluster": ("ExecuteQuery", {"query": {"from": "guests", "where": CLUSTER}}),
    "query, by cluster": ("ExecuteQuery", {"query": BY_CLUSTER}),
    "query, a request per guest": ("ExecuteQuery", {"query": {**BY_CLUSTER, "from": "snapshots"}}),
    "GetAttention, one cluster": ("GetAttention", {"cluster_name": "c0010"}),
    "GetAttention, all": ("GetAttention", {}),
}


DEAD_AND_HANGING = {18: "dead", 19: "hanging"}  # of each twenty
HANGING = {"cluster_name": "c0010"}
ALL_COLUMNS = {"from": "guests", "limit": 1000}
COUNT = {"from": "guests", "select": ["COUNT(*) as number"]}
SNAPSHOTS = {**COUNT, "from": "snapshots"}
TASKS = {**COUNT, "from": "tasks"}


@dataclass(frozen=True)
class Finding:
    """Rows of the findings that need the same clusters; `before` are the figures of then."""

    title: str
    clusters: int
    nodes: int
    guests: int
    kinds: Mapping[int, str]  # of cluster numbers, modulo the smallest number beyond all of them
    rows: Sequence[tuple[str, str, Mapping[str, object], str]]


FINDINGS = (
    Finding(
        "50 × 100 guests",
        50,
        2,
        100,
        {},
        (
            ("ListVms of all, cold", "ListVms", {}, "50 requests, 0.93 s, 0.24 s of CPU"),
            ("the same, warm", "ListVms", {}, "0, 0.03 s, 0.01 s"),
            ("count of guests", "ExecuteQuery", {"query": COUNT}, "0, 0.05–0.2 s, 0.02–0.04 s"),
            ("1,000 rows, all columns", "ExecuteQuery", {"query": ALL_COLUMNS}, "0, 0.4 s, 0.1 s"),
            ("count of tasks", "ExecuteQuery", {"query": TASKS}, "150, 2.0 s, 0.23 s"),
            ("count of snapshots", "ExecuteQuery", {"query": SNAPSHOTS}, "5,050, 50 s, 6.0 s"),
            ("the same again", "ExecuteQuery", {"query": SNAPSHOTS}, "5,050, 50 s, 6.0 s"),
        ),
    ),
    Finding(
        "200 × 100 guests, 10 dead",
        200,
        2,
        100,
        {19: "dead"},
        (
            ("ListVms of all, cold", "ListVms", {}, "190 answers, 4.6 s, 0.81 s"),
            ("the same, warm", "ListVms", {}, "0, 0.03 s, 0.03 s"),
        ),
    ),
    Finding(
        "one of 10,000 guests on 30 nodes",
        1,
        30,
        10_000,
        {},
        (
            ("ListVms, cold", "ListVms", {}, "1, 0.46 s, 0.14 s"),
            ("the same, warm", "ListVms", {}, "0, 0.01 s, 0.00 s"),
            ("count of tasks", "ExecuteQuery", {"query": TASKS}, "31, 0.4 s, 0.05 s"),
            (
                "count of snapshots",
                "ExecuteQuery",
                {"query": SNAPSHOTS},
                "2,001, 15–29 s, 1.9–2.9 s",
            ),
            ("ListSnapshots", "ListSnapshots", {}, "1,002, 23 s, 1.6 s"),
            ("GetClusterStatus", "GetClusterStatus", {}, "1, 0.03 s, 0.01 s"),
        ),
    ),
    Finding(
        "50 × 100 guests, one hangs",
        50,
        2,
        100,
        {10: "hanging", 50: "pve"},
        (
            ("GetClusterStatus of it", "GetClusterStatus", HANGING, "60.0 s"),
            ("the same again", "GetClusterStatus", HANGING, "60.0 s"),
            ("ListVms of it", "ListVms", HANGING, "0.06–5 s"),
            ("ListVms of all", "ListVms", {}, "5.1 s, then 0.06 s"),
            ("the same again", "ListVms", {}, "0.06 s"),
        ),
    ),
)


@dataclass(frozen=True)
class Replica:
    """A server process with simulated clusters."""

    url: str
    process: psutil.Process
    counter: Path
    start_seconds: float
    start_cpu: float

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return self.process.memory_info().rss / 2**20


def host(number: int, kinds: Mapping[int, str] = DEAD_AND_HANGING) -> str:
    """Return the host of a cluster, by default one of twenty dead and one that hangs."""
    kind = kinds.get(number % (max(kinds) + 1), "pve") if kinds else "pve"
    return f"{kind}-{number:04}.example:8006"


async def configure(
    config: Config, clusters: int, kinds: Mapping[int, str] = DEAD_AND_HANGING
) -> str:
    """Store the clusters and a key for everything; return the key's secret."""
    async with open_store(config) as store, open_access(store) as access:
        for number in range(clusters):
            await access.clusters.create(
                f"c{number:04}",
                [host(number, kinds)],
                token_id=TOKEN_ID,
                secret=SECRET,
                tls_mode=TlsMode.INSECURE,
            )
        await Settings(store).change({"enabled": True}, by="benchmark")
        _, secret = await access.keys.create("fleet")
        return secret


@contextmanager
def replica(folder: Path, name: str, environment: Mapping[str, str]) -> Iterator[Replica]:
    """Start a server; yield it when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    counter = folder / f"{name}.requests"
    variables = {**os.environ, **environment, "PVEMCP_PORT": str(port), "COUNTER": str(counter)}
    began = time.monotonic()
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, SERVER], env=variables, stdout=log, stderr=log
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            while not _is_ready(url):
                if process.poll() is not None:
                    raise SystemExit((folder / f"{name}.log").read_text())
            seconds, watched = time.monotonic() - began, psutil.Process(process.pid)
            times = watched.cpu_times()
            yield Replica(url, watched, counter, seconds, times.user + times.system)
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        time.sleep(0.02)
        return False


@dataclass(frozen=True)
class Answer:
    """One call: what it took, and what it said."""

    seconds: float
    cpu: float
    requests: int
    size: int
    notes: list[str]
    is_error: bool


async def call(server: Replica, secret: str, tool: str, arguments: Mapping[str, object]) -> Answer:
    """Call a tool as a client of 2026-07-28 does."""
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": META},
    }
    headers = {
        "Authorization": f"Bearer {secret}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    cpu, requests, began = server.cpu(), read_counter(server.counter), time.monotonic()
    async with httpx.AsyncClient(timeout=120) as client:
        response = await client.post(f"{server.url}/mcp", json=message, headers=headers)
    seconds = time.monotonic() - began
    body = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        body = next(line[6:] for line in body.splitlines() if line.startswith("data: {"))
    result = json.loads(body).get("result") or {"content": [], "isError": True}
    texts = [block["text"] for block in result["content"] if block["type"] == "text"]
    return Answer(
        seconds,
        server.cpu() - cpu,
        read_counter(server.counter) - requests,
        sum(map(len, texts)),
        texts[1:],
        bool(result.get("isError")) or response.status_code != 200,
    )


async def measure(servers: Sequence[Replica], secret: str) -> bool:
    """Print a row for each call; return whether each answer was honest about what it left out."""
    first, second = servers
    honest = True
    print("| call | s | CPU s | requests | bytes | said about the rest |")
    print("|---|--:|--:|--:|--:|---|")
    for name, (tool, arguments) in CALLS.items():
        answer = await call(first, secret, tool, arguments)
        said = " ".join(answer.notes)
        honest &= not answer.is_error and ("cluster_name" in arguments or bool(said))
        row(name, answer, said)
    alone = await call(second, secret, *CALLS["ListVms, one cluster"])
    row("the second server, one cluster", alone, "")
    everything = asyncio.create_task(call(second, secret, *CALLS["ListVms, all"]))
    await asyncio.sleep(0)
    beside = [await call(second, secret, *CALLS["ListVms, one cluster"]) for _ in range(11)]
    beside.sort(key=lambda each: each.seconds)
    row("the second server, one cluster beside all, median", beside[5], "")
    row("the second server, one cluster beside all, slowest", beside[-1], "")
    row("the second server, all", await everything, "")
    return honest


def row(name: str, answer: Answer, said: str) -> None:
    shown = said[:160].replace("\n", " ").replace("|", "/")
    error = "ERROR " if answer.is_error else ""
    print(
        f"| {name} | {answer.seconds:.2f} | {answer.cpu:.2f} | {answer.requests} | {answer.size} "
        f"| {error}{shown} |",
        flush=True,
    )


async def measure_again(server: Replica, secret: str, finding: Finding) -> None:
    """Print the rows of a finding."""
    for name, tool, arguments, before in finding.rows:
        answer = await call(server, secret, tool, arguments)
        said = " ".join(answer.notes)[:100].replace("\n", " ").replace("|", "/")
        after = f"{answer.requests:,} requests, {answer.seconds:.2f} s, {answer.cpu:.2f} s of CPU"
        print(f"| {finding.title}: {name} | {before} | {after} | {said} |", flush=True)


def findings() -> None:
    """Measure the rows of the findings again."""
    print("| | before | after | said about the rest |\n|---|---|---|---|")
    for finding in FINDINGS:
        with TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            environment = {
                "PVEMCP_STATE_DIR": str(folder / "var"),
                "NODES": str(finding.nodes),
                "GUESTS": str(finding.guests),
            }
            config = Config(state_dir=folder / "var")
            secret = asyncio.run(configure(config, finding.clusters, finding.kinds))
            server = stack.enter_context(replica(folder, "a", environment))
            start = f"{server.start_cpu:.1f} s of CPU, {server.memory():.0f} MiB"
            print(f"| {finding.title}: start | 2.1–2.5 s of CPU, 129 MiB | {start} | |", flush=True)
            asyncio.run(measure_again(server, secret, finding))
            print(f"| {finding.title}: memory at the end | | {server.memory():.0f} MiB | |")


def main(clusters: int, nodes: int, guests: int, most_mib: int) -> bool:
    with TemporaryDirectory() as name, postgres() as database, ExitStack() as stack:
        folder = Path(name)
        environment = {
            "PVEMCP_STATE_DIR": str(folder / "var"),
            "PVEMCP_DATABASE_URL": database,
            "NODES": str(nodes),
            "GUESTS": str(guests),
        }
        os.environ.update(environment)
        secret = asyncio.run(configure(Config(), clusters))
        servers = [stack.enter_context(replica(folder, each, environment)) for each in "ab"]
        print(f"{clusters} clusters of {nodes} nodes and {guests} guests, two servers\n")
        for each in servers:
            print(f"Ready after {each.start_seconds:.1f} s, {each.start_cpu:.1f} s of CPU,", end="")
            print(f" {each.memory():.0f} MiB")
        honest = asyncio.run(measure(servers, secret))
        memory = max(each.memory() for each in servers)
        print(f"\nMemory at the end: {memory:.0f} MiB of at most {most_mib}")
        quick = max(each.start_seconds for each in servers) < START_SECONDS
        return honest and quick and memory < most_mib


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--guests", type=int, default=100)
    parser.add_argument("--most-mib", type=int, default=1024)
    parser.add_argument("--findings", action="store_true")
    options = parser.parse_args()
    if options.findings:
        sys.exit(findings())
    sys.exit(not main(options.clusters, options.nodes, options.guests, options.most_mib))
