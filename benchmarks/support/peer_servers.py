"""Other MCP servers for Proxmox VE on PyPI: how each starts, and its calls for each read.

A read is something that Proxmox knows: the guests, their configurations, the tasks of all nodes.
For each one a peer names the calls of its own tools that cost least; what is absent has no tool.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxmox_client.emulator import EmulatedCluster
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest

ONE: Final = 101  # the guest of questions about one


class Call(NamedTuple):
    """A call of a peer's tool; `key` is the guest, node or storage that it is about."""

    tool: str
    arguments: dict[str, Any]
    key: str = ""


Calls = Callable[[ClusterState], list[Call]]


@dataclass(frozen=True)
class Connection:
    """Where a peer finds the emulated cluster, and the folder for what it keeps."""

    host: str
    port: int
    user: str
    token: str
    secret: str
    ca: Path
    folder: Path

    @classmethod
    def of(cls, cluster: EmulatedCluster, folder: Path) -> "Connection":
        """Return the connection to the first node; write down the authority of its certificate."""
        host, port = cluster.hosts[0].split(":")
        user, token = cluster.token[0].split("!")
        ca = folder / "ca.pem"
        ca.write_text(cluster.ca_pem)
        return cls(host, int(port), user, token, cluster.token[1], ca, folder)

    @property
    def token_id(self) -> str:
        return f"{self.user}!{self.token}"


@dataclass(frozen=True)
class Peer:
    """A package, the command that serves MCP over stdio, its settings, and its calls by read."""

    package: str
    version: str
    command: str
    settings: Callable[[Connection], Mapping[str, str]]
    reads: Mapping[str, Calls]
    also: str = ""
    """What has to be installed beside it, where it does not start as it is installed."""


def online(state: ClusterState) -> list[str]:
    return [node.name for node in state.nodes.values() if node.online]


def readable(state: ClusterState) -> Iterator[Guest]:
    """List the guests on nodes that are online."""
    return (guest for guest in state.guests.values() if state.nodes[guest.node].online)


def holders(state: ClusterState, content: str) -> list[tuple[str, str]]:
    """Return node and storage of each place with this content; shared ones once."""
    first = online(state)[0]
    return [
        (node, storage.name)
        for storage in state.storages.values()
        if content in storage.content and storage.enabled
        for node in ([first] if storage.shared else online(state))
        if node in (storage.nodes or state.nodes)
    ]


def _plain(tool: str, **arguments: Any) -> Calls:
    return lambda _state: [Call(tool, arguments)]


def _nodes(tool: str, **arguments: Any) -> Calls:
    """Return a call for each node that is online."""
    return lambda state: [Call(tool, {"node": n, **arguments}, n) for n in online(state)]


def _guests(
    qemu: str, lxc: str = "", *, kind: str = "", node: bool = True, vmid: type = int, **more: Any
) -> Calls:
    """Return a call for each guest; `kind` is the argument that has its type."""

    def calls(state: ClusterState) -> list[Call]:
        return [_about(g, qemu if g.kind == "qemu" else lxc, kind, node, vmid, more)
                for g in readable(state) if g.kind == "qemu" or lxc]  # fmt: skip

    return calls


def _one(calls: Calls) -> Calls:
    """Return the call about the guest ONE."""
    return lambda state: [call for call in calls(state) if call.key == str(ONE)]


def _configs(qemu: str, lxc: str = "", **options: Any) -> dict[str, Calls]:
    """Return the reads of configurations, which have the options of `_guests`."""
    configs = _guests(qemu, lxc, **options)
    return {"configs": configs, "one config": _one(configs)}


def _series(qemu: str, lxc: str, **options: Any) -> dict[str, Calls]:
    """Return the reads of series of guests, as `_configs` does."""
    return {
        "one day": _one(_guests(qemu, lxc, timeframe="day", **options)),
        "guest weeks": _guests(qemu, lxc, timeframe="week", **options),
    }


def _resources(tool: str, kind: str) -> dict[str, Calls]:
    """Return the reads by one tool for /cluster/resources, whose argument `kind` has the type."""
    types = {"guests": "vm", "nodes": "node", "storages": "storage"}
    return {read: _plain(tool, **{kind: value}) for read, value in types.items()}


