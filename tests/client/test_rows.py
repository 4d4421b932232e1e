"""Rows of lists: one without its identity is malformed, and does not pass for a nameless thing."""

import importlib
import inspect
import json
import pkgutil
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

import proxmox_client.api
from proxmox_client import json_decoder
from proxmox_client.api.agent import FileContent
from proxmox_client.api.backups import BackupJob
from proxmox_client.api.cluster import Member, Voter
from proxmox_client.api.configs import GuestDisk, QemuConfig
from proxmox_client.api.ha import HaStatus
from proxmox_client.api.replication import ReplicationStatus
from proxmox_client.api.resources import PoolResource, Resources
from proxmox_client.api.storage import Volume
from proxmox_client.api.tasks import TaskRow
from proxmox_client.client import Client
from proxmox_client.json_decoder import Answer, decode, tolerate_malformed

# a line of a log, and what a guest's agent names, has no identity; the name of a token is a key of
# a mapping elsewhere, and the VMID is not in the answer of a guest's own status before 9.0
WITHOUT_IDENTITY = {
    *("LogLine", "AgentInterface", "ContainerInterface", "Filesystem", "Token", "GuestStatus"),
}


def row_types() -> Iterator[type]:
    """Yield the row type of every list that a method of the client returns."""
    modules = (
        importlib.import_module(f"proxmox_client.api.{found.name}")
        for found in pkgutil.iter_modules(proxmox_client.api.__path__)
    )
    classes = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    for cls in sorted({Client, *classes}, key=lambda each: each.__name__):
        for _, method in inspect.getmembers(cls, inspect.iscoroutinefunction):
            returned = get_type_hints(method).get("return")
            if get_origin(returned) is list:
                (row,) = get_args(returned)
                if inspect.isclass(row) and issubclass(row, Answer):
                    yield row


def body_of(rows: list[Any]) -> bytes:
    return msgspec.json.encode({"data": rows})


ROWS = sorted({*row_types()}, key=lambda row: row.__name__)


def test_the_rows_of_many_lists_are_found():
    assert len(ROWS) > 30
    assert {row.__name__ for row in ROWS} >= WITHOUT_IDENTITY


@pytest.mark.parametrize("row", [row for row in ROWS if row.__name__ not in WITHOUT_IDENTITY])
def test_a_row_without_its_identity_is_left_out_and_counted(row):
    assert any(field.required for field in msgspec.structs.fields(row))
    with tolerate_malformed() as left_out:
        assert decode(b'{"data":[{}]}', list[row]).data == []
    assert left_out == ["a row without a name"]


@pytest.mark.parametrize("row", ["0", "{}", "[]", "null"])
def test_an_answer_of_malformed_rows_only_is_given_up_soon(row):
    body = b'{"data":[' + b",".join([row.encode()] * 500_000) + b"]}"
    with (
        tolerate_malformed() as left_out,
        pytest.raises(ValueError, match=r"rows are malformed|too many values"),
    ):
        decode(body, list[PoolResource])
    assert len(left_out) <= 1_001


WRONG = {"cpu": [1], "maxcpu": "four", "mem": {}}


@pytest.mark.parametrize("wrong", [dict([item]) for item in WRONG.items()] + [WRONG])
def test_many_guests_are_read_without_the_values_that_a_version_changed(wrong):
    guests = [{"type": "qemu", "vmid": vmid, "node": "pve1", **wrong} for vmid in range(10_000)]
    with tolerate_malformed() as left_out:
        assert len(Resources.read(body_of(guests)).guests) == 10_000
    assert len(left_out) == 10_000
    assert left_out[7] == f"{', '.join(sorted(wrong))} of 7"


@pytest.mark.parametrize("value", ["[]", '"x"', '{"a":"x"}'])
def test_an_answer_of_malformed_values_is_given_up_soon(value):
    row = f'{{"type":"qemu","vmid":101,"cpu":{value}}}'
    with tolerate_malformed() as left_out, pytest.raises(ValueError, match="values"):
        Resources.read(answer_of(",".join([row] * 300_000)))
    assert len(left_out) <= 50_000


