"""What an answer of a peer must hold: for each question the reads that it takes, and facts.

A fact is a text that stands near an anchor: "stopped" near "119". It counts in any usual notation:
a size as bytes, MiB or GiB, a time as epoch or ISO 8601. That says the facts are there; a model
still has to filter, sort and add them up.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest
from support.peer_servers import ONE, online, readable

_NEAR: Final = 900  # characters of an anchor in which its fact may stand: a row of raw JSON
_DAY: Final = 86_400
_OFFLINE: Final = ("offline", '"online": 0', '"online":0', '"online": false')


class Fact(NamedTuple):
    """Texts of which one has to be near the anchor, in the answers with this key, or in all."""

    anchor: str
    texts: tuple[str, ...]
    key: str = ""


Facts = Callable[[ClusterState], Iterator[Fact]]


def holds(fact: Fact, text: str) -> bool:
    """Return whether a casefolded text holds the fact."""
    texts = [each.casefold() for each in fact.texts]
    return any(
        each in text[max(0, place - _NEAR) : place + _NEAR]
        for place in _places(fact.anchor.casefold(), text)
        for each in texts
    )


def _places(anchor: str, text: str) -> Iterator[int]:
    """Yield where the anchor stands as a word of its own."""
    place = text.find(anchor)
    while place >= 0:
        end = place + len(anchor)
        if not text[place - 1 : place].isalnum() and not text[end : end + 1].isalnum():
            yield place
        place = text.find(anchor, end)


def size(number: float) -> tuple[str, ...]:
    """Return the notations of a number of bytes."""
    whole = [str(int(number)), *(f"{number / 2**power:.0f}" for power in (10, 20))]
    return (*whole, *(f"{number / unit:.{n}f}" for unit in (2**30, 2**40, 1e9) for n in (0, 1, 2)))


def time(epoch: float) -> tuple[str, ...]:
    """Return the notations of a time."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return str(int(epoch)), f"{moment:%Y-%m-%dT%H:%M}", f"{moment:%Y-%m-%d %H:%M}"


def _of_guests(read: Callable[..., tuple[str, ...]]) -> Facts:
    def facts(state: ClusterState) -> Iterator[Fact]:
        for guest in readable(state):
            if texts := read(guest):
                yield Fact(str(guest.vmid), texts)

    return facts


def _option(*names: str) -> Facts:
    """Return the values of options in the configurations that have them."""

    def facts(state: ClusterState) -> Iterator[Fact]:
        for guest in readable(state):
            for name, value in guest.config.items() if not guest.pending else ():
                if name.rstrip("0123456789") in names:
                    text = str(value).strip().splitlines()[0][:30]
                    yield Fact(name, (text, text.replace('"', '\\"')), str(guest.vmid))

    return facts


def _has_agent(guest: Guest) -> bool:
    return guest.agent is not None and guest.agent.answers and not guest.agent.refused