def _raw(path: str, **more: str) -> Calls:
    """Return a GET of this path of each node that is online, by proxmox_api_raw."""
    return lambda state: [
        Call("proxmox_api_raw", {"method": "GET", "path": f"/nodes/{node}/{path}", **more}, node)
        for node in online(state)
    ]


def _about(
    guest: Guest, tool: str, kind: str, node: bool, vmid: type, more: Mapping[str, Any]
) -> Call:
    arguments = {"vmid": vmid(guest.vmid), **more}
    if node:
        arguments["node"] = guest.node
    if kind:
        arguments[kind] = str(guest.kind)
    return Call(tool, arguments, str(guest.vmid))


def _contents(tool: str, kind: str, name: str = "storage", /, **more: Any) -> Calls:
    """Return a call for each storage that may hold this content."""
    return lambda state: [
        Call(tool, {"node": node, name: storage, **more}, storage)
        for node, storage in holders(state, kind)
    ]


def _wrapped(calls: Calls) -> Calls:
    """Put the arguments into `params`, where the tools of pve-mcp take them."""
    return lambda state: [
        call._replace(arguments={"params": call.arguments}) for call in calls(state)
    ]


def _tls(connection: Connection) -> dict[str, str]:
    """Trust the emulator's authority, in the ways of requests, httpx and ssl."""
    return {"REQUESTS_CA_BUNDLE": str(connection.ca), "SSL_CERT_FILE": str(connection.ca)}


def _in_variables(connection: Connection) -> dict[str, str]:
    return {
        **_tls(connection),
        "PROXMOX_HOST": connection.host,
        "PROXMOX_PORT": str(connection.port),
        "PROXMOX_USER": connection.user,
        "PROXMOX_TOKEN_NAME": connection.token,
        "PROXMOX_TOKEN_VALUE": connection.secret,
        "PROXMOX_TOKEN_ID": connection.token_id,
        "PROXMOX_TOKEN_SECRET": connection.secret,
        "PROXMOX_VERIFY_SSL": "1",
    }


def _in_a_file(connection: Connection) -> dict[str, str]:
    path = connection.folder / "config.json"
    proxmox = {"host": connection.host, "port": connection.port, "verify_ssl": True}
    auth = {
        "user": connection.user,
        "token_name": connection.token,
        "token_value": connection.secret,
    }
    jobs = {"sqlite_path": str(connection.folder / "jobs.sqlite3")}
    logging = {"level": "ERROR", "format": "%(message)s"}
    parts = {"proxmox": {**proxmox, "service": "PVE"}, "auth": auth, "jobs": jobs}
    path.write_text(json.dumps({**parts, "logging": logging, "mcp": {"transport": "STDIO"}}))
    return {**_tls(connection), "PROXMOX_MCP_CONFIG": str(path)}


def _as_url(connection: Connection) -> dict[str, str]:
    return {
        **_tls(connection),
        "PROXMOX_URL": f"https://{connection.host}:{connection.port}/api2/json",
        "PROXMOX_TOKEN_NAME": connection.token_id,
        "PROXMOX_TOKEN_VALUE": connection.secret,
        "PROXMOX_VERIFY_SSL": "true",
        "PROXMOX_ALLOW_DANGER": "true",  # its wheel lacks the policy that lets reads through
    }


def _as_target(connection: Connection) -> dict[str, str]:
    home = connection.folder / "aiops"
    home.mkdir(exist_ok=True)
    lines = [
        "targets:",
        "  - name: pve-lab",
        f"    host: {connection.host}",
        f"    port: {connection.port}",
        f'    user: "{connection.token_id}"',
        "    node: pve01",
        "    auth_kind: token",
        "    verify_ssl: true",
    ]
    (home / "config.yaml").write_text("\n".join(lines))
    secret = {"PROXMOX_PVE_LAB_SECRET": connection.secret, "PROXMOX_AIOPS_HOME": str(home)}
    return {**_tls(connection), **secret}


