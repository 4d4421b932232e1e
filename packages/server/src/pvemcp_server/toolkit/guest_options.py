"""Options of guests that tools set: arguments, Proxmox's parameters for them, changes in words.

Proxmox stores the same wish in other places for each kind of guest: an address is `ipconfig0` of
a virtual machine, for cloud-init, and a part of `net0` of a container.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr, WithJsonSchema

from proxmox_client.api.resources import GuestType
from proxmox_client.json_decoder import split_list
from proxmox_client.properties import parse, whole_number
from pvemcp_server.errors import BadArgument, counted
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables.config_options import shown_text
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import INTEGER, Rule
from pvemcp_server.toolkit.needs import RequiredPrivilege

Parameters = dict[str, str | int]

GuestName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$",
        max_length=63,
        description="New name",
    ),
    Rule("a guest's name is a DNS name: letters, digits, hyphens and dots"),
]
NewVmId = Annotated[int | None, INTEGER, Field(ge=100, le=999_999_999, description="New VMID")]
PoolName = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=200, description="Pool"),
    Rule("a pool is letters, digits, dots, hyphens, underscores; / before a nested one"),
]
Cores = Annotated[int | None, INTEGER, Field(ge=1, le=8192, description="Cores")]
Memory = Annotated[int | None, INTEGER, Field(ge=16, le=1 << 24, description="MiB")]
_Tag = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=124),
    Rule("a tag has letters, digits, and _ - + . after the first character"),
]
# lists are read from one text too, whose schema is shorter
_TEXT = WithJsonSchema({"type": "string"})

Tags = Annotated[list[_Tag] | None, _TEXT, Field(max_length=100, description="a;b")]
GuestText = Annotated[str | None, Field(max_length=8192, description="Notes")]
Bridge = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=40, description="Bridge"),
    Rule("a bridge is a name like vmbr0"),
]
NetworkDevice = Annotated[
    str,
    Field(pattern=r"^net\d{1,2}$", description="Network device"),
    Rule("a network device is net0, net1 and so on"),
]
Vlan = Annotated[int | None, INTEGER, Field(ge=1, le=4094, description="VLAN")]
VlanOrNone = Annotated[int | None, INTEGER, Field(ge=0, le=4094, description="VLAN; 0: none")]
CloudInitUser = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.@\\-]*$", max_length=64, description="User"),
    Rule("a user is a letter or underscore, then letters, digits, dots, hyphens, underscores"),
]
# at least five characters, as Proxmox wants of a container's
Password = Annotated[
    SecretStr | None,
    WithJsonSchema({"type": "string", "writeOnly": True}),
    Field(min_length=5, max_length=1024, description="Never shown"),
]
_SshKey = Annotated[
    str,
    Field(pattern=r"^(ssh|ecdsa|sk)-[a-zA-Z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?$", max_length=16_384),
    Rule("a public key is one line, like ssh-ed25519 AAAA… name"),
]
SshKeys = Annotated[list[_SshKey] | None, _TEXT, Field(max_length=50, description="Public keys")]
Address = Annotated[str | None, Field(max_length=100, description="dhcp or CIDR,gateway")]
Dns = Annotated[str | None, Field(max_length=400, description="Servers, search domain")]
Start = Annotated[bool, Field(description="Start it")]

SECRETS: Final = frozenset({"cipassword", "password"})
HIDDEN: Final = "***"
DEFAULT_BRIDGE: Final = "vmbr0"
IPV4: Final = 4
_LABEL = r"(?=[^.]*[A-Za-z])[A-Za-z0-9-]++"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*+")
_LONGEST = 80  # characters of a value in a sentence
_CLOUD_INIT: Final = ("ciuser", "password", "ssh_keys")
_CLOUD_INIT_OPTIONS: Final = frozenset({"ciuser", "cipassword", "sshkeys"})
_KEYS: Final = frozenset({"sshkeys", "ssh-public-keys"})
_FREE_TEXTS: Final = frozenset({"description", "ciuser"})
_PRIVILEGES: Final[Mapping[str, RequiredPrivilege]] = {
    **dict.fromkeys(("cores", "sockets", "cpu", "cpulimit"), needs.CONFIG_CPU),
    **dict.fromkeys(("cpuunits", "vcpus", "numa"), needs.CONFIG_CPU),
    **dict.fromkeys(("memory", "balloon", "shares", "swap"), needs.CONFIG_MEMORY),
    **dict.fromkeys(("net", "hostname"), needs.CONFIG_NETWORK),
    **dict.fromkeys(("scsi", "rootfs", "efidisk", "tpmstate", "boot"), needs.CONFIG_DISK),
    **dict.fromkeys(("scsihw", "machine"), needs.CONFIG_HARDWARE),
    "ide": needs.CONFIG_CD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestOptions:
    """Options as a caller gives them; None leaves one as it is. `memory` is MiB."""

    cores: int | None = None
    memory: int | None = None
    tags: list[str] | None = None
    description: str | None = None
    network: str = "net0"
    bridge: str | None = None
    vlan: int | None = None  # 0 removes it
    firewall: str | None = None
    rate: str | None = None  # MB/s
    ciuser: str | None = None
    password: SecretStr | None = None
    ssh_keys: list[str] | None = None
    ip: str | None = None
    dns: str | None = None

    def parameters(
        self, kind: GuestType, current: Mapping[str, Any], *, new: bool = False
    ) -> Parameters:
        """Return them as parameters of the guest's configuration, `current` before the change.

        A `new` container also takes a password and keys. Raise BadArgument for an option that this
        kind of guest does not have, and for a value that cannot be.
        """
        if kind == "lxc":
            self._refuse_cloud_init(new=new)
        self._check_memory(current)
        addresses = _addresses(self.ip)
        network: dict[str, str | int | None] = {
            "bridge": self.bridge,
            "tag": "" if self.vlan == 0 else self.vlan,
            "firewall": self.firewall,
            "rate": self.rate,
        }
        device, number = self.network, self.network.removeprefix("net")
        values: dict[str, str | int | None] = {
            "cores": self.cores,
            "memory": self.memory,
            "tags": None if self.tags is None else ";".join(self.tags),
            "description": self.description,
            **_dns(self.dns),
        }
        if kind == "lxc":
            own = f"eth{number}"
            values[device] = _edited(current.get(device), "name", own, network | addresses)
            values["password"] = _revealed(self.password)
            values["ssh-public-keys"] = "\n".join(self.ssh_keys) if self.ssh_keys else None
        else:
            address = f"ipconfig{number}"
            values[device] = _edited(current.get(device), "model", "virtio", network)
            values[address] = _edited(current.get(address), "", "", addresses)
            values["ciuser"] = self.ciuser
            values["cipassword"] = _revealed(self.password)
            # Proxmox wants the keys percent-encoded inside of the encoded form
            values["sshkeys"] = quote("\n".join(self.ssh_keys), safe="") if self.ssh_keys else None
        return {name: value for name, value in values.items() if value is not None}

    def _refuse_cloud_init(self, *, new: bool) -> None:
        """Raise BadArgument for what only cloud-init of a virtual machine sets."""
        for name in _CLOUD_INIT:
            if getattr(self, name) is not None and not (new and name != "ciuser"):
                raise BadArgument(name, "it is for cloud-init, which containers don't have.")

    def _check_memory(self, current: Mapping[str, Any]) -> None:
        """Raise BadArgument for less memory than the balloon has to leave the guest."""
        balloon = whole_number(str(current.get("balloon", "0")))
        if self.memory is not None and balloon is not None and balloon > self.memory:
            raise BadArgument("memory", f"its option balloon is {balloon} MiB, which is more.")


class OptionChange(NamedTuple):
    """An option before and after a change, as shown: secrets are masked, None is not set."""

    option: str
    old: str | None
    new: str | None

    @property
    def words(self) -> str:
        """The change in a sentence: `cores 2 → 4`; `ciuser → 'admin'` for one that is new."""
        name = self.option
        if parts := self._parts():
            return f"{name} ({', '.join(parts)})"
        old = "" if self.old is None else f" {_short(name, self.old)}"
        return f"{name}{old} → {'not set' if self.new is None else _short(name, self.new)}"

    def _parts(self) -> list[str]:
        """Return the parts that change of a long value with many, which else are cut off."""
        if self.option in _FREE_TEXTS | _KEYS or self.old is None or self.new is None:
            return []
        old, new = parse(self.old, ""), parse(self.new, "")
        if max(len(self.old), len(self.new)) <= _LONGEST or "" in {*old, *new}:
            return []

        def shown(value: str | None) -> str:
            return "not set" if value is None else shown_name(value, _LONGEST)

        names = dict.fromkeys((*old, *new))
        changed = (name for name in names if old.get(name) != new.get(name))
        return [
            f"{shown_name(each)} {shown(old.get(each))} → {shown(new.get(each))}"
            for each in changed
        ]


def changes(current: Mapping[str, Any], new: Mapping[str, Any]) -> list[OptionChange]:
    """Return the options of `new` that differ from the current configuration, in its order.

    A secret always counts as changed: Proxmox does not show the present one.
    """
    return [
        OptionChange(name, _shown(name, current.get(name)), _shown(name, value))
        for name, value in new.items()
        if name in SECRETS or _text(current.get(name)) != _text(value)
    ]


def in_words(changed: Iterable[OptionChange]) -> str:
    """Return the changes in one phrase: `cores 2 → 4, cipassword → ***`."""
    return ", ".join(change.words for change in changed)


def needs_cloud_init(parameters: Iterable[str]) -> bool:
    """Return whether a virtual machine applies one of these through its cloud-init drive."""
    also = ("nameserver", "searchdomain")
    return any(n in _CLOUD_INIT_OPTIONS or n in also or n[:8] == "ipconfig" for n in parameters)


def privileges(kind: GuestType, parameters: Iterable[str]) -> tuple[RequiredPrivilege, ...]:
    """Return the privileges that Proxmox needs to change these options, each once.

    Source: check_vm_modify_config_perm in PVE/API2/Qemu.pm, check_ct_modify_config_perm in
    PVE/LXC.pm.
    """
    required = []
    for name in parameters:
        family = name.rstrip("0123456789")
        if family in ("nameserver", "searchdomain", "ipconfig") or name in _CLOUD_INIT_OPTIONS:
            required.append(needs.CONFIG_NETWORK if kind == "lxc" else needs.CONFIG_CLOUD_INIT)
        else:
            required.append(_PRIVILEGES.get(family, needs.CONFIG_OPTIONS))
        if name == "startup" and kind == "qemu":  # it changes what the node does
            required.append(needs.NODE_STARTUP)
    return tuple(dict.fromkeys(required))


def _addresses(text: str | None) -> dict[str, str | int | None]:
    """Return the parts of `ipconfig0` or `net0` for an address; one without gateway drops it."""
    if text is None:
        return {}
    ip, *gateways = split_list(text) or [""]
    if ip.casefold() == "dhcp" and not gateways:
        return {"ip": "dhcp", "gw": ""}
    try:
        interface = ip_interface(ip)
        routers = [ip_address(gateway.removeprefix("gw=")) for gateway in gateways]
    except ValueError as error:
        raise BadArgument("ip", f"{error}; it is dhcp, or like 10.0.0.5/24,10.0.0.1.") from None
    if "/" not in ip:
        raise BadArgument("ip", f"give its prefix too, such as {ip}/24.")
    if len(routers) > 1 or any(router.version != interface.version for router in routers):
        raise BadArgument("ip", "after the address comes one gateway, of the same family.")
    suffix = "" if interface.version == IPV4 else "6"
    return {f"ip{suffix}": str(interface), f"gw{suffix}": "".join(map(str, routers))}


def _dns(text: str | None) -> dict[str, str | None]:
    """Return nameservers and search domain: what is an address, and what is not."""
    servers, domains = [], []
    for word in split_list(text):
        try:
            servers.append(str(ip_address(word)))
        except ValueError:
            domains.append(word)
    wrong = [domain for domain in domains if not _DOMAIN.fullmatch(domain)]
    if len(domains) > 1 or wrong:
        raise BadArgument("dns", f"{(wrong or domains)[-1]!r} is neither a server nor a domain.")
    return {"nameserver": " ".join(servers) or None, "searchdomain": "".join(domains) or None}


def _edited(
    text: Any, default: str, unset: str, parts: Mapping[str, str | int | None]
) -> str | None:
    """Return a property string with some of its parts changed; None if none of them is given.

    An empty part is removed. Without a text it begins with `default=unset`, on the default bridge.
    """
    given = {name: str(value) for name, value in parts.items() if value is not None}
    if not given:
        return None
    start = {default: unset, "bridge": DEFAULT_BRIDGE} if default else {}
    merged = (parse(str(text), default) if text else start) | given
    words = ((name, value) for name, value in merged.items() if value != "")
    return ",".join(value if name == "model" else f"{name}={value}" for name, value in words)


def _revealed(password: SecretStr | None) -> str | None:
    return None if password is None else password.get_secret_value()


def _shown(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name in SECRETS:
        return HIDDEN
    if name in _KEYS:
        return counted(len(unquote(str(value)).strip().splitlines()), "key")
    return shown_text(name, value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _short(option: str, text: str) -> str:
    """Return a value on one line; in quotes what could pass for the sentence's own words."""
    if option in _KEYS:  # their number
        return text
    line = " ".join(text.split())
    if option in _FREE_TEXTS or len(line) > _LONGEST:
        return repr(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…")
    return shown_name(line, _LONGEST)
