"""Versions and available updates of nodes."""

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from proxmox_client import Node
from proxmox_client.api.nodes import NodeStatus
from proxmox_client.api.software import Package
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.per_node import node_table, rows_of_nodes
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import Caveat, Col, Row, Unit

_KERNEL = re.compile(r"(?:pve|proxmox)-kernel-(?P<release>\d[\w.-]*-pve)(-signed)?")
_INSTALLED = "Installed"


class NodeVersion(Row):
    """The versions that a node runs."""

    minimal: ClassVar[tuple[str, ...]] = (
        *("node", "pve_version", "kernel", "newest_kernel", "reboot_needed"),
    )

    node: Annotated[str, Col("Node")]
    pve_version: Annotated[str | None, Col("Version of Proxmox VE: 9.2.11", aliases=("version",))]
    kernel: Annotated[str | None, Col("Kernel that runs: 6.17.4-2-pve")]
    newest_kernel: Annotated[str | None, Col("Newest kernel that is installed")]
    reboot_needed: Annotated[
        bool | None, Col("Whether a newer kernel than the running one is installed")
    ]
    qemu_server: Annotated[str | None, Col("Version of the package qemu-server")]
    packages: Annotated[
        list[str], Col("Installed packages of Proxmox VE: name=version", aliases=("installed",))
    ]
    cpu_model: Annotated[str | None, Col("Model of its processors")]
    boot_mode: Annotated[str | None, Col("efi or legacy-bios")]
    secure_boot: Annotated[bool | None, Col("Whether Secure Boot is on")]
    uptime: Annotated[int | None, Col("Time since its start", Unit.SECONDS)]


class NodeUpdate(Row):
    """A package of which a node can install a newer version."""

    minimal: ClassVar[tuple[str, ...]] = ("node", "package", "installed", "version", "origin")

    node: Annotated[str, Col("Node")]
    package: Annotated[str, Col("Package", aliases=("name",))]
    version: Annotated[
        str,
        Col(
            "Version that is available",
            caveat=Caveat(
                "Updates are as of the last refresh of each node's package lists, once a day."
            ),
        ),
    ]
    installed: Annotated[
        str | None,
        Col("Version that is installed; null for a new package", aliases=("old_version",)),
    ]
    origin: Annotated[str | None, Col("Where it is from: Debian, Proxmox …")]
    priority: Annotated[str | None, Col("Debian's priority: required, optional …")]
    section: Annotated[str | None, Col("Debian's section: admin, kernel, libs …")]
    title: Annotated[str | None, Col("Short description")]


@node_table("node_versions", tool="GetNodeStatus")
async def node_versions(cluster: Cluster, request: LoadRequest) -> list[NodeVersion]:
    """Versions that nodes run, and whether a newer kernel waits for a reboot."""

    async def ask(node: Node) -> Sequence[tuple[NodeStatus, list[Package]]]:
        return [(await node.status(), await node.package_versions())]

    return await rows_of_nodes(
        cluster, request, ask, lambda node, found: _version(node, *found), "versions of node"
    )


@node_table("updates", tool="GetNodeStatus")
async def updates(cluster: Cluster, request: LoadRequest) -> list[NodeUpdate]:
    """Packages of which nodes can install a newer version; the account needs Sys.Modify."""
    return await rows_of_nodes(cluster, request, Node.updates, _update, "updates of node")


def _version(node: str, status: NodeStatus, packages: Sequence[Package]) -> NodeVersion:
    installed = {each.package: each.version for each in packages if each.state == _INSTALLED}
    kernels = [match["release"] for match in map(_KERNEL.fullmatch, installed) if match]
    running = status.kernel.release or next(
        (each.running_kernel for each in packages if each.running_kernel), None
    )
    newest = max(kernels, key=_order, default=None)
    return NodeVersion(
        node=node,
        pve_version=_second_part(status.pve_version),
        kernel=running,
        newest_kernel=newest,
        reboot_needed=_order(newest) > _order(running) if newest and running else None,
        qemu_server=installed.get("qemu-server"),
        packages=[f"{name}={version}" for name, version in sorted(installed.items())],
        cpu_model=status.cpu_info.model or None,
        boot_mode=status.boot.mode or None,
        secure_boot=status.boot.secure_boot,
        uptime=status.uptime or None,
    )


def _second_part(version: str) -> str | None:
    """Return the number in pve-manager/9.2.11/14a22df3."""
    return version.partition("/")[2].partition("/")[0] or None


def _order(release: str) -> tuple[int, ...]:
    """Return the numbers of a kernel's release, for comparison."""
    return tuple(map(int, re.findall(r"\d+", release)))


def _update(node: str, package: Package) -> NodeUpdate:
    return NodeUpdate(
        node=node,
        package=package.package,
        version=package.version,
        installed=package.old_version or None,
        origin=package.origin,
        priority=package.priority,
        section=package.section,
        title=package.title,
    )
