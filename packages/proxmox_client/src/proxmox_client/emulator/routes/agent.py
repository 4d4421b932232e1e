"""The QEMU guest agent."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.faults import BROKEN_PIPE
from proxmox_client.emulator.http.messages import Response
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.guest import Agent, AgentProcess, Guest

BELOW = "/nodes/{node}/qemu/{vmid}/agent"
NOT_RUNNING = "QEMU guest agent is not running"
MOST_READ = 16 << 20
FOLDERS = ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin")
"""The folders with programs; an empty string stands for a name without folder."""


def _os_info(request: ApiRequest) -> Any:
    agent = _agent(request)
    version = agent.os_name.partition(" ")[2]
    return {
        "id": agent.os_id,
        "name": agent.os_name.split(" ")[0],
        "pretty-name": agent.os_name,
        "version": version,
        "version-id": "".join(c for c in version if c.isdigit() or c == ".")[:5],
        "kernel-release": agent.kernel,
        "kernel-version": f"#1 SMP {agent.kernel}",
        "machine": "x86_64",
    }


def _network_interfaces(request: ApiRequest) -> Any:
    _agent(request)
    net0 = str(request.guest.config.get("net0", ""))
    hardware = net0.partition("=")[2].partition(",")[0].lower() or "bc:24:11:00:00:00"
    return [
        _interface("lo", "00:00:00:00:00:00", ("127.0.0.1",), 8),
        _interface("eth0", hardware, request.guest.addresses, 24),
    ]


def _file_systems(request: ApiRequest) -> Any:
    agent, size = _agent(request), request.guest.disk_size
    disk = {
        "bus": 0,
        "bus-type": "scsi",
        "dev": "/dev/sda1",
        "pci-controller": {"bus": 3, "domain": 0, "function": 0, "slot": 1},
        "serial": "0QEMU_QEMU_HARDDISK_drive-scsi0",
        "target": 0,
        "unit": 0,
    }
    sizes = {"total-bytes": size, "used-bytes": int(size * agent.disk_used)}
    if agent.os_id == "mswindows":
        windows = {"dev": "\\\\.\\PhysicalDrive0"}
        name, place, type_ = "\\\\?\\Volume{4bd2b5a1}\\", "C:\\", "NTFS"
        return [
            {"name": name, "mountpoint": place, "type": type_, **sizes, "disk": [disk | windows]}
        ]
    # an agent reports no sizes of a file system that it may not read
    return [
        {"name": "sda1", "mountpoint": "/", "type": "ext4", **sizes, "disk": [disk]},
        {"name": "sda15", "mountpoint": "/boot/efi", "type": "vfat", "disk": []},
    ]


PING = {"name": "guest-ping", "enabled": True, "success-response": True}
READS: dict[str, Callable[[ApiRequest], Any]] = {
    "get-osinfo": _os_info,
    "network-get-interfaces": _network_interfaces,
    "get-fsinfo": _file_systems,
    "get-host-name": lambda request: {"host-name": request.guest.name},
    "get-time": lambda request: int(request.now * 1_000_000_000),
    "get-timezone": lambda _: {"offset": 0, "zone": "UTC"},
    "get-users": lambda _: [{"user": "admin", "login-time": 1795990000.5}],
    "get-vcpus": lambda _: [{"logical-id": 0, "online": True, "can-offline": False}],
    "get-memory-blocks": lambda _: [{"phys-index": 0, "online": True, "can-offline": False}],
    "get-memory-block-info": lambda _: {"size": 134217728},
    "info": lambda _: {"version": "9.2.0", "supported_commands": [PING]},
}
ACTIONS: dict[str, Callable[[ApiRequest], Any]] = {
    "ping": lambda _: {},
    "shutdown": lambda _: {},
    "fsfreeze-status": lambda _: "thawed",
    "fsfreeze-freeze": lambda _: 2,
    "fsfreeze-thaw": lambda _: 2,
    "suspend-disk": lambda _: {},
    "suspend-hybrid": lambda _: {},
    "suspend-ram": lambda _: {},
    "fstrim": lambda _: {"paths": [{"path": "/", "trimmed": 123456, "minimum": 0}]},
}


@route("GET", *(f"{BELOW}/{name}" for name in READS))
@route("POST", BELOW, *(f"{BELOW}/{name}" for name in ACTIONS))
def command(request: ApiRequest) -> dict[str, Any]:
    """GET and POST …/agent/COMMAND; POST …/agent with the command as parameter.

    A command that the agent refuses is answered with 200 and an error as its result.
    """
    agent = _agent(request)
    name = str(request.get("command") or request.path.rpartition("/")[2])
    if name in agent.refused:
        return {"result": {"error": {"class": "CommandNotFound", "desc": _refusal(name)}}}
    return {"result": (READS | ACTIONS)[name](request)}


@route("POST", f"{BELOW}/exec")
def execute(request: ApiRequest) -> dict[str, Any] | Response:
    """POST …/agent/exec: echo and cat write their input, sleep runs on, false and exit 1 fail.

    A program that does not exist breaks the connection: Proxmox fails to send the agent's error,
    which has quotation marks outside Latin-1.
    """
    agent = _agent(request)
    _require(agent, "exec")
    words = [str(word) for word in request.params["command"]]
    folder, _, program = words[0].rpartition("/")
    if folder not in FOLDERS:
        return BROKEN_PIPE
    process = AgentProcess()
    if program == "echo":
        process.output = " ".join(words[1:]) + "\n"
    elif program == "cat":
        process.output = str(request.get("input-data", ""))
    elif program == "false":
        process.exit_code, process.errors = 1, "failed\n"
    elif program == "sleep":
        process.running = True
    pid = 2300 + len(agent.processes)
    agent.processes[pid] = process
    return {"pid": pid}


@route("GET", f"{BELOW}/exec-status")
def execute_status(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/exec-status."""
    agent, pid = _agent(request), request.params["pid"]
    _require(agent, "exec-status")
    if pid not in agent.processes:
        raise ApiError(f"Agent error: PID {pid} does not exist")
    process = agent.processes[pid]
    if process.running:
        return {"exited": 0}
    written = {"out-data": process.output, "err-data": process.errors}
    texts = {name: _bytes_as_text(text) for name, text in written.items() if text}
    return {"exited": 1, "exitcode": process.exit_code, **texts}


