"""Compare fields of answers in three ways: Proxmox VE 9.2.11, the emulator, and our tools.

python scripts/compare_three_ways.py FOLDER     updates docs/contributors/three-ways.md

FOLDER has the recordings of Proxmox's own code. Each sample names a field of a tool, the request
and the key that it comes from, and the conversion that it promises. Our tools read the recorded
answers; an emulated cluster that is set up like the recorded one answers the same requests.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2 as httpx

from proxmox_client import ApiToken, Client
from pvemcp_server.clusters import Inventory
from replay_recordings import Replay

REPOSITORY: Final = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))  # so that `tests` is ours
from tests.server.tools.tool_client import (  # noqa: E402 - found by that path
    ConnectedCluster,
    FakeClusters,
    ToolClient,
)

PAGE: Final = REPOSITORY / "docs" / "contributors" / "three-ways.md"
VERSION: Final = "9.2"
INTRO: Final = """\
# Fields of answers, compared in three ways

`python scripts/compare_three_ways.py FOLDER` writes this page from recordings of Proxmox VE
9.2.11's own code ([tests.md](tests.md)). Our tools read the recorded answers. The last column says
how our value follows from Proxmox's, and which figures are measured: of those, the emulator has its
own. `tests/emulator/test_three_ways.py` compares all again. All agree.

