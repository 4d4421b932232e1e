"""Software of nodes: packages, updates, services, certificates and the subscription."""

from typing import Any

from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.cluster import RELEASES
from proxmox_client.emulator.state.node import Update

SERVICES = (
    *("chrony", "corosync", "cron", "postfix", "pve-cluster", "pve-firewall", "pve-ha-crm"),
    *("pve-ha-lrm", "pvedaemon", "pveproxy", "pvescheduler", "pvestatd", "spiceproxy", "sshd"),
)
PMXCFS = "pve-cluster"
"""The service that runs pmxcfs."""


@route("GET", "/nodes/{node}/apt/versions")
def package_versions(request: ApiRequest) -> list[dict[str, str]]:
    """GET /nodes/{node}/apt/versions: the packages that identify the version, and the kernels."""
    number, _ = RELEASES[request.state.version]
    kernel, newest = request.node.kernel, request.node.newest_kernel
    manager, running = {"ManagerVersion": number}, {"RunningKernel": kernel}
    return [
        _installed("proxmox-ve", request.state.version) | running,
        _installed("pve-manager", number) | manager,
        _installed("qemu-server", number),
        *(_installed(f"proxmox-kernel-{name}-signed", name) for name in (newest, kernel) if name),
    ]


def _installed(name: str, version: str) -> dict[str, str]:
    state = {"OldVersion": version, "CurrentState": "Installed"}
    return _package(Update(name, version, title=name)) | state


def _package(update: Update) -> dict[str, str]:
    return {
        "Package": update.package,
        "Version": update.version,
        "Arch": "amd64",
        "Origin": update.origin,
        "Priority": "optional",
        "Section": "admin",
        "Title": update.title,
        "Description": update.title,
        **({"OldVersion": update.installed} if update.installed else {}),
    }


@route("GET", "/nodes/{node}/apt/update")
def updates(request: ApiRequest) -> list[dict[str, str]]:
    """GET /nodes/{node}/apt/update."""
    return [_package(update) for update in request.node.updates]


@route("GET", "/nodes/{node}/services")
def services(request: ApiRequest) -> list[dict[str, str]]:
    """GET /nodes/{node}/services: those of `node.stopped` are dead."""
    stopped = {PMXCFS if name == "pmxcfs" else name for name in request.node.stopped}
    return [
        {
            "service": name,
            "name": name,
            "desc": name,
            "state": "dead" if name in stopped else "running",
            "active-state": "inactive" if name in stopped else "active",
            "unit-state": "enabled",
        }
        for name in SERVICES
    ]


@route("GET", "/nodes/{node}/certificates/info")
def certificates(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/certificates/info."""
    certificate = request.node.certificate
    if certificate is None:
        return []
    return [
        {
            "filename": "pve-ssl.pem",
            "fingerprint": certificate.fingerprint,
            "pem": certificate.pem,
            "notafter": certificate.expires,
            "notbefore": certificate.expires - 3650 * 86400,
            "subject": f"/CN={request.node.name}",
            "issuer": "/CN=Proxmox VE emulator",
            "san": ["127.0.0.1", request.node.address, "localhost", request.node.name],
            "public-key-type": "id-ecPublicKey",
            "public-key-bits": 256,
        }
    ]


@route("GET", "/nodes/{node}/subscription")
def subscription(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/subscription."""
    return request.node.subscription or {
        "status": "notfound",
        "serverid": f"{request.node.number:032X}",
        "message": "There is no subscription key",
        "url": "https://www.proxmox.com/en/proxmox-virtual-environment/pricing",
    }
