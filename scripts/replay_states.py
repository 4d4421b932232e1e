"""Replay the recordings of unusual states against a cluster that is built from what they show.

The recorded cluster was not set up by its recorded requests alone. So each scenario begins with the
guests that it mentions set to what their recorded answers say, and tasks that the recordings only
read are added with their recorded logs. Scenarios of a broken cluster get a cluster of their own.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from proxmox_client.emulator.clock import ManualClock
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request, Response
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Guest, Kind, Snapshot
from proxmox_client.emulator.state.jobs import BackupJob, Pool, Replication
from proxmox_client.emulator.state.node import RESTART_SECONDS
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.state.task import Task, node_of
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token, User
from replay_recordings import backups_in

FILE = "exchanges-9.2-more.jsonl"
VERSION = "9.2"
BEGIN = 1795991200
"""The time of the first recorded answers, in seconds since 1970."""
DISK = 270553174016
PASSWORD = "Passw0rd!"
GUEST = re.compile(r"/nodes/(\w+)/(qemu|lxc)/(\d+)(/.*)?")
TASK = re.compile(r"/nodes/\w+/tasks/(UPID[^/]+)/(status|log)")
UPID = re.compile(r"UPID%3A[^/]*")
VOLUMES = ("images", "rootdir", "backup")

Exchange = dict[str, Any]


def load(folder: Path) -> list[Exchange]:
    """Load the recorded exchanges."""
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def data_of(exchange: Exchange) -> Any:
    """Return the data of a recorded answer, or None."""
    body = exchange["body"]
    return body.get("data") if isinstance(body, dict) and exchange["status"] == 200 else None


def is_isolated(scenario: str) -> bool:
    """Return whether a scenario gets a cluster of its own."""
    return scenario.startswith(("state.", "quorum-lost"))


def segments(exchanges: list[Exchange]) -> list[tuple[str, list[int]]]:
    """Divide the recording into parts of one scenario each: scenario and numbers of exchanges.

    Scenarios of a broken cluster ran beside others and are one part each.
    """
    isolated: dict[str, list[int]] = {}
    parts: list[tuple[str, list[int]]] = []
    for number, exchange in enumerate(exchanges):
        scenario = exchange["scenario"]
        if is_isolated(scenario):
            isolated.setdefault(scenario, []).append(number)
        elif parts and parts[-1][0] == scenario:
            parts[-1][1].append(number)
        else:
            parts.append((scenario, [number]))
    return parts + list(isolated.items())


class Facts:
    """What the recordings show about the recorded cluster, by time."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self.started = {data_of(e) for e in exchanges if _is_task_start(e)}
        self.created = creations(exchanges)
        self._by_guest: dict[int, list[tuple[int, str, str]]] = {}
        self._rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for number, exchange in enumerate(exchanges):
            if match := GUEST.fullmatch(exchange["path"]):
                entry = (number, exchange["method"], match[4] or "")
                self._by_guest.setdefault(int(match[3]), []).append(entry)
            for row in data_of(exchange) or [] if exchange["path"] == "/cluster/resources" else []:
                if "maxmem" in row and "vmid" in row:
                    self._rows.setdefault(row["vmid"], []).append((number, row))

    def first(self, path: str, **params: str) -> Any:
        """Return the data of the first successful answer to a read as root."""
        return next(
            data_of(e)
            for e in self.exchanges
            if (e["method"], e["path"], e["auth"]) == ("GET", path, "root")
            and data_of(e) is not None
            and (e["params"] or {}) == params
        )

    def near(self, vmid: int, begin: int, end: int, tail: str, **params: str) -> Any:
        """Return what a guest's answer to a read was when a scenario began.

        The first answer inside the scenario counts if no write to the guest precedes it, else the
        last one before it, else the first one after its beginning.
        """
        found: dict[int, Any] = {}
        first_write = None
        for number, method, read in self._by_guest.get(vmid, []):
            exchange = self.exchanges[number]
            if method != "GET":
                is_inside = begin <= number < end
                first_write = number if is_inside and first_write is None else first_write
            elif read == tail and (exchange["params"] or {}) == params:
                found[number] = data_of(exchange)
        limit = end if first_write is None else first_write
        inside = [data for number, data in found.items() if begin <= number < limit]
        before = [data for number, data in found.items() if number < begin]
        after = [data for number, data in found.items() if number >= end]
        later = [data for number, data in found.items() if limit <= number < end]
        for choice in (inside[:1], before[-1:], later[:1], after[:1]):
            if choice and choice[0] is not None:
                return choice[0]
        return None

    def row(self, vmid: int, end: int) -> dict[str, Any]:
        """Return the last complete row of a guest in /cluster/resources before a time."""
        rows = self._rows.get(vmid, [])
        before = [row for number, row in rows if number < end]
        return (before[-1:] or [row for _, row in rows[:1]] or [{}])[0]


