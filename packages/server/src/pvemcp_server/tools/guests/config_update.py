"""Changes of a guest's configuration."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any, Final
from urllib.parse import quote

from pydantic import Field

from proxmox_client import ResponseError
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestType
from proxmox_client.properties import flag, number, parse
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables.config_options import pending_changes
from pvemcp_server.toolkit import guest_options as options_of
from pvemcp_server.toolkit import hotplug, needs
from pvemcp_server.toolkit.arguments import ItsCluster, Rule, VmId, Whole
from pvemcp_server.toolkit.bulk import BulkLimits
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.config_write import require_valid, write_config
from pvemcp_server.toolkit.guest_options import GuestOptions, OptionChange, Parameters
from pvemcp_server.toolkit.own_rights import refuse_tag_changes
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.undo_check import left_options
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest

_Option = Annotated[
    str,
    Field(pattern=r"^[a-z]+\d*$", max_length=30),
    Rule("a name of an option has small letters and perhaps a number, like net1"),
]
_TagChange = Annotated[
    str,
    Field(pattern=r"^[+-]?[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=125),
    Rule("a tag has letters, digits, and _ - + . after the first character"),
]
TagChanges = Annotated[
    list[_TagChange] | None, Field(max_length=100, description="All, or +added, -removed")
]
OtherOptions = Annotated[
    list[str] | None,
    Whole(),
    Field(
        max_length=50,
        description="More as name=value: name, sockets, balloon, swap, onboot, agent, boot, "
        "firewall, ciuser, sshkeys …",
    ),
]
Unset = Annotated[list[_Option] | None, Field(max_length=50, description="To remove: net1")]
Revert = Annotated[list[_Option] | None, Field(max_length=50, description="Pending ones to drop")]

_COMMON: Final = frozenset(
    {"cores", "cpulimit", "cpuunits", "memory", "onboot", "startup", "protection", "description"}
    | {"nameserver", "searchdomain", "net"}
)
_SETTABLE: Final[Mapping[GuestType, frozenset[str]]] = {
    "qemu": _COMMON
    | {"name", "sockets", "vcpus", "cpu", "numa", "balloon", "shares", "agent", "boot"}
    | {"hotplug", "ciuser", "ciupgrade", "sshkeys", "ipconfig"},
    "lxc": _COMMON | {"hostname", "swap"},
}
"""Options that `options` sets and `unset` removes, by their names without numbers."""
_OF_DEVICE: Final = frozenset({"firewall", "rate"})  # parts of the argument `network`
_ONLY_UNSET: Final = {"tags", "cipassword"}  # arguments of their own set them
_NAMES: Final[Mapping[GuestType, Mapping[str, str]]] = {
    "qemu": {"hostname": "name"},
    "lxc": {"name": "hostname"},
}
# Parts of a network device: those that filter, tag or limit what goes through it, their defaults,
# and those that no connection depends on
_GUARDS: Final = frozenset({"firewall", "trunks", "rate"})
_DEFAULTS: Final[Mapping[str, str]] = {"firewall": "0", "link_down": "0", "rate": "0"}
_UNNOTICED: Final = frozenset({"queues"})
_NOT_SET: Final = "not set"
_LONGEST_OPTION: Final = 16_384  # of 20 keys; Proxmox takes 8,192 characters of a description
_BOOLEANS: Final = {"true": "1", "false": "0"}
_RESTART: Final = (
    "Pending changes take effect when it is stopped and started, or rebooted by ChangeVmState; a "
    "reboot inside of it is not enough."
)


@dataclass(frozen=True)  # without slots, for `changes`
class _Change:
    """A checked change: what is sent, on the configurations that it was made for."""

    guest: TargetGuest
    before: BothConfigs[Any]
    parameters: Parameters = field(repr=False)  # with the password
    unset: tuple[str, ...]
    revert: tuple[str, ...]

    @property
    def kind(self) -> GuestType:
        return self.guest.resource.type

    @property
    def new(self) -> dict[str, Any]:
        """The options as they will be configured; None for those that are removed."""
        running = {name: self.before.current.raw.get(name) for name in self.revert}
        return running | self.parameters | dict.fromkeys(self.unset)

    @cached_property
    def changes(self) -> list[OptionChange]:
        """The changes of what is configured, with what is pending."""
        return options_of.changes(self.before.pending.raw, self.new)


@tool(
    "UpdateVmConfig",
    view="plan",
    title="Change configuration",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(
        needs.GUESTS,
        needs.CONFIG_OPTIONS,
        needs.CONFIG_CPU,
        needs.CONFIG_MEMORY,
        needs.CONFIG_NETWORK,
        needs.CONFIG_CLOUD_INIT,
    ),
    bulk=BulkLimits(per_node=4),
)
async def update_vm_config(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    cores: options_of.Cores = None,
    memory: options_of.Memory = None,
    tags: TagChanges = None,
    description: options_of.GuestText = None,
    network: options_of.NetworkDevice = "net0",
    bridge: options_of.Bridge = None,
    vlan: options_of.VlanOrNone = None,
    ip: options_of.Address = None,
    password: options_of.Password = None,
    options: OtherOptions = None,
    unset: Unset = None,
    revert: Revert = None,
) -> Plan:
    """Change guests' configuration; says what waits for a restart."""
    guest = await target_guest(call, cluster_name, vmid)
    configs: BothConfigs[Any] = await guest.api.configs()
    kind, configured = guest.resource.type, configs.pending.raw
    others = _others(kind, options or ())
    parts = (vlan, others.get("firewall"), others.get("rate"))
    _refuse_missing_device(guest, configs, network, bridge, *parts)
    parameters = GuestOptions(
        cores=cores,
        memory=memory,
        tags=None if tags is None else await _tags(call, guest, configs, tags),
        description=description,
        network=network,
        bridge=bridge,
        vlan=vlan,
        firewall=others.pop("firewall", None),
        rate=others.pop("rate", None),
        password=password,
        ip=ip,
    ).parameters(kind, configured)
    for name, value in others.items():
        if str(parameters.setdefault(name, value)) != str(value):
            raise BadArgument("options", f"{name} is set twice.")
    change = _Change(
        guest,
        configs,
        _changed(parameters, configured),
        tuple(_unset(kind, unset or (), parameters, configured)),
        _revert(guest, configs, revert or ()),
    )
    await _refuse_wrong_values(change)
    if "tags" in change.new:
        refuse_tag_changes(call, guest, _tag_list(configured), _tag_list(change.new))
    _require_any(change)
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Change {guest.label}: {options_of.in_words(change.changes)}.{_forecast(change)}",
        loses=_losses(change),
        ids={"vmid": vmid},
        digest=configs.current.digest,
        act=partial(_write, change),
        report=partial(_report, call, change),
        warnings=tuple(await _warnings(change)),
        needs=(needs.GUESTS, *options_of.privileges(kind, change.new)),
    )


