"""The server's own history: differences between readings, and how `changes` shows them."""

import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from proxmox_client.api.resources import NodeResource, QemuResource, StorageResource
from proxmox_client.emulator.state.jobs import LogEntry
from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters import Notes
from pvemcp_server.settings import Values
from pvemcp_server.store.background import housekeeping
from pvemcp_server.store.history_repository import History
from pvemcp_server.tables import changes, load
from pvemcp_server.tables.history import (
    HistoryRecorder,
    _guests,
    _nodes,
    _storages,
    _value,
    differences,
)
from pvemcp_server.tables.registry import LoadRequest

pytestmark = pytest.mark.anyio
KINDS = frozenset({"config", "guest", "node", "storage"})
ON = Values(history_minutes=5)


@pytest.fixture
def read_at(store, clusters):
    """Return a function that reads every cluster, as at `minutes` from now."""
    recorder = HistoryRecorder(store, clusters, lambda: read.values)

    async def read(minutes: float) -> None:
        for connection in clusters._open.values():
            connection.inventory.invalidate()
        await recorder.record(datetime.now(UTC) + timedelta(minutes=minutes))

    read.values = ON
    return read


async def rows(clusters, scope=EVERYTHING, identity=None, **request):
    """Return the rows of the history, and the notes."""
    identities = {"lab": identity} if identity else {}
    cluster = await clusters.open("lab", identities, scope, Notes())
    cluster.inventory.invalidate()
    found = await load(changes, cluster, LoadRequest(types=KINDS, **request))
    return [row for row in found if "after 20" in row.text], list(cluster.notes)


def texts(found):
    return {(row.kind, row.subject, row.text.partition(", after")[0]) for row in found}


async def test_a_first_reading_has_no_differences(clusters, read_at):
    await read_at(0)
    found, notes = await rows(clusters)
    assert found == []
    assert any("own history of lab begins" in note for note in notes)


async def test_what_changed_between_two_readings_is_a_row_each(clusters, read_at, lab):
    await read_at(0)
    state = lab.state
    vmid, other, gone = sorted(state.guests)[:3]
    guest, moved = state.guests[vmid], state.guests[other]
    old_memory, old_node = guest.config["memory"], moved.node
    guest.config["memory"] = 6144
    guest.config["cipassword"] = "s3cret"
    guest.config["description"] = "password: s3cret"
    moved.node = next(name for name in state.nodes if name != old_node)
    moved.touch()
    name, kind = state.guests[gone].name, state.guests[gone].kind
    del state.guests[gone]
    await read_at(6)
    found, _ = await rows(clusters)
    assert {
        ("config", str(vmid), f"memory: {old_memory} → 6144"),
        ("config", str(vmid), "description: not set → password: ***"),
        ("guest", str(gone), f"not in the list any more ({kind} {name})"),
    } <= texts(found)
    assert any(f"{old_node} → {moved.node}" in row.text for row in found)
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("used", "texts"),
    [
        ([80, 91, 88, 84], ["91 % full", "84 % full only"]),
        ([95, 96], []),
        ([80, None, 91], ["91 % full"]),
    ],
)
def test_a_storage_that_fills_up_is_noted_once(used, texts):
    readings = [{}]
    for percent in used:
        storage = StorageResource("nfs", "pve1", "available", disk=percent, disk_max=100)
        storages = dict(_storages([storage], readings[-1].get("storages", {}), set()))
        rest = {"at": 1, "nodes": {}, "guests": {}, "configs": {}}
        readings.append({"storages": storages, **rest})
    found = [entry for pair in pairwise(readings) for entry in differences(*pair)]
    assert [entry["text"] for entry in found] == texts


@pytest.mark.parametrize(
    ("part", "key", "make", "old", "new"),
    [
        (_nodes, "pve1", lambda s: NodeResource(node="pve1", status=s), "online", "offline"),
        (_guests, "100", lambda s: QemuResource(vmid=100, status=s), "running", "stopped"),
        (
            lambda rows, seen: _storages(rows, seen, {"b"}),
            *("a on b", lambda s: StorageResource("a", "b", s), "available", "gone"),
        ),
    ],
)
def test_a_change_of_state_is_found_across_missing_statistics(part, key, make, old, new):
    seen = {}
    for status in (old, "unknown"):
        seen = dict(part([make(status)], seen))
        assert seen[key]["status"] == old
    assert dict(part([make(new)], seen))[key]["status"] == new


def test_a_storage_whose_node_reports_it_as_unknown_has_failed():
    readings = [
        {
            "at": 1, "nodes": {}, "guests": {}, "configs": {},
            "storages": dict(_storages([StorageResource("a", "b", status)], {}, set())),
        }
        for status in ("available", "unknown")
    ]  # fmt: skip
    [failed] = differences(*readings)
    assert (failed["kind"], failed["text"]) == ("storage", "available → unknown")