PEERS: Final[Sequence[Peer]] = (
    Peer(
        "proxmox-mcp-server", "1.4.4", "proxmox-mcp-server", _in_variables,
        {
            **_resources("get_cluster_resources", "type"),
            "cluster": _plain("get_cluster_status"),
            **_configs("get_vm_config", "get_container_config"),
            "pending": _guests("get_vm_pending", "get_container_pending"),
            "snapshots": _guests("list_vm_snapshots", "list_container_snapshots"),
            "addresses": _guests("vm_agent_get_info", "get_container_interfaces",
                                 info_type="network-get-interfaces"),
            "filesystems": _guests("vm_agent_get_info", info_type="get-fsinfo"),
            "states": _guests("get_vm_status"),
            **_series("get_vm_rrddata", "get_container_rrddata"),
            "storage months": _contents("get_storage_rrddata", "images", timeframe="month"),
            "backups": _contents("list_storage_content", "backup", content="backup"),
            "isos": _contents("list_storage_content", "iso", content="iso"),
            "jobs": _plain("list_backup_jobs"),
            "tasks": _nodes("list_node_tasks", limit=500),
            "log": _plain("get_cluster_log", max_entries=500),
            "ha": _plain("proxmox_api_raw", method="GET", path="/cluster/ha/status/current"),
            "rules": _plain("proxmox_api_raw", method="GET", path="/cluster/ha/rules"),
            "replication": _raw("replication"),
            "node months": _raw("rrddata", params='{"timeframe": "month"}'),
            "updates": _raw("apt/update"),
            "kernels": _nodes("get_node_status"),
            "disks": _nodes("get_node_disks"),
            "ceph": _plain("get_ceph_status_cluster"),
            "certificates": _nodes("get_node_certificates"),
            "subscriptions": _nodes("get_node_subscription"),
            "clocks": _nodes("get_node_time"),
            "pci": _nodes("get_node_hardware_pci"),
            "pools": _plain("list_pools"),
            "acl": _plain("get_acl"),
            "tokens": _plain("list_users", full=True),
            "firewall": _plain("list_cluster_firewall_rules"),
        },
    ),
    Peer(
        "cursor-proxmox-mcp", "1.9.0", "cursor-proxmox-mcp", _in_a_file,
        {
            **_resources("get_cluster_resources", "type"),
            "cluster": _plain("get_cluster_status"),
            **_configs("get_vm_config", "get_lxc_config", vmid=str),
            "pending": _guests("get_guest_pending", "get_guest_pending", kind="guest_type",
                               vmid=str),
            "snapshots": _guests("list_snapshots", "list_snapshots", kind="guest_type", vmid=str),
            "addresses": _guests("get_vm_network", "get_lxc_network", vmid=str,
                                 resolve_runtime=True),
            **_series("get_vm_rrd_data", "get_lxc_rrd_data", vmid=str),
            "backups": _contents("list_backups", "backup"),
            "isos": _contents("list_isos", "iso"),
            "jobs": _plain("list_backup_jobs"),
            "tasks": _nodes("list_tasks"),
            "log": _plain("get_cluster_log", max_entries=500),
            "ha": lambda _s: [Call("list_ha_resources", {}), Call("get_ha_status", {})],
            "replication": lambda state: [
                Call("get_replication_status", {"node": job.source, "jobid": name}, name)
                for name, job in state.replications.items() if job.source in online(state)
            ],
            "kernels": _nodes("get_node_status"),
            "disks": _nodes("list_node_disks"),
            "ceph": _plain("get_ceph_status"),
            "certificates": _nodes("list_node_certificates"),
            "subscriptions": _nodes("get_node_subscription"),
            "clocks": _nodes("get_node_time"),
            "pools": _plain("list_pools"),
            "acl": _plain("list_acl"),
            "tokens": lambda state: [
                Call("list_tokens", {"userid": user}, user) for user in state.user_config.users
            ],
            "firewall": _plain("list_cluster_firewall_rules"),
        },
        also="mcp<2",
    ),
    Peer(
        "proxmox-mcp-plus", "0.6.7", "proxmox-mcp-plus", _in_a_file,
        {
            "guests": lambda _s: [Call("get_vms", {}), Call("get_containers", {})],
            "nodes": _plain("get_nodes"),
            "storages": _plain("get_storage"),
            "cluster": _plain("get_cluster_status"),
            **_configs("get_vm_config", "get_container_config", vmid=str),
            "snapshots": _guests("list_snapshots", "list_snapshots", kind="vm_type", vmid=str),
            "addresses": _guests("get_vm_ip_addresses", "get_container_ip", vmid=str),
            "backups": _plain("list_backups"),
            "isos": _plain("list_isos"),
            "log": _plain("get_cluster_log", max_entries=500),
            "kernels": _nodes("get_node_status"),
            "clocks": _nodes("get_node_time"),
        },
    ),
    Peer(
        "pve-mcp", "1.3.0", "pve-mcp", _in_variables,
        {
            "guests": _wrapped(_plain("proxmox_list_vms")),
            "nodes": _wrapped(_plain("proxmox_list_nodes")),
            "storages": _wrapped(_nodes("proxmox_list_storage")),
            "snapshots": _wrapped(_guests("proxmox_list_snapshots", "proxmox_list_snapshots",
                                          kind="vm_type")),
            "backups": _wrapped(_contents("proxmox_list_backups", "backup", limit=500)),
            "isos": _wrapped(_contents("proxmox_list_isos", "iso")),
            "jobs": _plain("proxmox_list_backup_jobs"),
            "tasks": _wrapped(_nodes("proxmox_list_tasks", limit=500)),
            "kernels": _wrapped(_nodes("proxmox_get_node_status")),
            "disks": _wrapped(_nodes("proxmox_list_disks")),
            "states": _wrapped(_guests("proxmox_get_vm_status", "proxmox_get_vm_status",
                                       kind="vm_type")),
        },
        also="mcp<2",
    ),
    Peer(
        "mcp-proxmox", "1.2.3", "mcp-proxmox", _in_variables,
        {
            "guests": lambda _s: [Call("list_vms", {}), Call("list_containers", {})],
            "nodes": _plain("list_nodes"),
            "storages": _plain("list_storages"),
            "states": _guests("get_guest_status", "get_guest_status", node=False),
            "snapshots": _guests("list_snapshots", "list_snapshots", node=False),
            **_series("get_guest_metrics", "get_guest_metrics", node=False),
            "backups": _contents("list_backups", "backup", "storage_name"),
            "isos": _contents("list_storage_content", "iso", "storage_name", content_type="iso"),
            "tasks": _nodes("list_tasks", limit=100),
            "kernels": _nodes("get_node_status"),
            "firewall": _plain("list_firewall_rules"),
        },
    ),
    Peer(
        "proxmox-aiops", "0.15.0", "proxmox-aiops-mcp", _as_target,
        {
            **_resources("cluster_resources", "resource_type"),
            "cluster": _plain("cluster_status"),
            **_configs("vm_config"),
            "snapshots": _guests("vm_list_snapshots"),
            "backups": _contents("backup_list", "backup"),
            "isos": _contents("storage_content", "iso", content="iso"),
            "ha": lambda _s: [Call("ha_resource_list", {}), Call("ha_status", {})],
            "kernels": _nodes("node_status"),
            "pools": _plain("pool_list"),
        },
    ),
    Peer(
        "proxmox-mcp", "0.1.0", "proxmox-mcp", _as_url,
        {
            "guests": lambda state: [
                Call(tool, {"node": node}, node)
                for node in online(state) for tool in ("list_vms", "list_lxc_containers")
            ],
            "nodes": _plain("list_nodes"),
            "storages": _nodes("list_storage"),
            **_configs("get_instance_config", "get_instance_config", kind="type"),
            "snapshots": _guests("list_snapshots", "list_snapshots", kind="type"),
            **_series("get_resource_usage", "get_resource_usage", kind="type"),
            "backups": _contents("list_storage_content", "backup"),
            "isos": _contents("list_storage_content", "iso"),
        },
    ),
)  # fmt: skip