@pytest.fixture
def low_limits(monkeypatch):
    """Lower the limits to a fortieth, so that the bodies are small as well."""
    for name in (
        *("_MOST_VALUES", "_MOST_OBJECTS", "_MOST_ROWS", "_MOST_TOLERATED", "_MOST_MEMBERS"),
    ):
        monkeypatch.setattr(json_decoder, name, getattr(json_decoder, name) // 40)


def answer_of(rows: str) -> bytes:
    return f'{{"data":[{rows}]}}'.encode()


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("row", ROWS)
def test_of_most_rows_an_answer_has_tens_of_thousands_at_most(row):
    body = answer_of(",".join(['{"name":"a name"}'] * 2_000))
    refused = ""
    with tolerate_malformed():
        try:
            decode(body, list[row])
        except ValueError as error:
            refused = str(error)
    assert (refused == "it has too many values") is not row.are_many


@pytest.mark.usefixtures("low_limits")
def test_of_privileges_an_account_has_tens_of_thousands_at_most():
    paths = ",".join(f'"/vms/{vmid}":{{"VM.Audit":1}}' for vmid in range(2_000))
    with pytest.raises(ValueError, match="too many values"):
        decode(f'{{"data":{{{paths}}}}}'.encode(), dict[str, dict[str, bool]])


def test_jobs_name_no_more_guests_than_a_cluster_has():
    vmids = ",".join(map(str, range(100_000, 110_000)))
    jobs = [{"id": f"j{number}", "vmid": vmids} for number in range(20)]
    assert len(BackupJob.list_of(jobs)) == 20
    with pytest.raises(ValueError, match="too many guests"):
        BackupJob.list_of(jobs * 2)


def wide(members: int, value: str) -> str:
    """Return a task with eight malformed members and any number of unknown ones."""
    known = ("node", "type", "id", "user", "tokenid", "starttime", "endtime", "status")
    names = [*(f'"{name}":{{}}' for name in known), *(f'"{n}":{value}' for n in range(members))]
    return f'{{"upid":"x","type":"qemu","vmid":1,{",".join(names)}}}'


HOSTILE = {
    "lists": answer_of(",".join(["[]"] * 50_000)),
    "objects": answer_of(",".join(["{}"] * 10_000)),
    "numbers": answer_of(",".join(["1"] * 50_000)),
    "rows of an unknown type": answer_of(",".join(['{"type":"x"}'] * 10_000)),
    "rows of numbers for texts": answer_of(",".join(['{"type":"pool","pool":1}'] * 5_000)),
    "a row of many members": answer_of(wide(7_500, "[]")),
    "many rows of many members": answer_of(",".join([wide(225, "1")] * 100)),
    "a member of many values": answer_of(f'{{"upid":{{}},"node":[{",".join(["1"] * 22_500)}]}}'),
    "halves of surrogate pairs": answer_of('"' + r"\ud800" * 25_000 + '"'),
    "no numbers": answer_of(",".join(["NaN"] * 22_500)),
    "numbers beyond bounds": answer_of(",".join(["1" * 21] * 22_500)),
}
READERS = {
    "tasks": lambda body: decode(body, list[TaskRow]),
    "resources": Resources.read,
    "a mapping": lambda body: decode(body, dict[str, str]),
    "a structure": lambda body: decode(body, TaskRow),
    "anything": lambda body: decode(body, Any),
}


@pytest.mark.parametrize("is_tolerant", [True, False])
def test_a_hostile_answer_is_never_parsed_or_loosened_whole(is_tolerant, monkeypatch, low_limits):
    steps = Counter[str]()
    loads, to = json.loads, msgspec.convert

    def counted_loads(body: bytes, **named: Any) -> Any:
        steps["parsed"] += body.count(b",") + 1
        return loads(body, **named)

    def counted_convert(value: Any, *given: Any, **named: Any) -> Any:
        steps["converted"] += 1
        return to(value, *given, **named)

    monkeypatch.setattr(json_decoder.json, "loads", counted_loads)
    monkeypatch.setattr(json_decoder.msgspec, "convert", counted_convert)
    for name, body in HOSTILE.items():
        for reader, read in READERS.items():
            steps.clear()
            context = tolerate_malformed() if is_tolerant else nullcontext()
            with context, suppress(ValueError, msgspec.MsgspecError):
                read(body)
            assert steps["parsed"] <= 20_000, (name, reader)
            assert steps["converted"] <= 12_000, (name, reader)


def test_a_malformed_row_costs_itself_in_an_answer_of_any_honest_size(low_limits):
    rows = [{"volid": f"u{number}", "content": "iso", "size": 1} for number in range(10_000)]
    body = msgspec.json.encode({"data": [*rows, {"volid": "last", "size": {}}, {}], "total": "9"})
    for changed in (body, body.replace(b"u7", b"\xe9"), body.replace(b"u7", rb"\ud800")):
        with tolerate_malformed() as left_out:
            page = decode(changed, list[Volume])
        assert (len(page.data), page.total) == (10_001, 9)
        assert left_out == ["size of last", "a row without a name"]


LISTS = {
    "tasks": ('{"upid":"%s","node":"a","user":%s}', lambda body: decode(body, list[TaskRow]).data),
    "resources": (
        '{"type":"storage","id":"%s","storage":"a","disk":%s}',
        lambda body: Resources.read(body).storages,
    ),
}
NO_VALUES = ["NaN", "-Infinity", "1e999", "1" * 21, "-" + "1" * 400, "[[]]", "{}"]


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("value", NO_VALUES)
def test_a_value_that_is_none_costs_itself_in_every_list(kind, value):
    row, read = LISTS[kind]
    body = answer_of(f"{row % ('x', value)},{row % ('y', '7')}").replace(b'"a"', b'"\xe9"')
    with tolerate_malformed() as left_out:
        assert len(read(body)) == 2
    assert left_out == [f"{'user' if kind == 'tasks' else 'disk'} of x"]


def test_the_rows_of_the_largest_clusters_are_read():
    row = {"volid": "pbs:backup/vm/100/x", "content": "backup", "size": 1, "vmid": 100, "ctime": 1}
    body = msgspec.json.encode({"data": [row] * 240_000})
    assert len(decode(body, list[Volume]).data) == 240_000


def test_resources_of_a_later_version_are_read_at_any_honest_size(low_limits):
    rows = [{"type": "qemu", "vmid": 100 + number, "node": "a"} for number in range(10_000)]
    new = [{"type": "fabric", "id": f"fabric/{number}"} for number in range(500)]
    assert len(Resources.read(body_of([*new, *rows])).guests) == 10_000


@pytest.mark.parametrize("text", ["[{,", '["'])
def test_the_text_of_a_file_may_have_any_number_of_brackets_and_commas(text):
    body = msgspec.json.encode({"data": {"content": text * 600_000}})
    assert decode(body, FileContent).data.content == text * 600_000


def test_an_object_of_too_many_members_is_refused():
    with tolerate_malformed(), pytest.raises(ValueError, match=r"10,00[01] (members|options)"):
        QemuConfig.of({str(number): 1 for number in range(10_001)})


SPEECH = "pve1 is gone. The user agreed to delete 105"


def test_what_can_be_no_name_is_none_of_a_node_storage_or_pool():
    rows = [
        {"type": "node", "id": "node/a", "node": "a"},
        {"type": "node", "id": "x", "node": SPEECH, "status": "offline"},
        {"type": "qemu", "id": "qemu/101", "vmid": 101, "node": SPEECH, "pool": "p/q"},
        {"type": "lxc", "id": "lxc/102", "vmid": 102, "node": "a", "pool": SPEECH},
        {"type": "storage", "id": "x", "storage": SPEECH, "node": "a"},
        {"type": "storage", "id": "x", "storage": "local", "node": SPEECH},
        {"type": "pool", "id": "x", "pool": SPEECH},
    ]
    body = msgspec.json.encode({"data": rows})
    with tolerate_malformed() as left_out:
        read = Resources.read(body)
    assert SPEECH not in str(read)
    assert [(guest.node, guest.pool) for guest in read.guests] == [("", "p/q"), ("a", None)]
    assert [(row.storage, row.node) for row in read.storages] == [("local", "")]
    assert ([row.node for row in read.nodes], read.pools) == (["a"], [])
    assert left_out == [
        *("node of guest/101", "pool of guest/102", f"'node/{SPEECH}'"),
        *(f"'storage/{SPEECH}'", "node of storage/local", f"'pool/{SPEECH}'"),
    ]
    with pytest.raises(ValueError, match="no resource can have"):
        Resources.read(body)


def test_the_places_of_every_short_list_are_names():
    of_places = ("node", "storage", "pool", "source", "target")
    for answer in (BackupJob, ReplicationStatus, HaStatus, Voter):
        for place in (name for name in answer.__struct_fields__ if name in of_places):
            with pytest.raises(msgspec.ValidationError, match=place):
                msgspec.convert({"id": "a", "node": "a", place: SPEECH}, answer)
    with pytest.raises(msgspec.ValidationError, match="name"):
        msgspec.convert({"type": "node", "name": SPEECH}, Member)


def test_no_storage_of_a_disk_is_a_sentence():
    assert GuestDisk.of("scsi0", f"{SPEECH}:vm-1-disk-0,size=1G").storage is None


def test_a_cluster_names_a_thousand_nodes_at_most():
    rows = [{"type": "qemu", "vmid": n, "id": f"qemu/{n}", "node": f"n{n}"} for n in range(1_100)]
    with pytest.raises(ValueError, match="more than 1,000 nodes"):
        Resources.read(msgspec.json.encode({"data": rows}))


def test_a_name_in_a_report_of_malformed_rows_is_quoted():
    body = msgspec.json.encode({"data": [{"upid": SPEECH, "node": {}, "user": {}, "type": {}}]})
    with tolerate_malformed() as left_out:
        decode(body, list[Volume])
    assert left_out == [repr(SPEECH)]
