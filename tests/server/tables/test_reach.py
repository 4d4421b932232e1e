"""The rows that a scope covers, by kind of table."""

from dataclasses import dataclass

import pytest

from pvemcp_server.access.model import NOTHING, Resources
from pvemcp_server.tables import reach as rules
from pvemcp_server.tables.reach import Reach


@dataclass
class Row:
    vmid: int | None = None
    node: str = "pve9"
    storage: str = "other"


def reaching(scope=NOTHING):
    """Return a reach of guest 100, node pve1, and the storage nfs there."""
    return Reach(scope, frozenset({100}), frozenset({"pve1"}), frozenset({("nfs", "pve1")}))


@pytest.mark.parametrize(
    ("rule", "row", "covered"),
    [
        (rules.of_guest, Row(vmid=100), True),
        (rules.of_guest, Row(vmid=101, node="pve1"), False),
        (rules.of_guest, Row(vmid=None), False),
        (rules.of_node, Row(node="pve1"), True),
        (rules.of_node, Row(node="pve2", vmid=100), False),
        (rules.of_storage, Row(storage="nfs", node="pve1"), True),
        (rules.of_storage, Row(storage="nfs", node="pve2"), False),
        (rules.of_content, Row(storage="nfs", node="pve1", vmid=7), True),
        (rules.of_content, Row(vmid=100), True),
        (rules.of_content, Row(vmid=7), False),
        (rules.of_task, Row(vmid=100), True),
        (rules.of_task, Row(node="pve1"), True),
        (rules.of_task, Row(vmid=7), False),
        (rules.of_any, Row(), True),
    ],
)
def test_a_row_is_covered_with_its_guest_node_or_storage(rule, row, covered):
    assert (rule(reaching(), row) is row) == covered


def test_a_deleted_guest_is_covered_if_granted_by_vmid():
    scope = Resources(vmids=frozenset({555}))
    assert rules.of_guest(reaching(scope), Row(vmid=555))
    assert not rules.of_guest(reaching(Resources(tags=frozenset({"web"}))), Row(vmid=555))


def test_an_intersection_covers_only_common_resources():
    both = Resources(nodes=frozenset({"pve1"})) & Resources(tags=frozenset({"web"}))
    assert both
    assert both.covers_guest(1, node="pve1", tags=iter(["web"]))
    assert not both.covers_guest(1, node="pve1")
    assert not both.covers_node("pve1")
    assert not (Resources(nodes=frozenset({"pve1"})) & NOTHING)
    web = Resources(pools=frozenset({"web"}))
    assert (web & Resources(everything=True)) is web
    assert (Resources(everything=True) & web) is web
    assert hash(both) == hash(
        Resources(nodes=frozenset({"pve1"})) & Resources(tags=frozenset({"web"}))
    )
    storages = Resources(storages=frozenset({"nfs"})) & Resources(nodes=frozenset({"pve1"}))
    assert storages.covers_storage("nfs", node="pve1")
    assert not storages.covers_storage("nfs", node="pve2")
    assert not storages.covers_pool("web")
