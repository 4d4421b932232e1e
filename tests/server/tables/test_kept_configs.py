"""Reads of many guests take configurations that earlier ones have read, and say so."""

from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest

from proxmox_client import ProxmoxError, deadline
from pvemcp_server.clusters import kept_configs
from pvemcp_server.clusters.kept_configs import KeptConfigs
from pvemcp_server.tables import guest_configs
from pvemcp_server.tables.registry import Budget, LoadRequest

pytestmark = pytest.mark.anyio
READ = "/pending"


@pytest.fixture
def cluster(open_cluster, monkeypatch):
    """Return a cluster that counts as large, with a cache of its own."""
    monkeypatch.setattr(guest_configs, "MANY_GUESTS", 3)
    opened = open_cluster()
    return replace(opened, inventory=replace(opened.inventory, configs=KeptConfigs()))


@pytest.fixture
def read(cluster, monkeypatch):
    """Return a function that loads the table; it returns the rows and the requests for them."""
    paths = []
    monkeypatch.setattr(cluster.client._pool, "observe", lambda each: paths.append(each.path))

    async def load(request=LoadRequest()):  # noqa: B008 - frozen
        paths.clear()
        rows = await guest_configs.qemu_configs.load(cluster, request)
        return [row.vmid for row in rows], [path for path in paths if path.endswith(READ)]

    return load


async def test_a_second_read_of_many_guests_asks_for_none_again(cluster, read):
    first, asked = await read()
    assert len(asked) >= len(first) > 3
    second, again = await read()
    assert (second, again) == (first, [])
    (note,) = [note for note in cluster.notes if "earlier calls" in note]
    assert note.startswith(f"prod: {len(first)} of ")
    assert note.endswith("With vmids they are read now.")


async def test_each_call_reads_a_further_part_within_its_budget(cluster, read):
    part = LoadRequest(budget=Budget(calls=4))
    first, _ = await read(part)
    second, asked = await read(part)
    assert len(asked) == 4
    assert set(first) < set(second)
    assert any("not read" in note or "were not" in note for note in map(str, cluster.notes))


@pytest.mark.parametrize("what", ["named guests", "few guests"])
async def test_named_and_few_guests_are_read_each_time(read, monkeypatch, what):
    first, _ = await read()
    if what == "few guests":
        monkeypatch.setattr(guest_configs, "MANY_GUESTS", 10_000)
    request = LoadRequest(vmids=first[:5] if what == "named guests" else ())
    rows, asked = await read(request)
    assert len(asked) >= len(rows) >= 5


@pytest.mark.parametrize("by", ["another process", "another account"])
async def test_a_write_through_this_server_ends_kept_configurations(cluster, read, by):
    first, _ = await read()
    if by == "another process":
        cluster.inventory.invalidate()
    else:
        (guest, *_) = (await cluster.inventory_view()).guests
        other = cluster.client.signed_in_as(None)
        with suppress(ProxmoxError), deadline(0.1):  # the clock of the 401 stands still
            await other.transport.put(f"/nodes/{guest.node}/qemu/{guest.vmid}/config", name="x")
    _, asked = await read()
    assert len(asked) >= len(first)


async def test_what_is_too_old_is_read_again_and_forgotten(cluster, read, monkeypatch):
    first, _ = await read()
    monkeypatch.setattr(kept_configs, "KEPT_SECONDS", 0.0)
    cluster.inventory.configs.drop_expired(0.0)
    assert len(cluster.inventory.configs) == 0
    _, asked = await read()
    assert len(asked) >= len(first)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tags", "new"),
        ("memory_max", 1),
        ("node", "other"),
        ("lock", "backup"),
        ("name", "renamed"),
        ("status", "paused"),
        ("template", True),
        ("pool", "x"),
        ("uptime", 1),
    ],
)
async def test_a_guest_that_the_list_shows_changed_is_read_again(cluster, field, value):
    view = await cluster.inventory_view()
    guest = next(each for each in view.guests if (each.uptime or 0) > 1)
    kept = KeptConfigs()
    kept.put(guest, None, 1e12)
    assert list(kept.of([guest], 0.0)) == [guest.vmid]
    assert kept.of([msgspec.structs.replace(guest, **{field: value})], 0.0) == {}


async def test_no_more_than_a_bound_is_kept(cluster, monkeypatch):
    monkeypatch.setattr(kept_configs, "MOST_KEPT", 2)
    guests = (await cluster.inventory_view()).guests[:3]
    kept = KeptConfigs()
    for guest in guests:
        kept.put(guest, None, 1e12)
    assert list(kept.of(guests, 0.0)) == [guest.vmid for guest in guests[1:]]
