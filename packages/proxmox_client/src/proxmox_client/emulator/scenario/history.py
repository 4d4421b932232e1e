"""The task history of a cluster from before the emulator started, with logs."""

from datetime import UTC, datetime, timedelta
from typing import Final

from proxmox_client.emulator.scenario.builder import DAY, Builder
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.jobs import LogEntry
from proxmox_client.emulator.state.task import Task

FAILURES: Final = (
    ("qmigrate", "migration aborted"),
    ("qmstart", "start failed: QEMU exited with code 1"),
    ("qmshutdown", "VM quit/powerdown failed - got timeout"),
    ("qmsnapshot", "snapshot feature is not available"),
    ("vzdump", "job errors"),
    ("download", "download failed: exit code 8"),
    ("vzstart", "startup for container '{id}' failed"),
    ("imgdel", "unable to remove disk image: Device or resource busy"),
    ("qmrollback", "can't rollback, more recent snapshots exist"),
    ("qmclone", "clone failed: no space left on storage"),
    ("vncproxy", "command '/usr/bin/termproxy 5901' failed: exit code 1"),
    ("qmdestroy", "can't lock file '/var/lock/qemu-server/lock-{id}.conf' - got timeout"),
)
ROUTINE: Final = (
    ("qmsnapshot", 9),
    ("qmdelsnapshot", 14),
    ("qmigrate", 75),
    ("vncproxy", 340),
    ("aptupdate", 11),
)


def add_task(
    builder: Builder,
    node: str,
    type_: str,
    id_: str,
    user: str,
    *,
    hours_ago: float,
    seconds: float,
    outcome: str = "OK",
    log: tuple[str, ...] = (),
) -> Task:
    """Add a finished task with its log."""
    started = int(builder.now - hours_ago * 3600)
    task = builder.state.add_task(node, type_, id_, user, started)
    task.log.extend(log)
    task.finish(outcome, started + seconds)
    return task


def add_failed_tasks(builder: Builder, users: tuple[str, ...], count: int) -> None:
    """Add failed tasks of the last days, of several users."""
    nodes = _online_nodes(builder)
    vmids = _reachable(builder)
    for number in range(count):
        type_, outcome = FAILURES[number % len(FAILURES)]
        guest = _choose_guest(builder, type_, vmids)
        vmid = str(guest.vmid)
        id_ = "debian-13.iso" if type_ == "download" else vmid
        add_task(
            builder,
            nodes[number % len(nodes)] if type_ == "download" else guest.node,
            type_,
            id_,
            users[number % len(users)],
            hours_ago=0.7 + number * 3.1 + builder.random.random(),
            seconds=builder.random.randrange(1, 240),
            outcome=outcome.format(id=vmid),
        )


def add_routine_tasks(builder: Builder, users: tuple[str, ...], days: int) -> None:
    """Add the ordinary tasks of the last days."""
    _add_starts_and_stops(builder, users, days)
    nodes, vmids = _online_nodes(builder), _reachable(builder)
    for number in range(days * 4):
        type_, seconds = builder.random.choice(ROUTINE)
        id_, node = "", builder.random.choice(nodes)
        if type_ != "aptupdate":
            guest = _choose_guest(builder, type_, vmids)
            id_, node = str(guest.vmid), guest.node
        user = "root@pam" if type_ == "aptupdate" else builder.random.choice(users)
        hours_ago = number * 6 + builder.random.random() * 5 + 0.2
        lasts = seconds * builder.random.random() + 1
        add_task(builder, node, type_, id_, user, hours_ago=hours_ago, seconds=lasts)


def _add_starts_and_stops(builder: Builder, users: tuple[str, ...], days: int) -> None:
    """Add the tasks after which guests run, or are stopped, as they are now."""
    for vmid in _reachable(builder):
        guest = builder.state.guests[vmid]
        word, when = ("start", guest.started) if guest.running else ("shutdown", guest.stopped)
        seconds = 30 + builder.random.randrange(30)
        hours_ago = (builder.now - when + seconds) / 3600
        if guest.template or hours_ago > days * 24:
            continue
        type_ = f"{'qm' if guest.kind is Kind.QEMU else 'vz'}{word}"
        user = builder.random.choice(users)
        add_task(builder, guest.node, type_, str(vmid), user, hours_ago=hours_ago, seconds=seconds)


def _online_nodes(builder: Builder) -> list[str]:
    return [node.name for node in builder.state.nodes.values() if node.online]


def _reachable(builder: Builder) -> list[int]:
    """Return the guests of nodes that are online: others have no tasks on record."""
    nodes = _online_nodes(builder)
    return sorted(guest.vmid for guest in builder.state.guests.values() if guest.node in nodes)