def creations(exchanges: list[Exchange]) -> set[int]:
    """Return the guests that recorded requests create, without a look at them before."""
    ended = {
        unquote(match[1]): exchange
        for exchange in exchanges
        if (match := TASK.fullmatch(exchange["path"])) and match[2] == "status"
    }
    created: set[int] = set()
    seen: set[int] = set()
    for exchange in exchanges:
        match, params = GUEST.fullmatch(exchange["path"]), exchange["params"] or {}
        if match and exchange["status"] == 200:
            seen.add(int(match[3]))
        is_creation = exchange["path"].endswith(("/qemu", "/lxc")) and "force" not in params
        new = params.get("newid") or (params.get("vmid") if is_creation else None)
        if not new or not _is_task_start(exchange):
            continue
        outcome = data_of(ended.get(data_of(exchange), exchange))
        if not isinstance(outcome, dict) or outcome.get("exitstatus", "OK") == "OK":
            created |= {int(new)} - seen
    return created


def _is_task_start(exchange: Exchange) -> bool:
    data = data_of(exchange)
    return exchange["method"] != "GET" and isinstance(data, str) and data.startswith("UPID")


class StateReplay:
    """The recordings of unusual states against emulated clusters."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.facts = Facts(exchanges)
        self.upids: dict[str, str] = {}
        self.backups: dict[str, str] = {}
        self.cluster = self._cluster()

    async def answers(self) -> AsyncIterator[tuple[Exchange, Response]]:
        """Yield each exchange with the emulator's answer to it, scenario by scenario."""
        steady = self.cluster
        for scenario, numbers in segments(self.facts.exchanges):
            self.cluster = self._cluster() if is_isolated(scenario) else steady
            await self._enter(scenario, numbers)
            for number in numbers:
                exchange = self.facts.exchanges[number]
                yield exchange, await self._exchange(exchange)
            await self._leave()
        await steady.stop()

    @property
    def clock(self) -> ManualClock:
        clock = self.cluster.state.clock
        assert isinstance(clock, ManualClock)
        return clock

    def _cluster(self) -> EmulatedCluster:
        cluster = EmulatedCluster(build(self.facts))
        config = cluster.state.user_config
        config.acl = [entry for entry in config.acl if entry.role != "Administrator"]
        add_accounts(self.facts, cluster.state)
        return cluster

    async def _enter(self, scenario: str, numbers: list[int]) -> None:
        begin, end = numbers[0], numbers[-1] + 1
        exchanges = [self.facts.exchanges[number] for number in numbers]
        state = self.cluster.state
        mentioned = (match for e in exchanges if (match := GUEST.fullmatch(e["path"])))
        for node, kind, vmid in dict.fromkeys((m[1], m[2], int(m[3])) for m in mentioned):
            sync_guest(self.facts, state, (node, Kind(kind), vmid), begin, end)
        if is_isolated(scenario):
            add_created_guests(self.facts, state, begin)
        for vmid in creations(exchanges):
            remove_guest(state, vmid)
        for exchange in exchanges:
            add_task(self.facts, state, exchange)
        await enter_state(self.cluster, scenario)

    async def _leave(self) -> None:
        await self._settle()
        for agent in filter(None, (guest.agent for guest in self.cluster.state.guests.values())):
            agent.refused = frozenset()

    async def _settle(self) -> None:
        """Advance the clock until every task has ended."""
        for _ in range(400):
            if not any(task.running for task in self.cluster.state.tasks.values()):
                return
            await self.clock.advance(1)

    async def _exchange(self, recorded: Exchange) -> Response:
        """Send one recorded request, with recorded task IDs replaced by this cluster's."""
        path = UPID.sub(lambda match: self._translate(match[0]), recorded["path"])
        for name, ours in self.backups.items():
            path = path.replace(quote(name, safe=""), quote(ours, safe=""))
        is_read = recorded["method"] == "GET"
        data = data_of(recorded)
        if not (is_read and isinstance(data, dict) and data.get("status") == "running"):
            await self._settle()
        node = recorded["scenario"].partition("@")[2] or "pve1"
        gateway = Gateway(self.cluster, self.cluster.state.nodes[node])
        headers, body, query = self._credentials(recorded), b"", ""
        form = urlencode(self._params(recorded), doseq=True)
        if recorded["method"] in ("GET", "DELETE"):
            query = form
        else:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = form.encode()
        request = Request(recorded["method"], f"/api2/json{path}", query, headers, body)
        answer = asyncio.ensure_future(gateway.answer(request))
        while not answer.done():
            for _ in range(50):
                await asyncio.sleep(0)
                if answer.done():
                    break
            if not answer.done():
                await self.clock.advance(3)
        response = await answer
        if (recorded["scenario"], recorded["path"]) == RESTARTED:
            await self.clock.advance(RESTART_SECONDS)
        self._learn(recorded, response)
        return response

    def _params(self, recorded: Exchange) -> dict[str, Any]:
        """Return the parameters, with a digest that was right replaced by this cluster's."""
        params = dict(recorded["params"] or {})
        for key, value in params.items():
            for name, ours in self.backups.items():
                params[key] = value = value.replace(name, ours) if isinstance(value, str) else value
        match = GUEST.fullmatch(recorded["path"])
        if "digest" in params and recorded["status"] == 200 and match:
            params["digest"] = self.cluster.state.guests[int(match[3])].digest
        return params

    def _translate(self, recorded: str) -> str:
        upid = unquote(recorded)
        return quote(self.upids.get(upid, upid), safe="")

    def _learn(self, recorded: Exchange, response: Response) -> None:
        ours = json.loads(response.body).get("data") if response.body else None
        if _is_task_start(recorded) and isinstance(ours, str):
            self.upids[data_of(recorded)] = ours
        theirs = data_of(recorded)
        is_list = recorded["path"].endswith("/content") and recorded["method"] == "GET"
        if is_list and isinstance(theirs, list) and isinstance(ours, list):
            self.backups |= dict(zip(backups_in(theirs), backups_in(ours), strict=False))

    def _credentials(self, recorded: Exchange) -> dict[str, str]:
        """Return the headers of a recorded account; of a replaced secret where it was refused."""
        auth = "root@pam!lab" if recorded["auth"] == "root-token" else recorded["auth"]
        userid, _, name = auth.partition("!")
        users, now = self.cluster.state.user_config.users, self.clock.now()
        if name:
            token = users[userid].tokens.get(name) if userid in users else None
            is_replaced = recorded["scenario"] == "token.by-token" and recorded["status"] == 401
            secret = token.secret if token and not is_replaced else "replaced"
            return {"authorization": f"PVEAPIToken={auth}={secret}"}
        userid = "root@pam" if auth == "root" else auth
        if "@" not in userid:
            return {}
        tickets = self.cluster.tickets
        headers = {"cookie": f"PVEAuthCookie={quote(tickets.issue(userid, now))}"}
        return headers | {"csrfpreventiontoken": tickets.csrf(userid, now)}