| tool, field | request, key | Proxmox | emulator | our answer | how |
|---|---|---|---|---|---|
"""


def percent(value: Any) -> Any:
    """Return a fraction as a percentage with one decimal."""
    return round(100 * float(value), 1)


def moment(value: Any) -> Any:
    """Return epoch seconds as ISO 8601."""
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Source:
    """A request to Proxmox, and the row of its answer; `{}` is the answer itself."""

    path: str
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A call of a tool, and the row of its answer."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)


class Sample(NamedTuple):
    """A field of an answer and what it comes from; `measured` values differ in the emulator."""

    answer: Answer
    name: str
    source: Source
    key: str
    how: str = "as it is"
    convert: Callable[[Any], Any] = lambda value: value
    measured: bool = False


_ALL = {"detail_level": "Full"}
_VM = Answer("ListVms", _ALL, {"vmid": 100})
_CT = Answer("ListVms", _ALL, {"vmid": 200})
_RESOURCE_VM = Source("/cluster/resources", {"id": "qemu/100"})
_RESOURCE_CT = Source("/cluster/resources", {"id": "lxc/200"})
_NODE = Answer("ListNodes", _ALL, {"node": "pve1"})
_RESOURCE_NODE = Source("/cluster/resources", {"id": "node/pve1"})
_STORE = Answer("ListStorage", _ALL, {"storage": "shared"})
_RESOURCE_STORE = Source("/cluster/resources", {"id": "storage/pve1/shared"})
_VM_STATUS = Answer("GetVmStatus", {"vmid": 100})
_CT_STATUS = Answer("GetVmStatus", {"vmid": 200})
_NODE_STATUS = Answer("GetNodeStatus", {"node": "pve1"})
_STATUS = Source("/nodes/pve1/status")
_CURRENT = Source("/nodes/pve1/qemu/100/status/current")
_CURRENT_CT = Source("/nodes/pve1/lxc/200/status/current")
_CONFIG = Answer("GetVmConfig", {"vmid": 100})
_CONFIG_CT = Answer("GetVmConfig", {"vmid": 200})
_RAW_CONFIG = Source("/nodes/pve1/qemu/100/config")
_RAW_CONFIG_CT = Source("/nodes/pve1/lxc/200/config")
_CLUSTER = Answer("GetClusterStatus")
_OPTIONS = Answer("GetClusterOptions")
_VOLUME = Answer(
    "ListStorageContent",
    {"node": "pve1", "storage": "shared"},
    {"volid": "shared:100/vm-100-disk-0.qcow2"},
)
_RAW_VOLUME = Source(
    "/nodes/pve1/storage/shared/content", {"volid": "shared:100/vm-100-disk-0.qcow2"}
)

SAMPLES: Final = (
    Sample(_VM, "name", _RESOURCE_VM, "name"),
    Sample(_VM, "status", _RESOURCE_VM, "status"),
    Sample(_VM, "tags", _RESOURCE_VM, "tags", "split at semicolons", lambda tags: tags.split(";")),
    Sample(_VM, "pool", _RESOURCE_VM, "pool"),
    Sample(_VM, "is_template", _RESOURCE_VM, "template", "0 is false", bool),
    Sample(_VM, "memory_max", _RESOURCE_VM, "maxmem"),
    Sample(_VM, "disk_max", _RESOURCE_VM, "maxdisk"),
    Sample(_VM, "disk_usage", _RESOURCE_VM, "disk", "null: Proxmox says 0 of every VM",
           lambda _: None),
    Sample(_CT, "status", _RESOURCE_CT, "status"),
    Sample(_CT, "cpu_usage", _RESOURCE_CT, "cpu", "× 100", percent, measured=True),
    Sample(_CT, "memory_usage", _RESOURCE_CT, "mem", measured=True),
    Sample(_CT, "uptime", _RESOURCE_CT, "uptime", measured=True),
    Sample(_NODE, "status", _RESOURCE_NODE, "status"),
    Sample(_NODE, "cpu_usage", _RESOURCE_NODE, "cpu", "× 100", percent, measured=True),
    Sample(_NODE, "memory_total", _RESOURCE_NODE, "maxmem"),
    Sample(_NODE, "disk_total", _RESOURCE_NODE, "maxdisk"),
    Sample(_STORE, "type", _RESOURCE_STORE, "plugintype"),
    Sample(_STORE, "disk_total", _RESOURCE_STORE, "maxdisk"),
    Sample(_STORE, "disk_usage", _RESOURCE_STORE, "disk", measured=True),
    Sample(
        _STORE, "content", _RESOURCE_STORE, "content", "split at commas, in order",
        lambda text: sorted(text.split(",")),
    ),
    Sample(_VM_STATUS, "status", _CURRENT, "status"),
    Sample(_VM_STATUS, "qmp_status", _CURRENT, "qmpstatus"),
    Sample(_VM_STATUS, "cpu_count", _CURRENT, "cpus"),
    Sample(_VM_STATUS, "ha_managed", _CURRENT, "ha.managed", "0 is false", bool),
    Sample(_CT_STATUS, "memory_max", _CURRENT_CT, "maxmem"),
    Sample(_CT_STATUS, "swap_max", _CURRENT_CT, "maxswap"),
    Sample(_CT_STATUS, "disk_usage", _CURRENT_CT, "disk", measured=True),
    Sample(_NODE_STATUS, "pve_version", _STATUS, "pveversion", "its second part",
           lambda text: text.split("/")[1]),
    Sample(_NODE_STATUS, "memory_total", _STATUS, "memory.total"),
    Sample(_NODE_STATUS, "memory_available", _STATUS, "memory.available", measured=True),
    Sample(_NODE_STATUS, "cpu_threads", _STATUS, "cpuinfo.cpus"),
    Sample(_NODE_STATUS, "rootfs_total", _STATUS, "rootfs.total"),
    Sample(_NODE_STATUS, "load_avg_1m", _STATUS, "loadavg", "the first, as a number",
           lambda numbers: float(numbers[0]), measured=True),
    Sample(_CONFIG, "cores", _RAW_CONFIG, "cores"),
    Sample(_CONFIG, "memory_mb", _RAW_CONFIG, "memory", "a number", int),
    Sample(_CONFIG, "os_type", _RAW_CONFIG, "ostype"),
    Sample(_CONFIG, "boot_order", _RAW_CONFIG, "boot", "split at semicolons",
           lambda text: text.removeprefix("order=").split(";")),
    Sample(_CONFIG_CT, "swap_mb", _RAW_CONFIG_CT, "swap"),
    Sample(_CONFIG_CT, "cores", _RAW_CONFIG_CT, "cores", "null is no limit"),
    Sample(_CONFIG_CT, "name", _RAW_CONFIG_CT, "hostname"),
    Sample(_CLUSTER, "quorate", Source("/cluster/status", {"id": "cluster"}), "quorate",
           "1 is true", bool),
    Sample(_CLUSTER, "nodes_total", Source("/cluster/status", {"id": "cluster"}), "nodes"),
    Sample(_OPTIONS, "mac_prefix", Source("/cluster/options"), "mac_prefix"),
    Sample(_OPTIONS, "allowed_tags", Source("/cluster/options"), "allowed-tags"),
    Sample(Answer("ListPools", {}, {"poolid": "prod"}), "description",
           Source("/pools", {"poolid": "prod"}), "comment"),
    Sample(_VOLUME, "size", _RAW_VOLUME, "size"),
    Sample(_VOLUME, "format", _RAW_VOLUME, "format"),
    Sample(_VOLUME, "creation", _RAW_VOLUME, "ctime", "ISO 8601", moment, measured=True),
)  # fmt: skip


class Row(NamedTuple):
    """A sample with its three values."""

    sample: Sample
    recorded: Any
    emulated: Any
    ours: Any

    @property
    def follows(self) -> bool:
        """Whether our answer follows from Proxmox's by the promised conversion."""
        return bool(self.sample.convert(self.recorded) == self.ours)

    @property
    def agrees(self) -> bool:
        """Whether the emulator has Proxmox's value, or another one of its kind if measured."""
        if self.sample.measured:
            return _kind(self.emulated) == _kind(self.recorded)
        return bool(self.sample.convert(self.emulated) == self.sample.convert(self.recorded))


