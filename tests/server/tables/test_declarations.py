"""What holds for every declared table."""

import re

import pytest

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pvemcp_server.access.model import Effect
from pvemcp_server.query.names import plain
from pvemcp_server.tables import values
from pvemcp_server.tables.registry import ALL, LoadRequest, tables
from pvemcp_server.toolkit.registry import tools

EVERY = pytest.mark.parametrize("table", tables().values(), ids=lambda one: one.name)


def test_all_tables_of_the_reference_are_declared():
    assert sorted(tables()) == [
        "backup_jobs", "backups", "clusters", "disks", "guests", "ha_resources", "lxc_configs",
        "networks", "node_disks", "nodes", "permissions", "pools", "qemu_configs", "replications",
        "snapshots", "storage_content", "storages", "tasks",
    ]  # fmt: skip


@EVERY
def test_every_field_is_described_and_no_two_are_called_alike(table):
    names = [plain(n) for one in table.fields.values() for n in (one.name, *one.also)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in table.fields)
    assert all(one.description for one in table.fields.values())
    assert "cluster" not in table.fields


@EVERY
def test_main_fields_pushed_fields_and_further_ones_are_fields(table):
    assert set(table.row.minimal) <= set(table.fields)
    assert table.extra <= set(table.fields)
    assert all(hasattr(ALL, want) for want in table.pushed.values())


@EVERY
def test_relations_join_fields_of_the_same_kind(table):
    for one in table.relations:
        there = tables()[one.table].fields
        for mine, theirs in one.on.items():
            assert table.fields[mine].kind is there[theirs].kind


@EVERY
def test_the_governing_tool_reads(table):
    assert tools()[table.tool].effect is Effect.READ


def test_wanted_names_are_compared_without_case():
    want = LoadRequest(
        nodes=frozenset({"PVE1"}), storages=frozenset({"NFS"}), vmids=frozenset({100})
    )
    assert want.node("pve1")
    assert not want.node("pve2")
    assert want.storage("nfs")
    assert (want.vmid(100), want.vmid(101)) == (True, False)
    assert ALL.node("any")
    assert ALL.column("any")


def test_values_have_the_units_that_answers_promise():
    assert values.percent(0.12345) == 12.3
    assert values.share(1, 3) == 33.3
    assert values.share(1, 0) is None
    assert values.moment(0) is None
    assert values.moment(1_795_337_413).isoformat() == "2026-11-22T08:50:13+00:00"
