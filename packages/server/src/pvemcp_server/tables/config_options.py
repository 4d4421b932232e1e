"""Options of guest configurations as callers see them: pending changes, lists, hidden secrets."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from proxmox_client.api.configs import GuestConfig, GuestDisk, GuestNetwork
from proxmox_client.api.guests import BothConfigs
from proxmox_client.json_decoder import split_list

Device = TypeVar("Device", GuestDisk, GuestNetwork)

_HIDDEN = "**********"  # Proxmox's own mark of a hidden value
_PASSWORDS = {"cipassword"}
_ARGUMENTS = "args"  # of QEMU
_SECRET_DATA = re.compile(r"\b((?:data|password|string)=)[^,\s]+")  # of its objects and devices
_ENVIRONMENT = "env"  # variables of a container, separated by NUL bytes
_RAW_ENVIRONMENT = "lxc.environment"  # raw lines of a container, also with a suffix


def shown(name: str, value: Any) -> Any:
    """Return the value of an option without passwords and values of environment variables."""
    if name in _PASSWORDS:
        return _HIDDEN
    if name == _ENVIRONMENT:
        return [_variable(text) for text in split_list(str(value))]
    if name == _ARGUMENTS and isinstance(value, str):
        return _SECRET_DATA.sub(rf"\1{_HIDDEN}", value)
    if name == "lxc" and isinstance(value, Sequence) and not isinstance(value, str):
        return [_raw_line(line) for line in value]
    return value


def shown_text(name: str, value: Any) -> str:
    """Return the value of an option as one text, without secrets."""
    value = shown(name, value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def pending_changes(configs: BothConfigs[Any]) -> list[str]:
    """Return what changes with the guest's next start: `memory: 2048 → 4096`."""
    return [
        f"{change.option}: {_side(change.option, change.current, 'not set')} → "
        f"{_side(change.option, change.pending, 'removed')}"
        for change in configs.changes
    ]


def with_pending(
    configs: BothConfigs[Any], current: Sequence[Device], pending: Sequence[Device]
) -> list[tuple[Device, str | None]]:
    """Return the devices in use and those that wait for a restart, each with what waits."""
    ids = {device.id for device in current}
    kept = {device.id for device in pending}
    devices: list[tuple[Device, str | None]] = []
    for device in current:
        now, then = _device(configs.current, device.id), _device(configs.pending, device.id)
        waits = None if now == then else f"changed to {then}"
        devices.append((device, waits if device.id in kept else "removed"))
    return devices + [(device, "added") for device in pending if device.id not in ids]


def _device(config: GuestConfig, name: str) -> str:
    """Return a device's options, and for a network device those of its cloud-init address."""
    address = config.raw.get(f"ipconfig{name.removeprefix('net')}") if "net" in name else None
    return ",".join(str(text) for text in (config.raw.get(name), address) if text)


def _side(name: str, value: Any, absent: str) -> str:
    return absent if value is None else shown_text(name, value)


def _variable(text: str) -> str:
    return f"{text.partition('=')[0]}={_HIDDEN}"


def _raw_line(line: Any) -> Any:
    match line:
        case [str(key), value] if key.startswith(_RAW_ENVIRONMENT):
            return [key, _variable(str(value))]
        case _:
            return line