def _require_any(change: _Change) -> None:
    """Raise Precondition if nothing changes, with what waits for a restart."""
    if not change.changes:
        waiting = "; ".join(pending_changes(change.before))
        raise Precondition(
            f"{change.guest.label} is configured so already; there is nothing to change.",
            hint=f"It waits for a restart: {waiting}." if waiting else "",
        )


def _refuse_missing_device(
    guest: TargetGuest, configs: BothConfigs[Any], network: str, bridge: str | None, *parts: Any
) -> None:
    """Raise BadArgument for parts of a network device that does not exist, unless it is added."""
    if bridge is None and network not in configs.pending.raw and any(p is not None for p in parts):
        raise BadArgument(
            "network", f"{guest.label} has no {network}.", hint="Give bridge too to add it."
        )


def _tag_list(config: Mapping[str, Any]) -> list[str]:
    return [tag for tag in re.split(r"[,; ]+", str(config.get("tags") or "")) if tag]


async def _tags(
    call: Call, guest: TargetGuest, configs: BothConfigs[Any], given: Sequence[str]
) -> list[str]:
    """Return the tags after the change: those given, or the present ones with changes."""
    marked = [tag[0] in "+-" for tag in given]
    if not any(marked):
        return list(given)
    if not all(marked):
        raise BadArgument("tags", "mark all of them with + or -, or none to set them all.")
    present = _tag_list(configs.pending.raw)
    removed = {tag[1:].casefold() for tag in given if tag[0] == "-"}
    missing = removed - {tag.casefold() for tag in present}
    if missing:
        call.notes.add(f"{guest.label} has no tag {', '.join(sorted(missing))}.")
    kept = [tag for tag in present if tag.casefold() not in removed]
    have = {tag.casefold() for tag in kept}
    return kept + [tag[1:] for tag in given if tag[0] == "+" and tag[1:].casefold() not in have]