class RecordedAnswers(httpx.AsyncBaseTransport):
    """The first successful answer to each recorded GET; 501 for all other requests."""

    def __init__(self, exchanges: Iterable[Mapping[str, Any]]) -> None:
        self.bodies: dict[str, Any] = {}
        for exchange in exchanges:
            if (exchange["method"], exchange["status"], exchange["auth"]) == ("GET", 200, "root"):
                self.bodies.setdefault(exchange["path"], exchange["body"])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request from the recordings."""
        path = request.url.path.removeprefix("/api2/json")
        if path not in self.bodies:
            return httpx.Response(501, extensions={"reason_phrase": b"Method not implemented"})
        return httpx.Response(200, json=self.bodies[path])


@asynccontextmanager
async def recorded_client(transport: RecordedAnswers) -> AsyncIterator[ToolClient]:
    """Yield a client of our tools on a cluster that answers with the recordings."""
    token = ApiToken("root@pam!admin", "secret")
    async with Client(["pve1"], token, http_transport=transport, name="harness") as pve:
        inventory = Inventory(pve, lambda: 3600.0)
        connected = ConnectedCluster(None, pve, inventory, token.token_id)  # type: ignore[arg-type]  # none is emulated
        yield ToolClient(FakeClusters({"harness": connected}))


async def compare(folder: Path) -> list[Row]:
    """Return the three values of every sample."""
    lines = (folder / f"exchanges-{VERSION}.jsonl").read_text("utf-8").splitlines()
    transport = RecordedAnswers(map(json.loads, lines))
    replay = Replay(VERSION)
    await replay.prepare()
    rows, ours, emulated = [], dict[str, Any](), dict[str, Any]()
    async with recorded_client(transport) as client:
        for sample in SAMPLES:
            call, path = sample.answer, sample.source.path
            name = f"{call.tool} {call.arguments}"
            if name not in ours:
                answer = await client(call.tool, cluster_name="harness", **call.arguments)
                ours[name] = answer.data
            if path not in emulated:
                response = await replay.send("root", "GET", path, None, None)
                emulated[path] = json.loads(response.body)["data"]
            rows.append(
                Row(
                    sample,
                    _value(transport.bodies[path]["data"], sample.source.row, sample.key),
                    _value(emulated[path], sample.source.row, sample.key),
                    _value(ours[name], call.row, sample.name),
                )
            )
    return rows


def _value(data: Any, row: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key in a row of the data; None where it is absent."""
    if isinstance(data, list):
        data = next((each for each in data if row.items() <= each.items()), None)
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) else type(value).__name__


def page(rows: Iterable[Row]) -> str:
    """Return the page."""
    return INTRO + "".join(
        f"| {row.sample.answer.tool}, `{row.sample.name}` "
        f"| `{row.sample.source.path}`, `{row.sample.key}` "
        f"| {_cell(row.recorded)} | {'its own' if row.sample.measured else _cell(row.emulated)} "
        f"| {_cell(row.ours)} "
        f"| {row.sample.how}{'; measured' if row.sample.measured else ''} |\n"
        for row in rows
    )


def _cell(value: Any) -> str:
    text = json.dumps(value)
    return f"`{text if len(text) <= 60 else text[:57] + '…'}`"


def main() -> None:
    """Write the page; fail on a row that does not agree."""
    rows = asyncio.run(compare(Path(sys.argv[1])))
    PAGE.write_text(page(rows), "utf-8")
    wrong = [row for row in rows if not (row.follows and row.agrees)]
    for row in wrong:
        print(row.sample.answer.tool, row.sample.name, row.recorded, row.emulated, row.ours)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
