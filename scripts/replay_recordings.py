"""Set up an emulated cluster like the recorded ones and send the recorded requests to it."""

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.clock import ManualClock
from proxmox_client.emulator.cluster import Cluster
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request, Response
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.people import Grant, Token, User
from proxmox_client.emulator.state.storage import Volume

DISK = 270553174016
"""Bytes on every disk of the recorded machines."""
JSON_BODIES = [
    {"description": "json", "onboot": True},
    {"onboot": False},
    {"tags": None},
    {"memory": 48},
    {"delete": ["onboot"]},
    {"delete": "description"},
]
"""The JSON bodies, which the recordings omit; reconstructed from their effects."""
FORM = (
    '------x\r\nContent-Disposition: form-data; name="content"\r\n\r\niso\r\n'
    '------x\r\nContent-Disposition: form-data; name="filename"; filename="tiny.iso"\r\n\r\n'
    f"{'x' * 2048}\r\n------x--\r\n"
)
UPID = re.compile(r"UPID(?::|%3A)\w+(?::|%3A)[0-9A-F]{8}.*?(?::|%3A)(?=$|/|\")")


def build(version: str, clock: ManualClock) -> Builder:
    """Build the recorded cluster: three small nodes, shared and local storage, bulk guests."""
    builder = Builder("harness", version, clock, seed=1)
    for number in (1, 2, 3):
        builder.node(
            f"pve{number}",
            cpus=2,
            memory=25276510208,
            swap=0,
            root_total=DISK,
            booted=clock.now() - 9184,
        )
    content = "images,rootdir,vztmpl,iso,backup,snippets"
    local = {"path": "/var/lib/vz", "prune-backups": "keep-all=1"}
    builder.storage("local", "dir", content, total=DISK, options=local)
    shared = {"path": "/mnt/shared"}
    builder.storage("shared", "dir", content + ",import", shared=True, total=DISK, options=shared)
    builder.volume(
        "shared",
        "pve1",
        "vztmpl/alpine-3.20-harness_1_amd64.tar.gz",
        "vztmpl",
        1067921,
        format="tgz",
    )
    for number in range(10 if version == "8.4" else 30):
        vmid, node = 1000 + number, f"pve{number % 3 + 1}"
        config = {
            "name": f"bulk-{vmid}",
            "cores": 2,
            "memory": "2048",
            "tags": f"bulk;batch{number % 7}",
        }
        builder.state.guests[vmid] = Guest(vmid, Kind.QEMU, node, config)
    builder.state.people.users["root@pam"] = User("root@pam", password="Passw0rd!")
    builder.state.people.users["alice@pve"] = User("alice@pve", comment="Alice")
    builder.state.people.users["mcp@pve"] = User("mcp@pve")
    builder.state.downloads["http://10.77.0.254:8099/dl.iso"] = 100000
    builder.state.downloads["http://10.77.0.254:8099/nope.iso"] = None
    return builder