def _others(kind: GuestType, pairs: Sequence[str]) -> dict[str, str]:
    """Return options given as name=value; raise BadArgument for those that it does not set."""
    values: dict[str, str] = {}
    for pair in pairs:
        given, equals, value = pair.partition("=")
        name = _NAMES[kind].get(given.strip(), given.strip())
        if not equals or not value:
            shown = re.split(r"\W", given.strip(), maxsplit=1)[0]  # the rest may be a password
            raise BadArgument(
                "options", f"write {shown[:50]!r} as name=value.", hint="unset removes an option."
            )
        if len(value) > _LONGEST_OPTION:
            raise BadArgument("options", f"{name} has more than {_LONGEST_OPTION:,} characters.")
        if not _is_settable(kind, name) and name not in _OF_DEVICE:
            raise BadArgument("options", _not_settable(kind, given), hint=_settable(kind))
        values[name] = _BOOLEANS.get(value.casefold(), value)
    if "boot" in values and "=" not in values["boot"]:
        values["boot"] = f"order={';'.join(re.split(r'[,; ]+', values['boot']))}"
    if " " in values.get("sshkeys", ""):  # Proxmox wants them percent-encoded
        values["sshkeys"] = quote(values["sshkeys"], safe="")
    return values


def _is_settable(kind: GuestType, name: str) -> bool:
    return name.rstrip("0123456789") in _SETTABLE[kind]


def _not_settable(kind: GuestType, name: str) -> str:
    word = "virtual machines" if kind == "qemu" else "containers"
    if name in _ONLY_UNSET:
        return f"{name} has an argument of its own."
    return f"it does not set {name[:50]!r} of {word}."


def _settable(kind: GuestType) -> str:
    numbered = {"net": "net0", "ipconfig": "ipconfig0"}
    names = sorted(numbered.get(name, name) for name in _SETTABLE[kind] | _OF_DEVICE)
    return f"It sets {', '.join(names)}."


def _changed(parameters: Parameters, configured: Mapping[str, Any]) -> Parameters:
    """Return the parameters that differ from what is configured; no tags are an unset option."""
    names = {change.option for change in options_of.changes(configured, parameters)}
    return {name: value for name, value in parameters.items() if name in names and value != ""}


def _unset(
    kind: GuestType, names: Sequence[str], parameters: Parameters, configured: Mapping[str, Any]
) -> Iterable[str]:
    """Yield the options to remove, also tags of which none is left; raise BadArgument."""
    if parameters.get("tags") == "" and "tags" in configured:
        yield "tags"
    for given in dict.fromkeys(names):
        name = _NAMES[kind].get(given, given)
        if not _is_settable(kind, name) and name not in _ONLY_UNSET:
            raise BadArgument("unset", _not_settable(kind, given), hint=_settable(kind))
        if name in parameters:
            raise BadArgument("unset", f"{name} is set by the same call.")
        if name in configured:
            yield name


