"""One splitter for Proxmox's lists, with the rules of its own."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client.api.access import Role, User
from proxmox_client.api.backups import BackupJob
from proxmox_client.api.configs import GuestConfig, QemuConfig
from proxmox_client.api.resources import LxcResource, QemuResource, StorageResource
from proxmox_client.api.status import GuestStatus
from proxmox_client.json_decoder import MORE, MOST_ITEMS, split_list
from proxmox_client.properties import MOST_PARTS, parse

PACKAGES = Path(__file__).parents[2] / "packages"
ITEMS = st.lists(st.text("abcXYZ019-_.:!@äé", min_size=1), max_size=6)
SEPARATORS = st.text(",; \t\n", min_size=1, max_size=3)

# texts of two items and of none, as Proxmox and people write them
TWO = ["100,101", "100;101", "100 101", "100, 101", " 100 ;101; ", "100\x00101", ",;100,, ;101\n"]
NONE = ["", " ", ",", "; ,\t", "\0"]

# every property of an answer that is a list in one text
LISTS = {
    "guest tags": lambda text: QemuResource(vmid=1, tags=text).tag_list,
    "container tags": lambda text: LxcResource(vmid=1, tags=text).tag_list,
    "configured tags": lambda text: GuestConfig(tags=text).tag_list,
    "tags of a state": lambda text: GuestStatus(tags=text).tag_list,
    "content types": lambda text: StorageResource(storage="a", content=text).content_list,
    "privileges": lambda text: Role(role_id="a", privs=text).privileges,
    "groups": lambda text: User(userid="a@pve", groups=text).group_list,
    "guests of a job": lambda text: list(map(str, BackupJob(id="a", vmid=text).vmids)),
    "excluded guests": lambda text: list(map(str, BackupJob(id="a", exclude=text).excluded)),
}


@given(ITEMS, st.data())
def test_items_with_any_separators_are_returned_as_they_are(items, data):
    text = data.draw(st.sampled_from(["", *" ,;"]))
    for item in items:
        text += item + data.draw(SEPARATORS)
    assert split_list(text) == items


@given(st.lists(st.text("ab ,;=", min_size=1), min_size=2))
def test_nul_separates_alone_where_it_occurs(items):
    assert split_list("\0".join(items)) == items


@given(st.text(",; \t\0a"))
def test_no_item_is_empty(text):
    assert all(split_list(text))


@pytest.mark.parametrize("name", LISTS)
def test_every_list_of_an_answer_is_split_alike(name):
    for text in TWO:
        assert LISTS[name](text) == ["100", "101"], text
    for text in NONE:
        assert LISTS[name](text) == [], text


def test_a_boot_order_is_a_list_too():
    assert QemuConfig.of({"boot": "order=scsi0; net0"}).boot_order == ["scsi0", "net0"]


def test_no_answer_is_split_by_hand():
    lists = r"(tags|vmids?|exclude\w*|content|privs|groups|roles|nodes)"
    by_hand = re.compile(rf"\b{lists}\b[^\n]*\.split\(")
    sources = [*(PACKAGES / "proxmox_client/src/proxmox_client/api").glob("*.py")]
    sources += (PACKAGES / "server/src").rglob("*.py")
    assert [path.name for path in sources if by_hand.search(path.read_text())] == []


@pytest.mark.parametrize("separator", [",", ";", " ", "\0"])
def test_a_list_of_millions_is_cut_and_says_so(separator):
    items = ["a"] * MOST_ITEMS
    assert split_list(separator.join(items)) == items
    assert split_list(separator.join(items + items)) == [*items, MORE]


def test_a_property_string_of_millions_is_cut():
    parts = {f"a{n}": "1" for n in range(2 * MOST_PARTS)}
    text = ",".join(f"{name}={value}" for name, value in parts.items())
    first = dict(list(parts.items())[:MOST_PARTS])
    assert parse(text) == parse(parts) == first