@route("GET", f"{BELOW}/file-read")
def read_file(request: ApiRequest) -> dict[str, Any]:
    """GET …/agent/file-read."""
    agent, name = _agent(request), request.params["file"]
    _require(agent, "file-open")
    contents = {"/etc/hostname": f"{request.guest.name}\n", **agent.files}
    if name not in contents:
        problem = f"failed to open file '{name}' (mode: 'r'): No such file or directory"
        raise ApiError(f"Agent error: {problem}")
    content = contents[name].encode()
    offset, count = int(request.get("offset") or 0), int(request.get("count") or MOST_READ)
    part = content[offset : offset + count]
    truncated = {"truncated": 1} if offset + len(part) < len(content) else {}
    is_decoded = request.get("decode") not in (False, 0)
    text = part.decode("latin-1") if is_decoded else b64encode(part).decode()
    return {"content": text, "bytes-read": len(part), **truncated}


@route("POST", f"{BELOW}/file-write")
def write_file(request: ApiRequest) -> None:
    """POST …/agent/file-write."""
    agent = _agent(request)
    _require(agent, "file-open")
    agent.files[request.params["file"]] = request.params["content"]


@route("POST", f"{BELOW}/set-user-password")
def set_password(request: ApiRequest) -> dict[str, Any]:
    """POST …/agent/set-user-password."""
    agent = _agent(request)
    _require(agent, "set-user-password")
    if request.params["username"] not in ("root", "admin"):
        raise ApiError("Agent error: child process has failed to set user password")
    return {"result": {}}


def _agent(request: ApiRequest) -> Agent:
    """Return the agent of the guest; raise ApiError if it does not respond."""
    guest: Guest = request.guest
    if not guest.agent_enabled:
        raise ApiError("No QEMU guest agent configured")
    if not guest.running:
        raise ApiError(f"VM {guest.vmid} is not running")
    agent = guest.agent
    if agent is None or not agent.answers or guest.paused:
        raise ApiError(NOT_RUNNING)
    if request.state.now < guest.started + agent.boot_seconds:
        raise ApiError(NOT_RUNNING)
    return agent


def _bytes_as_text(text: str) -> str:
    """Return a text as Proxmox sends what the agent encodes: one character for each byte."""
    return text.encode().decode("latin-1")


def _refusal(command: str) -> str:
    return f"Command guest-{command} has been disabled: the command is not allowed"


def _require(agent: Agent, command: str) -> None:
    """Raise ApiError if the agent refuses a command."""
    if command in agent.refused:
        raise ApiError(f"Agent error: {_refusal(command)}")


def _interface(name: str, hardware: str, addresses: tuple[str, ...], prefix: int) -> dict[str, Any]:
    counters = ("bytes", "packets", "errs", "dropped")
    row: dict[str, Any] = {
        "name": name,
        "hardware-address": hardware,
        "statistics": {f"{way}-{counter}": 0 for way in ("rx", "tx") for counter in counters},
    }
    ip_addresses = [
        {
            "ip-address": address,
            "ip-address-type": "ipv6" if ":" in address else "ipv4",
            "prefix": prefix,
        }
        for address in addresses
    ]
    return row | {"ip-addresses": ip_addresses}
