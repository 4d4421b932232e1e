"""Rows of lists: one without its identity is malformed, and does not pass for a nameless thing."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest

import proxmox_client.api
from proxmox_client.api.resources import PoolResource, Resources
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
    with tolerate_malformed() as left_out, pytest.raises(ValueError, match="rows are malformed"):
        decode(body, list[PoolResource])
    assert len(left_out) <= 1_001


WRONG = {"cpu": [1], "maxcpu": "four", "mem": {}}


@pytest.mark.parametrize("wrong", [dict([item]) for item in WRONG.items()] + [WRONG])
def test_many_guests_are_read_without_the_values_that_a_version_changed(wrong):
    guests = [{"type": "qemu", "vmid": vmid, "node": "pve1", **wrong} for vmid in range(10_000)]
    with tolerate_malformed() as left_out:
        assert len(Resources.read(msgspec.json.encode(guests)).guests) == 10_000
    assert len(left_out) == 10_000
    assert left_out[7] == f"{', '.join(sorted(wrong))} of 7"


@pytest.mark.parametrize("value", ["[]", '"x"', '{"a":"x"}'])
def test_an_answer_of_malformed_values_is_given_up_soon(value):
    row = f'{{"type":"qemu","vmid":101,"cpu":{value}}}'.encode()
    with tolerate_malformed() as left_out, pytest.raises(ValueError, match="values of its rows"):
        Resources.read(b"[" + b",".join([row] * 300_000) + b"]")
    assert len(left_out) <= 50_000