async def test_since_when_a_node_is_down_is_answered(clusters, read_at, lab):
    await read_at(0)
    lab.state.nodes["pve2"].online = False
    await read_at(6)
    found, _ = await rows(clusters, nodes=frozenset({"pve2"}))
    assert ("node", "pve2", "online → offline") in texts(found)


@pytest.mark.parametrize(
    ("lines", "user"),
    [
        (["alice@pve: update VM {vmid}: -cores 2 -memory 6144"], "alice@pve"),
        (["alice@pve: update VM {vmid}: -memory 6144"] * 2, "alice@pve"),
        (["alice@pve: update VM {vmid}: -memory 1", "bob@pve: update VM {vmid}: -memory 2"], None),
        (["alice@pve: update VM {vmid}: -cores 2"], None),
        (["alice@pve: update VM 999: -memory 6144"], None),
        ([], None),
    ],
)  # fmt: skip
async def test_a_change_has_a_user_only_if_the_log_names_one(clusters, read_at, lab, lines, user):
    await read_at(0)
    vmid = next(vmid for vmid, guest in sorted(lab.state.guests.items()) if guest.kind == "qemu")
    lab.state.guests[vmid].config["memory"] = 6144
    for number, line in enumerate(lines, 1):
        who, _, text = line.format(vmid=vmid).partition(": ")
        time = int(datetime.now(UTC).timestamp())
        lab.state.log.append(LogEntry(time, "pve1", who, "pvedaemon", text, number, 1))
    await read_at(6)
    found, _ = await rows(clusters, vmids=frozenset({vmid}))
    [memory] = [row for row in found if row.text.startswith("memory: ")]
    assert memory.user == user


async def test_a_change_that_could_not_be_read_is_dated_from_its_last_reading(
    clusters, read_at, lab
):
    await read_at(0)
    vmid = min(lab.state.guests)
    lab.state.guests[vmid].config["memory"] = 6144
    fault = lab.fault("error", path=".*/pending", message="locked")
    await read_at(6)
    assert (await rows(clusters))[0] == []
    lab.faults.remove(fault)
    await read_at(12)
    found, _ = await rows(clusters, vmids=frozenset({vmid}))
    assert [row.text.partition(":")[0] for row in found] == ["memory"]


def test_values_are_storable_and_bounded():
    assert _value("description", "a\0b\ud800") == "a b?"
    long, other = (_value("description", "x" * 1000 + end) for end in "12")
    assert len(long) < 250
    assert long != other


async def test_each_identity_has_its_own_history(clusters, read_at, access, new_token, lab):
    token_id, secret = new_token("narrow")
    await access.clusters.add_identity("lab", "narrow", token_id=token_id, secret=secret)
    narrow = (await access.clusters.identity("lab", "narrow")).id
    await read_at(0)
    del lab.state.guests[min(lab.state.guests)]
    await read_at(6)
    assert (await rows(clusters))[0]
    assert (await rows(clusters, identity=narrow))[0] == []


async def test_a_role_for_a_part_gets_its_own_rows(clusters, read_at, lab):
    await read_at(0)
    first, second = sorted(lab.state.guests)[:2]
    for vmid in (first, second):
        lab.state.guests[vmid].config["memory"] = 6144
    await read_at(6)
    found, _ = await rows(clusters, Resources(vmids=frozenset({first})))
    assert {row.vmid for row in found} == {first}


async def test_a_reading_is_due_after_the_interval_only(clusters, read_at, lab):
    await read_at(0)
    del lab.state.guests[min(lab.state.guests)]
    await read_at(4)
    assert (await rows(clusters))[0] == []
    await read_at(6)
    assert (await rows(clusters))[0]


async def test_a_cluster_that_does_not_answer_costs_one_reading(clusters, read_at, lab):
    await read_at(0)
    del lab.state.guests[min(lab.state.guests)]
    fault = lab.fault("error", path="/", message="down")
    await read_at(6)
    lab.faults.remove(fault)
    await read_at(12)
    assert len((await rows(clusters))[0]) == 1


async def test_the_history_is_bounded_and_deleted_when_it_is_off(
    clusters, read_at, lab, store, monkeypatch
):
    monkeypatch.setattr(sys.modules["pvemcp_server.store.history_repository"], "MOST", 2)
    await read_at(0)
    for vmid in sorted(lab.state.guests)[:4]:
        lab.state.guests[vmid].config["memory"] = 6144
    await read_at(6)
    assert len(await store.history.all()) == 2
    read_at.values = Values()
    await read_at(12)
    assert await store.history.all() == []
    _, notes = await rows(clusters)
    assert any("history_minutes keeps more" in note for note in notes)


async def test_a_reading_that_hangs_does_not_delay_the_end_of_the_server(
    store, clusters, lab, monkeypatch
):
    monkeypatch.setattr(sys.modules["pvemcp_server.tables.history"], "CHECKED", 0)
    lab.fault("hang", path="/")
    recorder = HistoryRecorder(store, clusters, lambda: ON)
    with anyio.fail_after(10):
        async with housekeeping(recorder.run):
            while not await History(store.history, await store.identities.find()).began():
                await anyio.lowlevel.checkpoint()
