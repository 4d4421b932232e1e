"""The paths of Proxmox Backup Server that are read: authentication, permissions and answers.

An error has the standard phrase in its status line, and its message alone as the body. Lists leave
out what the account may not see.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from proxmox_client.emulator.backup_server.state import (
    Account,
    BackupServerState,
    Datastore,
    Job,
    Run,
    Snapshot,
)
from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.errors import ApiError, Unauthorized
from proxmox_client.emulator.http.messages import Request, Response
from proxmox_client.emulator.state.load import unevenness

ROOT_PATH: Final = "/api2/json"
STEP: Final = 1800
POINTS: Final = 1440
"""Seconds between the values of a datastore's history, and their number: a month."""
_TOKEN: Final = re.compile(r"PBSAPIToken[= ](?P<token>[^:\s]+):(?P<secret>\S+)")
_AUDIT: Final = frozenset({"Datastore.Audit", "Datastore.Backup"})
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated request."""

    state: BackupServerState
    token_id: str
    account: Account
    values: Mapping[str, str]

    @property
    def datastore(self) -> Datastore:
        """The datastore in the path; raise ApiError if it does not exist or cannot be read."""
        store = self.state.datastores.get(self.values["store"])
        if store is None:
            raise ApiError(f"no such datastore '{self.values['store']}'", status=400)
        if store.failure:
            raise ApiError(store.failure, status=400)
        return store

    def owns(self, snapshot: Snapshot) -> bool:
        """Return whether the account made a snapshot: it sees that without Datastore.Audit."""
        return snapshot.owner == self.token_id

    def may(self, store: str, namespace: str, *privileges: str) -> bool:
        """Return whether the account has one of these privileges on a namespace."""
        path = "/".join(filter(None, ("/datastore", store, namespace)))
        return not self.account.on(path).isdisjoint(privileges)


Handler = Callable[[Call], Any]
_HANDLERS: dict[re.Pattern[str], Handler] = {}


def _path(template: str) -> Callable[[Handler], Handler]:
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))

    def register(handler: Handler) -> Handler:
        _HANDLERS[pattern] = handler
        return handler

    return register


def answer(state: BackupServerState, request: Request) -> Response:
    """Return the answer to a request; raise Unauthorized or ApiError."""
    path = unquote(request.path).removeprefix(ROOT_PATH)
    found = [(match, h) for p, h in _HANDLERS.items() if (match := p.fullmatch(path))]
    token_id, account = _authenticate(state, request)
    if not found or request.method != "GET":
        raise ApiError(f"Path '{path}' not found.", status=404)
    [(match, handler)] = found
    values = {**dict(parse_qsl(request.query)), **match.groupdict()}
    return Response(
        body=msgspec.json.encode({"data": handler(Call(state, token_id, account, values))})
    )


def error(problem: ApiError) -> Response:
    """Return the answer for an error: its message is the body."""
    return Response(problem.status, body=problem.message.encode())


def _authenticate(state: BackupServerState, request: Request) -> tuple[str, Account]:
    match = _TOKEN.fullmatch(request.headers.get("authorization", "").strip())
    account = state.accounts.get(match["token"]) if match else None
    if match is None or account is None:
        raise Unauthorized("authentication failed - no authentication credentials provided.")
    if not hmac.compare_digest(account.secret.encode(), match["secret"].encode()):
        raise Unauthorized("authentication failed - invalid API token secret.")
    return match["token"], account


@_path("/version")
def version(call: Call) -> Row:
    """GET /version."""
    return {"version": call.state.version, "release": call.state.patch, "repoid": "8d2d8b1f"}


@_path("/access/permissions")
def permissions(call: Call) -> Row:
    """GET /access/permissions."""
    paths = {"/", "/access", "/datastore", "/remote", "/system", *call.account.privileges}
    held = {path: call.account.on(path) for path in sorted(paths)}
    return {path: dict.fromkeys(sorted(names), True) for path, names in held.items() if names}


@_path("/status/datastore-usage")
def datastore_usage(call: Call) -> list[Row]:
    """GET /status/datastore-usage."""
    rows = []
    for store in call.state.datastores.values():
        if call.may(store.name, "", *_AUDIT):
            rows.append(_usage(call.state, store))
        elif any(call.may(store.name, namespace, *_AUDIT) for namespace in store.namespaces):
            rows.append({"store": store.name})
    return rows


def _usage(state: BackupServerState, store: Datastore) -> Row:
    if store.failure:
        return {"store": store.name, "error": store.failure}
    end = int(state.now) // STEP * STEP
    history = [
        max(0.0, store.used - _grown_since(store, end, end - (POINTS - 1 - step) * STEP))
        / store.total
        for step in range(POINTS)
    ]
    full = end + (store.total - store.used) / store.growth * 86400 if store.growth else 0
    return {
        "store": store.name,
        "total": store.total,
        "used": store.used,
        "avail": store.total - store.used,
        "history": history,
        "history-start": end - (POINTS - 1) * STEP,
        "history-delta": STEP,
        "estimated-full-date": int(full),
        "gc-status": _collection(store),
    }


def _grown_since(store: Datastore, end: int, when: int) -> float:
    """Return the bytes that came between two times."""
    return store.growth * (end - when) / 86400 * unevenness(when, store.name)


def _collection(store: Datastore) -> Row:
    before = sum(snapshot.size for snapshot in store.everything())
    run = store.collected
    counted = before if run else 0
    return {
        "upid": run.upid("garbage_collection", store.name) if run else None,
        "index-file-count": sum(1 for _ in store.everything()) if run else 0,
        "index-data-bytes": counted,
        "disk-bytes": int(counted / store.deduplication),
        "disk-chunks": counted // (4 << 20),
        "removed-bytes": 0,
        "removed-chunks": 0,
        "pending-bytes": 0,
        "pending-chunks": 0,
        "removed-bad": 0,
        "still-bad": 0,
    }


@_path("/admin/datastore/{store}/namespace")
def namespaces(call: Call) -> list[Row]:
    """GET /admin/datastore/{store}/namespace."""
    store = call.datastore
    visible = [name for name in store.namespaces if call.may(store.name, name, *_AUDIT)]
    if not visible:
        raise ApiError("permission check failed", status=403)
    return [{"ns": name} for name in sorted(visible)]


@_path("/admin/datastore/{store}/snapshots")
def snapshots(call: Call) -> list[Row]:
    """GET /admin/datastore/{store}/snapshots."""
    store, namespace = call.datastore, call.values.get("ns", "")
    if not call.may(store.name, namespace, *_AUDIT):
        raise ApiError("permission check failed", status=403)
    if namespace not in store.namespaces:
        raise ApiError(f"namespace '{namespace}' does not exist", status=404)
    backup_id = call.values.get("backup-id")
    sees_all = call.may(store.name, namespace, "Datastore.Audit")
    return [
        _snapshot(store, snapshot)
        for snapshot in store.namespaces[namespace]
        if backup_id in (None, snapshot.id) and (sees_all or call.owns(snapshot))
    ]


def _snapshot(store: Datastore, snapshot: Snapshot) -> Row:
    mode = "encrypt" if snapshot.fingerprint else "none"
    row: Row = {
        "backup-type": snapshot.type,
        "backup-id": snapshot.id,
        "backup-time": snapshot.time,
        "size": snapshot.size,
        "owner": snapshot.owner,
        "protected": snapshot.protected,
        "files": [{"filename": "index.json.blob", "crypt-mode": mode, "size": 512}],
    }
    extra = {"comment": snapshot.comment, "fingerprint": snapshot.fingerprint}
    row |= {name: value for name, value in extra.items() if value}
    if snapshot.verified:
        upid = Run(snapshot.verified_at, None).upid("verificationjob", f"{store.name}\\x3averify")
        row["verification"] = {"state": snapshot.verified, "upid": upid}
    return row


@_path("/admin/verify")
def verify_jobs(call: Call) -> list[Row]:
    """GET /admin/verify."""
    return _jobs(call, "verify", "Datastore.Audit", "Datastore.Verify")


@_path("/admin/prune")
def prune_jobs(call: Call) -> list[Row]:
    """GET /admin/prune."""
    return _jobs(call, "prune", "Datastore.Audit", "Datastore.Modify")


@_path("/admin/sync")
def sync_jobs(call: Call) -> list[Row]:
    """GET /admin/sync."""
    direction = call.values.get("sync-direction")
    if direction is not None and not call.state.lists_pushing_jobs:
        message = "parameter verification failed - 'sync-direction': schema does not allow it"
        raise ApiError(message, status=400)
    rows = _jobs(call, "sync", "Datastore.Audit")
    if not call.state.lists_pushing_jobs:
        return [{name: row[name] for name in row if name != "sync-direction"} for row in rows]
    return [row for row in rows if direction == "all" or row["sync-direction"] == "pull"]


@_path("/admin/gc")
def gc_jobs(call: Call) -> list[Row]:
    """GET /admin/gc."""
    rows = []
    for store in call.state.datastores.values():
        if call.may(store.name, "", "Datastore.Audit") and not store.failure:
            row = {"store": store.name, "schedule": store.gc_schedule, **_collection(store)}
            if run := store.collected:
                row |= _last_run(run)
            rows.append(row | {"next-run": _next_run(call.state, store.gc_schedule)})
    return rows


def _jobs(call: Call, kind: str, *privileges: str) -> list[Row]:
    return [
        _job(call.state, job)
        for job in call.state.jobs
        if job.kind == kind and call.may(job.store, job.namespace, *privileges)
        if not job.remote or "Remote.Audit" in call.account.on(f"/remote/{job.remote}")
    ]


def _job(state: BackupServerState, job: Job) -> Row:
    row: Row = {
        "id": job.id,
        "store": job.store,
        "schedule": job.schedule,
        "next-run": _next_run(state, job.schedule),
    }
    extra = {"ns": job.namespace, "comment": job.comment, "remote": job.remote}
    row |= {name: value for name, value in extra.items() if value}
    if job.kind == "sync":
        row |= {"remote-store": job.store, "sync-direction": "push" if job.pushes else "pull"}
    if job.last:
        kinds = {"verify": "verificationjob", "prune": "prunejob", "sync": "syncjob"}
        row["last-run-upid"] = job.last.upid(kinds[job.kind], f"{job.store}\\x3a{job.id}")
        row |= _last_run(job.last)
    return row


def _last_run(run: Run) -> Row:
    """Return the end of a run; one that is running has none."""
    if run.ended is None:
        return {}
    return {"last-run-endtime": run.ended, "last-run-state": run.state}


def _next_run(state: BackupServerState, schedule: str) -> int:
    return int(next_run(schedule, datetime.fromtimestamp(state.now, UTC)).timestamp())