class Replay:
    """One version's recordings against one emulated cluster."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.clock = ManualClock()
        self.cluster = Cluster(build(version, self.clock).state)
        self.cluster.state.people.grants.clear()
        people = self.cluster.state.people
        people.users = {name: people.users[name] for name in ("root@pam", "alice@pve", "mcp@pve")}
        people.users["mcp@pve"].tokens.clear()
        people.users["root@pam"].password = "Passw0rd!"
        self.gateway = Gateway(self.cluster, self.cluster.state.nodes["pve1"])
        self.upids: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.half_ticket = ""
        self.scenario = ""
        self.backups: dict[str, str] = {}
        self.bodies = iter(JSON_BODIES)

    async def prepare(self) -> None:
        """Create the guests and accounts that exist when the recordings begin."""
        usual = {"memory": 32, "cores": 1, "kvm": 0, "ostype": "l26", "scsihw": "virtio-scsi-pci"}
        usual["net0"] = "virtio,bridge=vmbr0"
        await self.root("POST", "/pools", poolid="prod", comment="Production")
        for vmid, name, node, storage, tags in (
            (100, "web1", "pve1", "shared", {"tags": "prod;web", "pool": "prod"}),
            (101, "db1", "pve2", "local", {}),
            (102, "app1", "pve3", "shared", {"tags": "app"}),
        ):
            disk = {"scsi0": f"{storage}:1,format=qcow2"}
            await self.root(
                "POST", f"/nodes/{node}/qemu", vmid=vmid, name=name, **usual, **disk, **tags
            )
            await self.settle()
        for vmid, name in ((200, "ct1"), (201, "ct2")):
            await self.container(vmid, name)
        await self.root("POST", "/nodes/pve1/lxc/200/status/start")
        await self.settle()
        people = self.cluster.state.people
        tokens = {
            "ro": Token("ro", "x", comment="readonly"),
            "full": Token("full", "y", privsep=False),
        }
        people.users["mcp@pve"].tokens |= tokens
        people.users["alice@pve"].email = " "
        people.grants += [
            Grant("/vms", "user", "mcp@pve", "PVEVMAdmin"),
            Grant("/vms", "token", "mcp@pve!ro", "PVEAuditor"),
        ]

    async def container(self, vmid: int, name: str) -> None:
        """Create a container like the recorded one; ct1 is on directory storage."""
        net = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:93:F4:F5,ip=manual,type=veth"
        options = {"hostname": name, "memory": 64, "swap": 512, "ostype": "alpine", "net0": net}
        template = "shared:vztmpl/alpine-3.20-harness_1_amd64.tar.gz"
        disk = "shared:1" if vmid == 201 else "local:1"
        await self.root(
            "POST", "/nodes/pve1/lxc", vmid=vmid, ostemplate=template, rootfs=disk, **options
        )
        await self.settle()
        if vmid == 200:
            guest, local = self.cluster.state.guests[200], self.cluster.state.storages["local"]
            for volid in [
                volume.volid for volume in local.volumes("pve1").values() if volume.vmid == 200
            ]:
                local.remove("pve1", volid)
            volid = "local:200/subvol-200-disk-0.subvol"
            local.put("pve1", Volume(volid, "rootdir", "subvol", 0, int(self.clock.now()), 200))
            guest.config["rootfs"] = f"{volid},size=0T"

    async def settle(self) -> None:
        """Advance the clock until every task has ended."""
        for _ in range(400):
            if not any(task.running for task in self.cluster.state.tasks.values()):
                return
            await self.clock.advance(1)

    async def root(self, method: str, path: str, **params: Any) -> Any:
        """Send a set-up request as root; raise RuntimeError unless it succeeds."""
        response = await self.send("root", method, path, params, None)
        if response.status != 200:
            raise RuntimeError(
                f"{method} {path}: {response.status} {response.reason} {response.body!r}"
            )
        return json.loads(response.body)["data"]

    async def exchange(self, recorded: dict[str, Any]) -> Response:
        """Send one recorded request, with recorded identifiers replaced by this cluster's."""
        path, params = self.translate(recorded["path"]), self.translate_params(recorded)
        if path.endswith("/status") and "/tasks/" in path and is_stopped(recorded):
            await self.settle()
        if path.endswith("/log") and "/tasks/" in path:
            await self.settle()
        if "status" in path and recorded["method"] == "GET" and "/tasks/" not in path:
            await self.settle()
        response = await self.send(
            recorded["auth"], recorded["method"], path, params, recorded["raw_ct"]
        )
        self.learn(recorded, response)
        return response

    async def send(
        self, auth: str, method: str, path: str, params: Any, raw: str | None
    ) -> Response:
        """Send a request through the gateway and advance the clock until it is answered."""
        headers, body, query = self.credentials(auth, method), b"", ""
        if raw == "application/json":
            headers["content-type"], body = raw, msgspec.json.encode(next(self.bodies))
        elif raw:
            headers["content-type"], body = raw, FORM.encode()
        elif params and method in ("GET", "DELETE", "HEAD", "PATCH"):
            query = urlencode(params, doseq=True)
        elif params:
            headers["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode(params, doseq=True).encode()
        request = Request(method, f"/api2/json{path}", query, headers, body)
        answer = asyncio.ensure_future(self.gateway.answer(request))
        while not answer.done():
            for _ in range(50):
                await asyncio.sleep(0)
            if not answer.done():
                await self.clock.advance(3)
        return await answer

    def credentials(self, auth: str, method: str) -> dict[str, str]:
        """Return the headers of one kind of account."""
        now, office = self.clock.now(), self.cluster.office
        tokens = {"ro": "mcp@pve!ro", "full": "mcp@pve!full", "exp": "mcp@pve!exp"}
        tokens |= {"root-token": "root@pam!admin", "bad-token": "x@pve!y"}
        if auth in tokens:
            secret = self.secrets.get(tokens[auth], "") if auth != "bad-token" else "wrong"
            return {"authorization": f"PVEAPIToken={tokens[auth]}={secret}"}
        if auth == "none":
            secret = self.secrets.get("mcp@pve!none", "")
            in_use = secret and self.scenario == "acl"
            return {"authorization": f"PVEAPIToken=mcp@pve!none={secret}"} if in_use else {}
        user = "bob@pve" if auth == "bob" else "root@pam"
        ticket = office.issue(user, now - (90000 if auth == "expired-ticket" else 0))
        ticket = {"bad-ticket": "PVE:root@pam:00000000::xx", "half-ticket": self.half_ticket}.get(
            auth, ticket
        )
        headers = {"cookie": f"PVEAuthCookie={quote(ticket)}"}
        if method != "GET" and auth not in ("no-csrf", "bad-csrf"):
            headers["csrfpreventiontoken"] = office.csrf(user, now)
        return headers | ({"csrfpreventiontoken": "00000000:bad"} if auth == "bad-csrf" else {})

    def translate(self, text: str) -> str:
        """Replace recorded task IDs in a path by this cluster's."""

        def replace_upid(match: re.Match[str]) -> str:
            upid = match[0].replace("%3A", ":").replace("%40", "@").replace("%21", "!")
            return quote(self.upids.get(upid, upid), safe="")

        text = self.translate_backups(text)
        return UPID.sub(replace_upid, text) if "UPID" in text else text

    def translate_backups(self, text: str) -> str:
        """Replace recorded backup names in a text by this cluster's."""
        for recorded, name in self.backups.items():
            text = text.replace(recorded, name).replace(
                quote(recorded, safe=""), quote(name, safe="")
            )
        return text

    def translate_params(self, recorded: dict[str, Any]) -> Any:
        params = dict(recorded["params"] or {})
        for key, value in params.items():
            if isinstance(value, str):
                params[key] = self.translate_backups(value)
        if "password" in params and str(params["password"]).startswith("PVE:root"):
            params["password"] = self.cluster.office.issue("root@pam", self.clock.now())
        if "tfa-challenge" in params:
            params["tfa-challenge"] = self.half_ticket
        valid_code = str(params.get("password", "")).startswith("totp:")
        valid_code = valid_code and recorded["status"] == 200
        code = totp.code("JBSWY3DPEHPK3PXP", self.clock.now())
        if valid_code:
            params["password"] = f"totp:{code}"
        if recorded["path"].startswith("/access/tfa/bob") and "value" in params:
            params["value"] = code
        if "since" in params:
            params["since"] = str(int(self.clock.now()) - 4000)
        if "expire" in params:
            params["expire"] = str(int(self.clock.now()) - 60)
        return params

    def learn(self, recorded: dict[str, Any], response: Response) -> None:
        """Store this cluster's identifiers for the recorded ones: tasks, secrets, backups."""
        theirs = data_of(recorded["body"])
        ours = data_of(json.loads(response.body)) if response.body else None
        if isinstance(theirs, str) and theirs.startswith("UPID") and isinstance(ours, str):
            self.upids[theirs] = ours
        if isinstance(ours, dict) and "full-tokenid" in ours:
            self.secrets[ours["full-tokenid"]] = ours["value"]
        if isinstance(ours, dict) and ours.get("NeedTFA"):
            self.half_ticket = ours["ticket"]
        if (
            recorded["path"].endswith("/content")
            and isinstance(theirs, list)
            and isinstance(ours, list)
        ):
            self.backups |= dict(zip(backups_in(theirs), backups_in(ours), strict=False))

    def enter(self, scenario: str) -> None:
        """Repeat the unrecorded changes between two scenarios."""
        if scenario == "token" and self.scenario != scenario:
            self.cluster.state.people.users["mcp@pve"].tokens.clear()
            people = self.cluster.state.people
            people.forget("token", "mcp@pve!ro")
        self.scenario = scenario


def backups_in(rows: list[dict[str, Any]]) -> list[str]:
    """List the names of backups in the order of their creation."""
    backups = [row for row in rows if row.get("content") == "backup"]
    return [
        row["volid"].partition("/")[2]
        for row in sorted(backups, key=lambda row: (row["ctime"], row["vmid"]))
    ]


def data_of(body: Any) -> Any:
    """Return the data of an envelope."""
    return body.get("data") if isinstance(body, dict) else None


def is_stopped(recorded: dict[str, Any]) -> bool:
    data = data_of(recorded["body"])
    return isinstance(data, dict) and data.get("status") == "stopped"
