"""The QEMU guest agent."""

import secrets
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.guest import Agent, Guest

BELOW = "/nodes/{node}/qemu/{vmid}/agent"
NOT_RUNNING = "QEMU guest agent is not running"


@route("GET", f"{BELOW}/get-osinfo")
def os_info(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/get-osinfo."""
    agent = _agent(request)
    version = agent.os_name.partition(" ")[2]
    return _result(
        {
            "id": agent.os_id,
            "name": agent.os_name.split(" ")[0],
            "pretty-name": agent.os_name,
            "version": version,
            "version-id": "".join(c for c in version if c.isdigit() or c == ".")[:5],
            "kernel-release": agent.kernel,
            "kernel-version": f"#1 SMP {agent.kernel}",
            "machine": "x86_64",
        }
    )


@route("GET", f"{BELOW}/network-get-interfaces")
def network_interfaces(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/network-get-interfaces."""
    agent, guest = _agent(request), request.guest
    hardware = str(guest.config.get("net0", "")).partition("=")[2].partition(",")[0].lower()
    interfaces = [_interface("lo", "00:00:00:00:00:00", ("127.0.0.1",), 8)]
    interfaces.append(_interface("eth0", hardware or "bc:24:11:00:00:00", agent.addresses, 24))
    return _result(interfaces)


@route("GET", f"{BELOW}/get-host-name")
def host_name(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/get-host-name."""
    _agent(request)
    return _result({"host-name": request.guest.name})


@route("GET", f"{BELOW}/get-fsinfo")
def file_systems(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/get-fsinfo."""
    _agent(request)
    used = int(request.guest.disk_size * 0.42)
    root = {
        "name": "sda1",
        "mountpoint": "/",
        "type": "ext4",
        "total-bytes": request.guest.disk_size,
        "used-bytes": used,
        "disk": [],
    }
    return _result([root])


@route("GET", f"{BELOW}/get-time")
def time(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/get-time."""
    _agent(request)
    return _result(int(request.now * 1_000_000_000))


@route("GET", f"{BELOW}/get-users")
def users(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/get-users."""
    _agent(request)
    return _result([])


@route("GET", f"{BELOW}/info")
def info(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/info."""
    _agent(request)
    commands = [{"name": "guest-ping", "enabled": True, "success-response": True}]
    return _result({"version": "9.2.0", "supported_commands": commands})


@route(
    "POST", f"{BELOW}/ping", f"{BELOW}/fstrim", f"{BELOW}/fsfreeze-freeze", f"{BELOW}/fsfreeze-thaw"
)
def ping(request: ApiRequest) -> dict[str, Any]:
    """POST …/agent/ping and other commands without a result."""
    _agent(request)
    return _result({})


@route("POST", f"{BELOW}/exec")
def execute(request: ApiRequest) -> dict[str, Any]:
    """POST …/agent/exec: a command is accepted and exits at once."""
    _agent(request)
    return {"pid": 1000 + secrets.randbelow(30000)}


@route("GET", f"{BELOW}/exec-status")
def execute_status(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/exec-status."""
    _agent(request)
    return {"exited": 1, "exitcode": 0, "out-data": ""}


def _agent(request: ApiRequest) -> Agent:
    """Return the agent of the guest; raise ApiError if it does not respond."""
    guest: Guest = request.guest
    if not guest.agent_enabled:
        raise ApiError("No QEMU guest agent configured")
    if not guest.running:
        raise ApiError(f"VM {guest.vmid} is not running")
    if guest.agent is None or not guest.agent.answers or guest.paused:
        raise ApiError(NOT_RUNNING)
    return guest.agent


def _result(value: Any) -> dict[str, Any]:
    return {"result": value}


def _interface(name: str, hardware: str, addresses: tuple[str, ...], prefix: int) -> dict[str, Any]:
    return {
        "name": name,
        "hardware-address": hardware,
        "ip-addresses": [
            {
                "ip-address": address,
                "ip-address-type": "ipv6" if ":" in address else "ipv4",
                "prefix": prefix,
            }
            for address in addresses
        ],
        "statistics": {"rx-bytes": 0, "tx-bytes": 0, "rx-packets": 0, "tx-packets": 0},
    }
