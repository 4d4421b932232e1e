"""Promises that hold for every declared table."""

import re

from tests.cases import walk

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pvemcp_server.access.model import Effect
from pvemcp_server.errors import folded
from pvemcp_server.query.catalog import fields_of
from pvemcp_server.tables import rows
from pvemcp_server.tables.registry import ALL, LoadRequest, tables
from pvemcp_server.toolkit.registry import tools

EVERY = walk("table", tables().values())


def test_all_tables_of_the_reference_are_declared():
    assert sorted(tables()) == [
        "acl", "addresses", "backup_coverage", "backup_jobs", "backups", "bridges", "ceph_health",
        "certificates", "changes", "clocks", "cluster_log", "clusters", "disks", "filesystems",
        "firewall_options", "firewall_rules", "guest_metrics", "guests", "ha_groups",
        "ha_resources", "ha_rules", "lxc_configs", "networks", "node_disks", "node_metrics",
        "node_versions", "nodes", "pbs_datastores", "pbs_jobs", "pbs_snapshots", "pci_devices",
        "permissions", "pools", "qemu_configs", "replications", "services", "smart", "snapshots",
        "storage_content", "storage_metrics", "storages", "subscriptions", "tasks", "tokens",
        "updates", "users", "zfs_pools",
    ]  # fmt: skip


@EVERY
def test_every_field_is_described_and_its_names_are_unique(table):
    fields = table.fields.values()
    names = [folded(name) for field in fields for name in (field.name, *field.aliases)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in table.fields)
    assert all(field.description for field in fields)
    assert "cluster" not in table.fields


@EVERY
def test_an_id_is_also_called_like_the_thing(table):
    id_ = table.fields.get("id")
    assert id_ is None or id_.aliases


@EVERY
def test_minimal_full_and_extra_fields_and_pushdown_exist(table):
    assert set(table.row.full) <= set(table.fields)
    assert set(table.row.minimal) <= set(table.row.full or table.fields)
    assert table.extra <= set(table.fields)
    assert all(hasattr(ALL, name) for name in table.pushdown.values())


@EVERY
def test_relations_join_fields_of_the_same_kind(table):
    for relation in table.relations:
        there = fields_of(tables()[relation.table])
        for here, target in relation.on.items():
            assert table.fields[here].kind is there[target].kind


@EVERY
def test_the_governing_tools_read(table):
    assert {tools()[name].effect for name in table.tools} == {Effect.READ}


def test_a_request_compares_names_without_case():
    request = LoadRequest(
        nodes=frozenset({"PVE1"}), storages=frozenset({"NFS"}), vmids=frozenset({100})
    )
    assert request.wants_node("pve1")
    assert not request.wants_node("pve2")
    assert request.wants_storage("nfs")
    assert (request.wants_vmid(100), request.wants_vmid(101)) == (True, False)
    assert ALL.wants_node("any")
    assert ALL.wants_column("any")


def test_values_are_converted_to_the_units_of_rows():
    assert rows.percent(0.12345) == 12.3
    assert rows.percent(1, 3) == 33.3
    assert rows.percent(1, 0) is None
    assert rows.moment(0) is None
    assert rows.moment(1_795_337_413).isoformat() == "2026-11-22T08:50:13+00:00"