def build(facts: Facts) -> ClusterState:
    """Build the recorded cluster: nodes, storages with their content, guests, pools and jobs."""
    builder = Builder("lab", VERSION, ManualClock(BEGIN), seed=9)
    state = builder.state
    for number in (1, 2, 3):
        node = builder.node(f"pve{number}", cpus=2, memory=25276059648, swap=0, root_total=DISK)
        node.address, node.booted = f"10.77.0.{number}", BEGIN - 5700
    for row in facts.first("/storage"):
        _add_storage(state, row)
    for row in facts.first("/nodes/pve1/storage/local/content"):
        _add_volume(state.storages["local"], "pve1", row)
    rows = [
        row
        for exchange in facts.exchanges
        if exchange["path"] == "/cluster/resources"
        for row in data_of(exchange) or []
    ]
    _add_pools(facts, state, rows)
    _add_guests(facts, state, rows)
    _add_jobs(facts, state)
    state.options = facts.first("/cluster/options") | {"mac_prefix": "BC:24:11"}
    return state


def _add_pools(facts: Facts, state: ClusterState, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["type"] == "pool":
            state.pools.setdefault(row["pool"], Pool(row["pool"]))
    state.pools["prod"].comment = facts.first("/pools/prod")["comment"]
    state.pools["prod"].storages = {"shared"}
    state.pools["prod/web"].comment = "nested"


def _add_guests(facts: Facts, state: ClusterState, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        vmid = row.get("vmid")
        if vmid and vmid not in facts.created and vmid not in state.guests:
            state.guests[vmid] = Guest(vmid, Kind(row["type"]), row["node"], created=BEGIN - 5000)
            sync_guest(facts, state, (row["node"], Kind(row["type"]), vmid), 0, 0)


def _add_jobs(facts: Facts, state: ClusterState) -> None:
    for row in facts.first("/cluster/backup"):
        options = {key: value for key, value in row.items() if key not in JOB_FIELDS}
        job = BackupJob(row["id"], row["schedule"], options, enabled=bool(row["enabled"]))
        state.backup_jobs[job.id] = job
    for node in ("pve1", "pve2"):
        for row in facts.first(f"/nodes/{node}/replication"):
            _add_replication(state, row)


RESTARTED = ("state.pmxcfs-restarted", "/cluster/status")
"""The request after which the restarted node had statistics again."""
JOB_FIELDS = ("id", "schedule", "enabled", "type", "next-run")
STORAGE_FIELDS = ("storage", "type", "content", "shared", "nodes", "disable", "digest")
BROKEN = {
    "deadnfs": "storage 'deadnfs' is not online",
    "cifsdead": "storage 'cifsdead' is not online",
    "pbsdead": "pbsdead: error fetching datastores - 500 Can't connect to 10.77.0.98:8007 "
    "(No route to host)",
    "thin": "no such logical volume nosuchvg/tp",
    "small": "unable to activate storage 'small' - directory is expected to be a mount point but "
    "is not mounted: '/mnt/small'",
}


def _add_storage(state: ClusterState, row: dict[str, Any]) -> None:
    nodes = tuple(filter(None, row.get("nodes", "").split(",")))
    storage = Storage(
        row["storage"], row["type"], tuple(row["content"].split(",")), bool(row.get("shared"))
    )
    storage.nodes, storage.total, storage.enabled = nodes, DISK, not row.get("disable")
    storage.options = {key: value for key, value in row.items() if key not in STORAGE_FIELDS}
    storage.failure = BROKEN.get(storage.name, "")
    state.storages[storage.name] = storage


def _add_volume(storage: Storage, node: str, row: dict[str, Any]) -> None:
    volume = Volume(row["volid"], row["content"], row["format"], row["size"], row["ctime"])
    volume.vmid, volume.used = row.get("vmid", 0), row.get("used")
    volume.subtype, volume.notes = row.get("subtype", ""), row.get("notes", "")
    volume.protected, volume.parent = bool(row.get("protected")), row.get("parent")
    storage.put(node, volume)


def _add_replication(state: ClusterState, row: dict[str, Any]) -> None:
    job = Replication(row["guest"], row["jobnum"], row["source"], row["target"])
    job.schedule, job.rate = row.get("schedule", ""), row.get("rate")
    job.comment, job.disabled = row.get("comment", ""), bool(row.get("disable"))
    job.last_sync, job.last_try = row["last_sync"], row["last_try"]
    job.duration, job.fail_count = row.get("duration", 0.0), row["fail_count"]
    job.error = job.obstacle = row.get("error", "")
    state.replications[job.id] = job


def sync_guest(
    facts: Facts, state: ClusterState, place: tuple[str, Kind, int], begin: int, end: int
) -> None:
    """Set a guest to what the recordings say of it when a scenario began."""
    node, kind, vmid = place
    config = facts.near(vmid, begin, end, "/config", current="1")
    config = config or facts.near(vmid, begin, end, "/config")
    row = facts.row(vmid, begin)
    if config is None and not row:
        return
    guest = state.guests.get(vmid)
    if guest is None and vmid in facts.created:
        return
    if guest is None:
        guest = state.guests[vmid] = Guest(vmid, kind, row.get("node", node), created=BEGIN - 5000)
    config = dict(config or _config_of(row, guest.kind))
    config.pop("digest", None)
    guest.parent = config.pop("parent", "")
    guest.config = config
    _sync_pending(guest, facts.near(vmid, begin, end, "/pending"))
    snapshots = facts.near(vmid, begin, end, "/snapshot") or []
    guest.snapshots = {
        entry["name"]: Snapshot(
            entry["name"],
            entry["snaptime"],
            entry["description"],
            entry.get("parent", ""),
            bool(entry.get("vmstate")),
            dict(config),
        )
        for entry in snapshots
        if entry["name"] != "current"
    }
    if guest.parent and guest.parent not in guest.snapshots:
        guest.snapshots[guest.parent] = Snapshot(guest.parent, BEGIN - 4000, config=dict(config))
    status = facts.near(vmid, begin, end, "/status/current") or row
    guest.status = status.get("status", "stopped")
    if guest.running:
        guest.started, guest.pid = state.now - 500, status.get("pid", 1000)
    if guest.agent is None and guest.kind is Kind.QEMU:
        guest.agent = Agent(answers=False)
    pool = row.get("pool")
    for entry in state.pools.values():
        entry.vmids.discard(vmid)
    if pool in state.pools:
        state.pools[pool].vmids.add(vmid)
    _put_volumes(state, guest)
    guest.touch()


def add_created_guests(facts: Facts, state: ClusterState, begin: int) -> None:
    """Add the guests that earlier recorded requests had created when a scenario began."""
    for exchange in facts.exchanges[:begin]:
        rows = data_of(exchange) if exchange["path"] == "/cluster/resources" else None
        for row in rows or []:
            if row.get("vmid") in facts.created and "maxmem" in row:
                vmid, kind = row["vmid"], Kind(row["type"])
                state.guests[vmid] = Guest(vmid, kind, row["node"], created=BEGIN - 1000)
                sync_guest(facts, state, (row["node"], kind, vmid), begin, begin)


def remove_guest(state: ClusterState, vmid: int) -> None:
    """Remove a guest with its volumes, which a recorded request is about to create."""
    state.guests.pop(vmid, None)
    for storage in state.storages.values():
        for node in state.nodes:
            for volume in list(storage.volumes(node).values()):
                if volume.vmid == vmid and volume.content != "backup":
                    storage.remove(node, volume.volid)


def _config_of(row: dict[str, Any], kind: Kind) -> dict[str, Any]:
    name = "name" if kind is Kind.QEMU else "hostname"
    memory = row["maxmem"] // 2**20
    config = {name: row["name"], "memory": str(memory) if kind is Kind.QEMU else memory}
    extra = {key: row[key] for key in ("tags", "lock") if row.get(key)}
    return config | extra | ({"template": 1} if row.get("template") else {})


def _sync_pending(guest: Guest, rows: list[dict[str, Any]] | None) -> None:
    guest.pending, guest.removals = {}, {}
    for row in rows or []:
        if "pending" in row:
            guest.pending[row["key"]] = row["pending"]
        if "delete" in row:
            guest.removals[row["key"]] = row["delete"]


def _put_volumes(state: ClusterState, guest: Guest) -> None:
    """Add the volumes of a guest's disks that the recorded content doesn't list."""
    for disk in guest.disks():
        storage = state.storages.get(disk.storage)
        if storage and disk.volid not in storage.volumes(guest.node):
            content = "images" if guest.kind is Kind.QEMU else "rootdir"
            format_ = disk.volid.rpartition(".")[2]
            volume = Volume(disk.volid, content, format_, disk.size, BEGIN - 5000, guest.vmid)
            storage.put(guest.node, volume)


def add_accounts(facts: Facts, state: ClusterState) -> None:
    """Add the recorded users, tokens, groups, roles and ACL."""
    config = state.user_config
    config.users = {}
    for row in facts.first("/access/users", full="1"):
        user = User(row["userid"], PASSWORD, bool(row["enable"]), row["expire"])
        user.comment, user.email = row.get("comment", ""), row.get("email", "")
        user.groups = set(filter(None, row["groups"].split(",")))
        for token in row["tokens"] or []:
            privsep, expire = bool(token["privsep"]), token["expire"]
            user.tokens[token["tokenid"]] = Token(token["tokenid"], "secret", privsep, expire)
        config.users[user.userid] = user
    config.groups = {row["groupid"]: Group(row["groupid"]) for row in facts.first("/access/groups")}
    config.roles = {
        row["roleid"]: frozenset(row["privs"].split(","))
        for row in facts.first("/access/roles")
        if not row["special"]
    }
    config.acl = [
        AclEntry(row["path"], row["type"], row["ugid"], row["roleid"], bool(row["propagate"]))
        for row in facts.first("/access/acl")
    ]
    for name in ("none", "aud", "bak", "space", "bakspace", "alloc", "disk", "bak100"):
        config.users[f"{name}@pve"] = User(f"{name}@pve", PASSWORD)


def add_task(facts: Facts, state: ClusterState, exchange: Exchange) -> None:
    """Add a task that was started without a recorded request, from its recorded log."""
    match, data = TASK.fullmatch(exchange["path"]), data_of(exchange)
    upid = unquote(match[1]) if match else ""
    node = node_of(upid)
    if not match or not data or node is None or upid in facts.started:
        return
    _, _, pid, pstart, started, type_, id_, user, _ = upid.split(":")
    task = state.tasks.get(upid)
    if task is None:
        id_ = id_.replace("\\x3a", ":")
        task = Task(node, int(pid, 16), int(pstart, 16), int(started, 16), type_, id_, user)
        state.tasks[upid] = task
        task.ended, task.outcome = task.started + 1, "OK"
    if match[2] == "log":
        task.log = [row["t"] for row in data]
    elif data["status"] == "stopped":
        task.outcome = data["exitstatus"]


async def enter_state(cluster: EmulatedCluster, scenario: str) -> None:
    """Bring a cluster into the state that a scenario is named after."""
    match scenario.partition("@")[0]:
        case "state.node-stats-missing":
            cluster.stop_service("pve2", "pvestatd")
        case "state.node-off":
            await cluster.node_down("pve3")
        case "state.node-off-5min" | "guest.after":
            await cluster.node_down("pve3", seconds_ago=600)
        case "state.pvedaemon-down":
            await cluster.node_down("pve3", seconds_ago=600)
            cluster.stop_service("pve1", "pvedaemon")
        case "state.pmxcfs-down":
            await cluster.node_down("pve3", seconds_ago=600)
            cluster.stop_service("pve1", "pmxcfs")
        case "state.pmxcfs-restarted":
            await cluster.node_down("pve3", seconds_ago=600)
            cluster.stop_service("pve1", "pmxcfs")
            cluster.start_service("pve1", "pmxcfs")
        case _:
            await enter_cluster_state(cluster, scenario)


async def enter_cluster_state(cluster: EmulatedCluster, scenario: str) -> None:
    """Bring a cluster into a state that is not one of a node."""
    match scenario.partition("@")[0]:
        case "quorum-lost":
            for node in ("pve1", "pve2"):
                await cluster.node_down(node)
            cluster.lose_quorum()
        case "config.pending-disk-delete":
            cluster.state.guests[108].status = "stopped"
        case "agent.ok" | "permissions.effect":
            set_agent(cluster, frozenset())
        case "replication.never-run":
            for job in (Replication(106, 0, "pve1", "pve2"), Replication(108, 0, "pve1", "pve2")):
                cluster.state.replications[job.id] = job
            cluster.state.replications["106-0"].comment = "never run"
            cluster.state.replications["106-0"].schedule = "*/15"
            cluster.state.replications["108-0"].disabled = True
        case "agent.refused":
            set_agent(cluster, REFUSED)


REFUSED = frozenset(
    {"get-osinfo", "network-get-interfaces", "get-fsinfo", "get-host-name", "get-time"}
    | {"get-timezone", "get-users", "get-vcpus", "get-memory-blocks", "get-memory-block-info"}
    | {"fsfreeze-status", "fsfreeze-freeze", "fsfreeze-thaw", "fstrim", "exec", "exec-status"}
    | {"file-open", "set-user-password"}
)


def set_agent(cluster: EmulatedCluster, refused: frozenset[str]) -> None:
    """Make the recorded guest's agent answer, except for refused commands."""
    guest = cluster.state.guests[100]
    guest.agent = Agent(answers=True, refused=refused)
    guest.config["agent"] = "1"