def _choose_guest(builder: Builder, type_: str, vmids: list[int]) -> Guest:
    """Choose a guest, or the one next to it if tasks of this type are of the other kind."""
    kind = {"qm": "qemu", "vz": "lxc"}.get(type_[:2]) if type_ != "vzdump" else None
    guests, vmid = builder.state.guests, builder.random.choice(vmids)
    if kind not in (None, guests[vmid].kind):
        fitting = (other for other in vmids if guests[other].kind == kind)
        vmid = min(fitting, key=lambda other: (abs(other - vmid), other), default=vmid)
    return guests[vmid]


def add_backup_runs(
    builder: Builder,
    options: str,
    *,
    hours_ago: float,
    every_hours: float,
    runs: int,
    outcomes: tuple[str, ...] = ("OK",),
    vmids: tuple[int, ...] = (),
) -> None:
    """Add the runs of a backup job on every node; `outcomes` starts with the newest run."""
    nodes = [node.name for node in builder.state.nodes.values() if node.online]
    for run in range(runs):
        age_hours = hours_ago + run * every_hours
        if age_hours * 3600 > 30 * DAY:
            return
        outcome = outcomes[run] if run < len(outcomes) else "OK"
        for node in nodes:
            local_vmids = [vmid for vmid in vmids if builder.state.guests[vmid].node == node]
            if vmids and not local_vmids:
                continue
            seconds = 300 + builder.random.randrange(1500)
            log = _backup_log(builder, options, local_vmids, age_hours, seconds, outcome)
            node_outcome = outcome if node == nodes[0] else "OK"
            add_task(
                builder,
                node,
                "vzdump",
                "",
                "root@pam",
                hours_ago=age_hours,
                seconds=seconds,
                outcome=node_outcome,
                log=log,
            )


def _backup_log(
    builder: Builder,
    options: str,
    vmids: list[int],
    hours_ago: float,
    seconds: int,
    outcome: str,
) -> tuple[str, ...]:
    start = datetime.fromtimestamp(builder.now - hours_ago * 3600, UTC)
    each = timedelta(seconds=seconds // max(1, len(vmids)))
    lines = [f"INFO: starting new backup job: vzdump {options}"]
    for position, vmid in enumerate(vmids):
        guest = builder.state.guests[vmid]
        lines += [
            f"INFO: Starting Backup of VM {vmid} ({guest.kind})",
            f"INFO: Backup started at {start + position * each:%Y-%m-%d %H:%M:%S}",
            f"INFO: status = {guest.status}",
            f"INFO: {guest.kind.word} Name: {guest.name}",
        ]
        if outcome == "OK" or vmid != vmids[-1]:
            lines.append(f"INFO: Finished Backup of VM {vmid} ({each!s:0>8})")
        else:
            lines.append(f"ERROR: Backup of VM {vmid} failed - no space left on device")
    result = "successfully" if outcome == "OK" else "with errors"
    return (*lines, f"INFO: Backup job finished {result}")


def add_log(builder: Builder, users: tuple[str, ...], *, days: float = 3) -> None:
    """Add the lines of the cluster log of the last days: sign-ins, tasks, changes of memory."""
    state, since = builder.state, builder.now - days * DAY
    lines: list[tuple[float, str, str, str, int]] = []
    for task in state.tasks.values():
        if task.started >= since and task.ended is not None:
            failed = task.outcome not in ("OK", "") and not task.outcome.startswith("WARNINGS")
            end = f"end task {task.upid} {task.outcome}"
            lines.append((task.started, task.node, task.user, f"starting task {task.upid}", 6))
            lines.append((task.ended, task.node, task.user, end, 3 if failed else 6))
    nodes = [node.name for node in state.nodes.values() if node.online]
    people = [name for name in users if "!" not in name]
    for number in range(int(days * 8)):
        user, node = people[number % len(people)], nodes[number % len(nodes)]
        moment = builder.now - number * 3 * 3600 - 900
        lines.append((moment, node, user, f"successful auth for user '{user}'", 6))
    changed = [guest for guest in state.guests.values() if guest.kind is Kind.QEMU][:3]
    for number, guest in enumerate(changed):
        line = f"update VM {guest.vmid}: -memory {guest.config['memory']}"
        moment = builder.now - (number * 9 + 4) * 3600
        lines.append((moment, guest.node, people[number % len(people)], line, 6))
    attempt = (
        "authentication failure; rhost=::ffff:10.20.0.99 user=root@pam msg=Authentication failure"
    )
    lines.append((builder.now - 5 * 3600, nodes[0], "root@pam", attempt, 3))
    for number, (when, node, user, text, priority) in enumerate(sorted(lines), 1):
        pid = 900 + number % 3
        state.log.append(LogEntry(int(when), node, user, "pvedaemon", text, number, pid, priority))