def addresses(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        if guest.running and (guest.kind == "lxc" or _has_agent(guest)):
            yield Fact("eth0", ("ip", "inet"), str(guest.vmid))


def pending(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        for name in guest.pending:
            yield Fact(name, ("pending",), str(guest.vmid))


def filesystems(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        if guest.running and _has_agent(guest):
            yield Fact("used", ("bytes",), str(guest.vmid))


def states(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        if guest.kind == "qemu":
            yield Fact("status", ("paused" if guest.paused else guest.status,), str(guest.vmid))


def _in_rows(*words: str) -> Facts:
    """Return facts of the answers of each guest: that one of the words is there."""

    def facts(state: ClusterState) -> Iterator[Fact]:
        for guest in readable(state):
            if guest.running:
                yield Fact(words[0], words, str(guest.vmid))

    return facts


def _tags(guest: Guest) -> list[str]:
    return str(guest.config.get("tags", "")).split(";")


def _pools(state: ClusterState) -> dict[int, str]:
    return {vmid: pool.poolid for pool in state.pools.values() for vmid in pool.vmids}


def guest_pools(state: ClusterState) -> Iterator[Fact]:
    pools = _pools(state)
    for guest in readable(state):
        if guest.vmid in pools:
            yield Fact(str(guest.vmid), (pools[guest.vmid],))


def nodes(state: ClusterState) -> Iterator[Fact]:
    for node in state.nodes.values():
        yield Fact(node.name, ("online",) if node.online else _OFFLINE)


def storages(state: ClusterState) -> Iterator[Fact]:
    first = online(state)[0]
    for name, storage in state.storages.items():
        if storage.enabled and first in (storage.nodes or state.nodes):
            yield Fact(name, (*size(storage.total), "%"))


def snapshots(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        for snapshot in guest.snapshots.values():
            yield Fact(snapshot.name, time(snapshot.time), str(guest.vmid))


def memory_snapshots(state: ClusterState) -> Iterator[Fact]:
    for guest in readable(state):
        for snapshot in guest.snapshots.values():
            if snapshot.with_ram:
                yield Fact(snapshot.name, ("vmstate", "ram"), str(guest.vmid))


def _volumes(content: str, read: Callable[..., tuple[str, ...]]) -> Facts:
    def facts(state: ClusterState) -> Iterator[Fact]:
        for storage in state.storages.values():
            for volume in storage.everything():
                if volume.content == content and (texts := read(volume)):
                    yield Fact(volume.volid, texts)

    return facts


def tasks(keep: Callable[..., bool]) -> Facts:
    def facts(state: ClusterState) -> Iterator[Fact]:
        for task in state.tasks.values():
            if state.nodes[task.node].online and keep(task, state.now):
                yield Fact(task.upid, (task.outcome or "running", task.type))

    return facts


def log(state: ClusterState) -> Iterator[Fact]:
    for line in state.log[-100:]:
        yield Fact(line.user, (line.text[:40],))


def jobs(state: ClusterState) -> Iterator[Fact]:
    for job in state.backup_jobs.values():
        yield Fact(job.id, (job.schedule,))


def ha(state: ClusterState) -> Iterator[Fact]:
    for resource in state.ha_resources.values():
        yield Fact(resource.sid.partition(":")[2], ("vm",))


def rules(state: ClusterState) -> Iterator[Fact]:
    for name in state.ha_rules:
        yield Fact(name, (name,))


def replication(state: ClusterState) -> Iterator[Fact]:
    for name, job in state.replications.items():
        if job.source in online(state):
            yield Fact(name, ("fail_count", "fail count"))


def _of_nodes(*words: str) -> Facts:
    def facts(state: ClusterState) -> Iterator[Fact]:
        for name in online(state):
            yield Fact(words[0], words, name)

    return facts


def _of_cluster(anchor: str, *words: str) -> Facts:
    return lambda _state: iter([Fact(anchor, words)])


def _of_one(*words: str) -> Facts:
    return lambda _state: iter(Fact(word, (word,), str(ONE)) for word in words)


def acl(state: ClusterState) -> Iterator[Fact]:
    for entry in state.user_config.acl:
        yield Fact(entry.ugid, (entry.role,))


def tokens(state: ClusterState) -> Iterator[Fact]:
    for userid, user in state.user_config.users.items():
        for name in user.tokens:
            yield Fact(name, (userid, "privsep"))


_STATUS: Final = _of_guests(lambda guest: (guest.status,))
_MEMORY: Final = _of_guests(lambda guest: size(guest.memory))
_BACKUPS: Final = _volumes("backup", lambda volume: time(volume.ctime))
_FAILED: Final = tasks(lambda t, now: not t.running and not t.ok and t.started > now - _DAY)
_DAYS_TASKS: Final = tasks(lambda t, now: t.started > now - _DAY)
_ALL_TASKS: Final = tasks(lambda _t, now: now > 0)
_TAGS: Final = _of_guests(lambda guest: tuple(filter(None, _tags(guest))))
_LOCKS: Final = _of_guests(lambda guest: tuple(filter(None, [guest.config.get("lock")])))
_ENDS: Final = _of_nodes("notafter", "not_after")
_NETWORKS: Final = _option("net")
_WEEKS: Final = _in_rows("netin", "net_in", "network")

Recipe = Mapping[str, Facts]

RECIPES: Final[Mapping[str, Recipe]] = {
    "B1": {"tasks": _DAYS_TASKS, "log": log},
    "B2": {"guests": _STATUS, "one day": _of_one("cpu"), "nodes": nodes},
    "B3": {"guests": _STATUS, "backups": _BACKUPS},
    "B4": {"guests": _STATUS, "jobs": jobs},
    "B5": {"guests": _STATUS, "ha": ha, "nodes": nodes, "jobs": jobs, "cluster": nodes},
    "B6": {"backups": _volumes("backup", lambda volume: size(volume.size))},
    "B7": {"guest weeks": _WEEKS},
    "B8": {"guests": _MEMORY, "nodes": nodes},
    "B9": {"guests": _STATUS, "snapshots": snapshots},
    "B10": {"guests": _STATUS, "configs": _option("agent")},
    "B11": {"log": log},
    "B12": {"guests": _MEMORY, "ha": ha, "nodes": nodes},
    "B13": {"guests": _STATUS, "addresses": addresses},
    "B14": {"disks": _of_nodes("health", "smart")},
    "B15": {"node months": _of_nodes("cpu")},
    "B21": {"tasks": _ALL_TASKS},
    "B22": {"ha": ha, "configs": _option("scsi", "rootfs", "virtio")},
    "B23": {"storage months": _of_cluster("used", "used")},
    "B24": {"configs": _option("ide", "sata")},
    "B25": {"configs": _option("onboot", "startup")},
    "B26": {"configs": _NETWORKS},
    "B27": {"addresses": addresses, "configs": _NETWORKS},
    "B28": {"guests": lambda state: (*_MEMORY(state), *guest_pools(state)).__iter__()},
    "B29": {"kernels": _of_nodes("kversion", "kernel")},
    "B30": {"certificates": _ENDS, "subscriptions": _of_nodes("status")},
    "B31": {"ceph": _of_cluster("health", "HEALTH_WARN")},
    "B32": {"tasks": _FAILED},
    "B34": {"filesystems": filesystems},
    "B35": {"guests": _STATUS, "tasks": _ALL_TASKS},
    "B36": {"configs": _option("unprivileged")},
    "B40": {"nodes": nodes},
    "B41": {"configs": _NETWORKS},
    "B42": {"configs": _NETWORKS},
    "B43": {"replication": replication},
    "B44": {"tasks": _DAYS_TASKS, "log": log},
    "B45": {"cluster": nodes, "node months": _of_nodes("time")},
    "B46": {"jobs": jobs},
    "B47": {"backups": _volumes("backup", lambda v: (v.verified,) if v.verified else ())},
    "B48": {"guest weeks": _in_rows("cpu"), "guests": _MEMORY},
    "B49": {"guests": _of_guests(lambda g: ("template",) if g.config.get("template") else ())},
    "B52": {"guest weeks": _in_rows("diskwrite", "disk_write")},
    "B53": {"tasks": _ALL_TASKS},
    "B54": {"configs": _option("protection")},
    "B55": {"configs": _option("scsi", "rootfs"), "storages": storages},
    "B56": {"clocks": _of_nodes("time")},
    "B57": {"updates": _of_cluster("OldVersion", "Version")},
    "B59": {"configs": _option("description")},
    "B61": {"acl": acl},
    "B62": {"guests": _of_guests(lambda g: ("uptime",) if g.running else ())},
    "B63": {"guests": _TAGS},
    "B64": {"guests": _STATUS},
    "B65": {"states": states},
    "B66": {"configs": _option("ostype")},
    "B67": {"configs": _option("scsi", "virtio", "mp")},
    "B68": {"snapshots": snapshots},
    "B69": {"guests": _LOCKS},
    "B70": {"tasks": _ALL_TASKS},
    "B71": {"backups": _volumes("backup", lambda v: (v.verified,) if v.verified else ())},
    "B72": {"tasks": _ALL_TASKS},
    "B73": {"nodes": nodes},
    "B74": {"snapshots": memory_snapshots},
    "B75": {"configs": _NETWORKS},
    "B76": {"guests": _TAGS},
    "B77": {"guests": _STATUS, "nodes": nodes},
    "B78": {"tasks": _ALL_TASKS},
    "B79": {"guests": _STATUS, "one day": _of_one("cpu")},
    "B81": {"backups": _BACKUPS},
    "N1": {"guests": _MEMORY},
    "N2": {"guests": _STATUS},
    "N3": {"guests": _STATUS, "one config": _of_one("memory")},
    "N5": {"states": states},
    "N6": {"guests": _STATUS, "nodes": nodes},
    "N7": {"guests": guest_pools},
    "N8": {"guests": _MEMORY},
    "N9": {"guests": lambda state: (*_TAGS(state), *guest_pools(state)).__iter__()},
    "N10": {"pending": pending},
    "N11": {"configs": _option("onboot")},
    "N12": {"configs": _option("features")},
    "N14": {"configs": _option("hostpci"), "pci": _of_cluster("vendor_name", "device_name")},
    "N16": {"configs": _option("scsi", "rootfs"), "storages": storages},
    "N17": {"isos": _volumes("iso", lambda volume: time(volume.ctime))},
    "N18": {"snapshots": snapshots},
    "N19": {"storages": storages},
    "N20": {"configs": _option("scsi", "rootfs", "virtio", "mp")},
    "N21": {"configs": _NETWORKS},
    "N22": {"configs": _option("ipconfig", "net")},
    "N23": {"firewall": _of_cluster("SSH", "ACCEPT")},
    "N24": {"jobs": jobs},
    "N26": {"guests": _STATUS, "backups": _BACKUPS},
    "N27": {"node months": _of_nodes("memused")},
    "N28": {"guest weeks": _in_rows("cpu")},
    "N29": {"one day": _of_one("cpu")},
    "N30": {"tasks": _DAYS_TASKS, "log": log},
    "N31": {"log": log},
    "N32": {"tasks": _FAILED},
    "N35": {"log": log},
    "N37": {"nodes": nodes},
    "N38": {"cluster": nodes},
    "N39": {"rules": rules, "ha": ha},
    "N40": {"kernels": _of_nodes("kversion", "kernel")},
    "N41": {"replication": replication},
    "N42": {"acl": acl},
    "N43": {"tokens": tokens},
    "N48": {"guests": _MEMORY},
    "N49": {"guests": guest_pools, "backups": _BACKUPS},
}  # fmt: skip
