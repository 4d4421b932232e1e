"""Stubs: endpoints with fixed or empty answers, such as SDN, mappings and metric servers."""

from typing import Any

from proxmox_client.emulator.router import ApiRequest, route

EMPTY = (
    "/cluster/sdn/zones",
    "/cluster/sdn/vnets",
    "/cluster/metrics/server",
    "/cluster/jobs/realm-sync",
    "/cluster/mapping/pci",
    "/cluster/mapping/usb",
    "/cluster/mapping/dir",
    "/nodes/{node}/hardware/usb",
    "/nodes/{node}/qemu/{vmid}/cloudinit",
    "/nodes/{node}/sdn/zones",
)


@route("GET", *EMPTY)
def empty_list(_request: ApiRequest) -> list[dict[str, Any]]:
    """GET of a list that is always empty."""
    return []


@route("GET", "/cluster/notifications/targets")
def notification_targets(_request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/notifications/targets."""
    comment = "Send mails to root@pam"
    return [{"name": "mail-to-root", "type": "sendmail", "origin": "builtin", "comment": comment}]


@route("GET", "/cluster/notifications/matchers")
def notification_matchers(_request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/notifications/matchers."""
    target = ["mail-to-root"]
    return [{"name": "default-matcher", "mode": "all", "origin": "builtin", "target": target}]


@route("GET", "/cluster/bulk-action")
def bulk_actions(_request: ApiRequest) -> list[dict[str, str]]:
    """GET /cluster/bulk-action."""
    return [{"name": "guest"}]


@route("GET", "/nodes/{node}/hosts")
def hosts(request: ApiRequest) -> dict[str, str]:
    """GET /nodes/{node}/hosts."""
    lines = ["127.0.0.1\tlocalhost"]
    lines += [f"{node.address} {node.name}" for node in request.state.nodes.values()]
    return {"data": "\n".join(lines) + "\n", "digest": "7a78bb75c89b6c38d86f0ae37f6f0e53873c2110"}


@route("GET", "/nodes/{node}/netstat")
def netstat(request: ApiRequest) -> list[dict[str, str]]:
    """GET /nodes/{node}/netstat."""
    return [
        {"vmid": str(guest.vmid), "dev": key, "in": "0", "out": "0"}
        for guest in request.state.guests_on(request.node.name)
        for key in guest.config
        if guest.running and key.startswith("net") and key[3:].isdigit()
    ]


@route("GET", "/cluster/firewall/macros")
def firewall_macros(_request: ApiRequest) -> list[dict[str, str]]:
    """GET /cluster/firewall/macros: the common macros."""
    names = "DNS FTP HTTP HTTPS IMAP IMAPS LDAP MySQL NTP Ping PostgreSQL RDP SMB SMTP SSH Web"
    return [{"macro": name, "descr": f"{name} traffic"} for name in names.split()]


@route("GET", "/nodes/{node}/capabilities/qemu/cpu")
def cpu_models(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/capabilities/qemu/cpu: the common models."""
    models = {
        "default": ("host", "max", "kvm64", "qemu64", "x86-64-v2-AES", "x86-64-v3"),
        "AuthenticAMD": ("EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"),
        "GenuineIntel": ("Broadwell", "Skylake-Server", "Icelake-Server", "SapphireRapids"),
    }
    has_abstract_models = request.state.release >= (9, 2)
    return [
        {"name": name, "vendor": vendor, "custom": 0}
        | ({"abstract": 1} if has_abstract_models and name.startswith("x86-64") else {})
        for vendor, names in models.items()
        for name in names
    ]
