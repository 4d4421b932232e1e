"""Faults of the demo clusters, and the answers of every tool while they last.

`scripts/make_docs_faults.py` records the answers in RECORDED and writes docs/reference/faults.md;
test_faults.py compares the answers with the record.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proxmox_client.emulator import FaultKind, demo
from pvemcp_server.toolkit.registry import tools

from .examples import HOME_LAB, PROD, Arguments, add_old_volumes, api_read, examples
from .tool_client import Answer, ToolClient, open_tool_client

RECORDED: Final = Path(__file__).with_name("fault_answers.txt")
WITHOUT_REQUESTS: Final = {"GetQuerySchema", "Undo"}  # Undo has no write to undo

LAB: Final = {
    name: arguments
    for name, arguments in examples(HOME_LAB).items()
    if name
    not in WITHOUT_REQUESTS
    | {"EvacuateNode", "MigrateVm", "MoveVmDisk"}  # it has one node, and one storage of disks
} | {"ListNodes": {"detail_level": "Full"}, "CallApi": api_read(HOME_LAB)}
OF_ONE_CLUSTER: Final = {"ListVmRrdData", "ListNodeRrdData", "GetLog", "CallApi"}
# Lists read both clusters here, to show that one answers while the other fails
BOTH: Final = {
    name: {key: value for key, value in arguments.items() if key != "cluster_name"}
    if tools()[name].lists and name not in OF_ONE_CLUSTER
    else arguments
    for name, arguments in LAB.items()
}
NODE: Final = {
    name: arguments
    for name, arguments in examples(
        replace(
            PROD,
            node="pve02",
            vmid=200,
            snapshot="after-cert-renewal",
            stopped=(151, "k8s-node-08"),
        )
    ).items()
    if name not in WITHOUT_REQUESTS
} | {
    "CallApi": api_read(replace(PROD, node="pve02")),
    "ExecuteQuery": {
        "cluster_name": "prod",
        "query": {"from": "node_disks", "select": ["node", "device"]},
    },
}
STORAGE: Final[dict[str, Arguments]] = {
    "ListBackups": {"cluster_name": "prod"},
    "ListStorageContent": {"cluster_name": "prod", "node": "pve01", "storage": "nfs-archive"},
    "ListStorage": {"cluster_name": "prod"},
    "GetClusterStatus": {"cluster_name": "prod"},
    "ExecuteQuery": {
        "cluster_name": "prod",
        "query": {
            "from": "backups",
            "select": ["storage", "COUNT(*) as total"],
            "groupBy": ["storage"],
        },
    },
}
TASKS: Final[dict[str, Arguments]] = {
    "ChangeVmState": {"cluster_name": "home-lab", "vmid": 105, "action": "Start", "wait": True},
    "DownloadIso": {**LAB["DownloadIso"], "wait": True},
}
MOVE: Final = {"MigrateVm": examples(PROD)["MigrateVm"]}


@dataclass(frozen=True)
class FaultCase:
    """A fault, how to inject it, and the calls that are made while it lasts."""

    title: str
    inject: Callable[[ToolClient], Awaitable[None]]
    calls: Mapping[str, Arguments]
    slow: bool = False  # whether calls wait for a timeout
    deadlines: Mapping[str, int] = field(default_factory=dict)  # of calls that wait for theirs


async def node_is_down(client: ToolClient) -> None:
    await client["prod"].emulated.node_down("pve02", seconds_ago=600)


async def node_went_down_just_now(client: ToolClient) -> None:
    # Proxmox keeps its figures for 300 s, and the clock of these tests runs fast
    await client["prod"].emulated.node_down("pve02", seconds_ago=-6000)


async def source_node_is_down(client: ToolClient) -> None:
    await client["prod"].emulated.node_down("pve01")


async def cluster_is_down(client: ToolClient) -> None:
    await client["home-lab"].emulated.node_down("pve")


async def cluster_hangs(client: ToolClient) -> None:
    client.change(call_deadline_seconds=20)  # for the healthy cluster on a busy machine
    inventory = client["home-lab"].inventory
    inventory.timeout = inventory.retry_timeout = (
        0.2  # every call waits for the first, or the second
    )
    inventory.retry_after = 0.0
    client["home-lab"].emulated.fault(FaultKind.HANG)


async def storage_hangs(client: ToolClient) -> None:
    client.change(call_deadline_seconds=4)
    client["prod"].emulated.fault(FaultKind.HANG, path=".*/storage/nfs-archive/")


async def privileges_are_missing(client: ToolClient) -> None:
    client["home-lab"].emulated.fault(
        FaultKind.FORBIDDEN, path="(?!/cluster/resources)", message="/nodes/pve, Sys.Audit"
    )


async def proxmox_fails(client: ToolClient) -> None:
    client["home-lab"].emulated.fault(
        FaultKind.ERROR, path="(?!/cluster/resources)", message="rados timeout"
    )


async def connections_break(client: ToolClient) -> None:
    client["home-lab"].emulated.fault(FaultKind.DROP, path="(?!/cluster/resources)")


async def tasks_fail(client: ToolClient) -> None:
    state = client["home-lab"].emulated.state
    state.guests[105].config["net0"] = "virtio=BC:24:11:00:00:09,bridge=nope"
    state.downloads[LAB["DownloadIso"]["source"]] = None


async def move_is_forbidden(client: ToolClient) -> None:
    client["prod"].emulated.fault(
        FaultKind.FORBIDDEN, path=".*/qemu/101/migrate", message="/vms/101, VM.Migrate"
    )


async def quorum_is_lost(client: ToolClient) -> None:
    client["prod"].emulated.fault(
        FaultKind.ERROR, method="POST", path=".*/qemu/101/migrate", message="no quorum!"
    )


async def move_breaks(client: ToolClient) -> None:
    client["prod"].emulated.fault(FaultKind.DROP, method="POST", path=".*/qemu/101/migrate")


async def move_hangs(client: ToolClient) -> None:
    client.change(call_deadline_seconds=2)
    client["prod"].emulated.fault(FaultKind.HANG, path=".*/qemu/101/migrate")


# Calls to a cluster that hangs wait for the inventory's short timeout; these wait for their own
WITHOUT_INVENTORY: Final = {
    "ListClusters": 4,
    "GetClusterOptions": 2,
    "ExplainAccess": 2,
    "ExecuteQuery": 4,
}

CASES: Final = (
    FaultCase("A node is down", node_is_down, NODE),
    FaultCase("A node went down just now", node_went_down_just_now, {"ListVms": NODE["ListVms"]}),
    FaultCase("A cluster is down", cluster_is_down, BOTH),
    FaultCase("A cluster hangs", cluster_hangs, BOTH, slow=True, deadlines=WITHOUT_INVENTORY),
    FaultCase("A storage hangs", storage_hangs, STORAGE, slow=True),
    FaultCase("The account lacks a privilege", privileges_are_missing, BOTH),
    FaultCase("Proxmox fails", proxmox_fails, BOTH),
    FaultCase("Connections break", connections_break, BOTH),
    FaultCase("Tasks fail", tasks_fail, TASKS),
    FaultCase("A migration's source is down", source_node_is_down, MOVE),
    FaultCase("A migration is forbidden", move_is_forbidden, MOVE),
    FaultCase("A migration meets a lost quorum", quorum_is_lost, MOVE),
    FaultCase("A migration's connection breaks", move_breaks, MOVE),
    FaultCase("A migration hangs", move_hangs, MOVE, slow=True),
)


async def answers_during(case: FaultCase) -> dict[str, Answer]:
    """Make the calls of a case on demo clusters of its own, each with an empty cache."""
    async with open_tool_client(demo(), https=True) as client:
        add_old_volumes(client["home-lab"].emulated.state, HOME_LAB)
        await case.inject(client)
        answers = {}
        for tool, arguments in case.calls.items():
            client.refresh()
            usual = client.settings.call_deadline_seconds
            client.change(call_deadline_seconds=case.deadlines.get(tool, usual))
            answers[tool] = await client(tool, **arguments)
            client.change(call_deadline_seconds=usual)
        return answers


def record(answers: Mapping[str, Answer]) -> str:
    """Return the error or the notes of each answer, one line each, in the format of RECORDED."""
    return "\n".join(
        f"{tool}: {'error' if answer.failed else 'note'}: {_stable(message_of(answer))}".rstrip()
        for tool, answer in answers.items()
    )


def message_of(answer: Answer) -> str:
    """Return the error, or the notes beside the data."""
    return answer.text if answer.failed else answer.notes


def recorded() -> dict[str, str]:
    """Read the records by the title of their case."""
    parts = re.split(r"^## (.*)\n", RECORDED.read_text("utf-8"), flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def _stable(message: str) -> str:
    """Remove what differs from run to run, and line ends."""
    for pattern, text in (
        (r"127\.0\.0\.1:\d+", "pve.example:8006"),
        (r" \(received \d+ bytes, expected \d+\)", ""),
        (r"UPID:[^ ]+", "UPID:…"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", "…"),
        (r"Recorded until then only: .*?…\.", ""),  # guests too, after some of Proxmox's minutes
        (r"cursor=\S+", "cursor=…"),
        (r"\b\d+(\.\d+)? s\b", "9 s"),
        (  # the circuit of a cluster that hangs opens after some of the calls
            r"Proxmox does not answer \(the cluster: no answer within [^)]*\)",
            "Proxmox did not answer in time (home-lab did not answer within 9 s)",
        ),
        (r"Left out because empty in every row: [^.]*\.", ""),
        (r", the next one of the same \w+", ""),  # when two tasks began in one second
        (r"Rows 1–\d+ of \d+[^\n]*", ""),
    ):
        message = re.sub(pattern, text, message)
    return " ".join(line for line in message.split("\n") if line)