def _revert(guest: TargetGuest, configs: BothConfigs[Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the options whose pending change to drop; raise BadArgument if there is none."""
    pending = [change.option for change in configs.changes]
    kind = guest.resource.type
    given = tuple(dict.fromkeys(_NAMES[kind].get(name, name) for name in names))
    if unknown := [name for name in given if name not in pending]:
        raise BadArgument(
            "revert",
            f"nothing is pending for {', '.join(unknown)} of {guest.label}.",
            hint=f"Pending is {', '.join(pending)}." if pending else "",
        )
    return given


async def _refuse_wrong_values(change: _Change) -> None:
    """Raise BadArgument for what Proxmox's schema of this version or its rules refuse."""
    new, before = change.new, change.before.pending.raw
    if twice := set(change.revert) & {*change.parameters, *change.unset}:
        raise BadArgument("revert", f"{', '.join(sorted(twice))} is changed by the same call.")
    await require_valid(change.guest, change.parameters)
    after = {n: v for n, v in (before | new).items() if v is not None}
    boot = parse(str(new.get("boot") or ""), "legacy").get("order", "")
    if missing := [name for name in boot.split(";") if name and name not in after]:
        raise BadArgument("boot", f"it has no {', '.join(missing)} to boot from.")
    memory = number(parse(str(after.get("memory", 512)), "current").get("current"))
    balloon = number(str(after.get("balloon", 0)))
    if {"balloon", "memory"} & new.keys() and balloon and memory and balloon > memory:
        raise BadArgument("balloon", f"it is above the memory of {memory:g} MiB.")


def _forecast(change: _Change) -> str:
    """Return what takes effect now, later and at the next boot, as sentences."""
    if change.guest.state == "stopped":
        return " It is stopped: all of it applies when it starts."
    running, new = change.before.current.raw, change.new
    names = [each.option for each in change.changes if each.option not in change.revert]
    boots = [name for name in names if hotplug.is_for_cloud_init(change.kind, name)]
    at_once = [
        name
        for name in names
        if name not in boots
        and hotplug.takes_at_once(
            change.kind, name, running, None if new[name] is None else str(new[name])
        )
    ]
    waits = [name for name in names if name not in {*at_once, *boots}]
    sentences = (
        ("At once", at_once),
        ("Waiting for a restart", waits),
        ("When it boots, by cloud-init", boots),
        ("No longer pending", change.revert),
    )
    return "".join(f" {when}: {', '.join(which)}." for when, which in sentences if which)


def _losses(change: _Change) -> str:
    """Return what is lost: connections over a network, a way to sign in, protection."""
    before, new = change.before.pending.raw, change.new
    removed = [n for n in change.unset if n.startswith("net")]
    parts = [
        (name, part, old, now)
        for name in new
        if before.get(name) and name not in removed
        for part, old, now in _changed_parts(name, before, new)
    ]
    moved = _of_devices(part for part in parts if part[1] not in _GUARDS)
    guards = _of_devices(part for part in parts if part[1] in _GUARDS)
    sentences = []
    if "cipassword" in new and "cipassword" in before:
        sentences.append("Its present password cannot be read back or restored.")
    if change.before.pending.protection and not flag(str(new.get("protection", 1))):
        sentences.append("Proxmox then no longer protects it from deletion.")
    if unfiltered := [name for name in new if _is_new_and_unfiltered(name, before, new)]:
        sentences.append(f"No firewall filters the new {', '.join(unfiltered)}.")
    if removed:
        sentences.append(f"What is connected through {', '.join(removed)} is cut off.")
    if guards:  # these are the last ones, because values of the caller make them long
        sentences.append(f"Its network is filtered, tagged or limited in another way: {guards}.")
    if moved:
        sentences.append(f"It may no longer be reachable where it is now: {moved}.")
    return " ".join(sentences)


def _is_new_and_unfiltered(name: str, before: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether the option is a network device that the guest lacks, without a firewall."""
    if name.rstrip("0123456789") != "net" or before.get(name) or not new[name]:
        return False
    return not flag(parse(str(new[name]), "model").get("firewall"))


def _changed_parts(
    name: str, before: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield the parts of a network device or address that change: name, old and new value.

    The change itself is shown shortened, and other parts of a device may come before these.
    """
    if name.rstrip("0123456789") not in ("net", "ipconfig"):
        return
    old, then = parse(str(before[name]), "model"), parse(str(new[name] or ""), "model")
    for part in dict.fromkeys((*old, *then)):
        values = [old.get(part, _NOT_SET), then.get(part, _NOT_SET)]
        meant = {_NOT_SET if value == _DEFAULTS.get(part) else value for value in values}
        if len(meant) > 1 and part not in _UNNOTICED:
            yield part, values[0], values[1]


def _of_devices(parts: Iterable[tuple[str, str, str, str]]) -> str:
    """Return changed parts by their devices: `net0 (tag not set → 7)`."""
    of_device: dict[str, list[str]] = {}
    for name, part, *values in parts:
        old, now = (v if v == _NOT_SET else shown_name(v, _LONGEST_OPTION) for v in values)
        of_device.setdefault(name, []).append(f"{shown_name(part)} {old} → {now}")
    return ", ".join(f"{name} ({', '.join(changes)})" for name, changes in of_device.items())


async def _warnings(change: _Change) -> list[str]:
    """Return what to know before: pending changes it replaces, and what its node cannot give."""
    guest, new, warnings = change.guest, change.new, []
    replaced = [
        each.option
        for each in change.before.changes
        if each.option in new and each.option not in change.revert
    ]
    if replaced:
        warnings.append(f"This replaces what is pending for {', '.join(replaced)}.")
    boots = [name for name in new if hotplug.is_for_cloud_init(change.kind, name)]
    if boots and not any(disk.is_cloud_init for disk in change.before.pending.disks):
        warnings.append(f"It has no cloud-init drive, so it will not see {', '.join(boots)}.")
    after = change.before.pending.raw | new
    node = (await guest.cluster.inventory_view()).by_node.get(guest.node)
    if node is not None and change.kind == "qemu" and {"cores", "sockets"} & new.keys():
        count = int(after.get("cores") or 1) * int(after.get("sockets") or 1)
        if node.cpu_count and count > node.cpu_count:
            warnings.append(
                f"{guest.node} has {node.cpu_count:g} processors: with {count} it does not start."
            )
    if node is not None and "memory" in new and node.memory_max:
        memory = number(parse(str(after.get("memory") or 512), "current").get("current")) or 0
        if memory * 2**20 > node.memory_max:
            warnings.append(f"That is more memory than {guest.node} has.")
    bridges = {
        bridge
        for name, value in change.parameters.items()
        if name.rstrip("0123456789") == "net" and (bridge := parse(str(value)).get("bridge"))
    }
    return warnings + await _missing_bridges(guest, bridges)


async def _missing_bridges(guest: TargetGuest, bridges: set[str]) -> list[str]:
    """Return a warning on bridges that the node lacks: Proxmox accepts them, and starting fails."""
    if not bridges:
        return []
    try:
        known = {row.iface for row in await guest.cluster.pve.node(guest.node).network()}
    except ResponseError:  # without Sys.Audit there
        return []
    missing = sorted(map(shown_name, bridges - known))
    return [f"{guest.node} has no {', '.join(missing)}, unless it is of SDN."] if missing else []


async def _write(change: _Change) -> None:
    await write_config(
        change.guest,
        change.parameters,
        delete=change.unset,
        revert=change.revert,
        digest=change.before.current.digest,
    )


async def _report(call: Call, change: _Change) -> dict[str, Any]:
    """Return what is in force and what is pending after the write, and the call that undoes it."""
    after: BothConfigs[Any] = await change.guest.api.configs()
    pending = pending_changes(after)
    if pending:
        call.notes.add(_RESTART)
    running = {name: after.current.raw.get(name) for name in change.new}
    applied = options_of.changes(change.before.current.raw, running)
    answer: dict[str, Any] = {"in_force": [each.words for each in applied], "pending": pending}
    if undo := _undo(change, after):
        left = left_options(after, change.new.keys() - options_of.SECRETS)
        call.undos.append(change.guest.undo("UpdateVmConfig", left, **undo))
    return answer


def _undo(change: _Change, after: BothConfigs[Any]) -> dict[str, Any]:
    """Return the arguments that restore the configuration; secrets cannot be restored."""
    was, waited = change.before.pending.raw, {each.option for each in change.before.changes}
    waits = {each.option for each in after.changes}
    arguments: dict[str, Any] = {}
    for name in {**change.new, "boot": None}:  # a removed device leaves the boot order too
        old, now = was.get(name), after.pending.raw.get(name)
        if str(old) == str(now) or name in options_of.SECRETS:
            continue
        if name != "tags" and not _is_settable(change.kind, name):
            continue  # a pending change of it can be dropped, but not made again
        if name in waits and name not in waited:
            arguments.setdefault("revert", []).append(name)
        elif old is None:
            arguments.setdefault("unset", []).append(name)
        elif name == "tags":
            arguments["tags"] = _tag_list(was)
        else:
            arguments.setdefault("options", []).append(f"{name}={old}")
    return arguments
