"""Fan-out within a cluster: budgets, deadlines, and notes that name no hidden resource."""

from dataclasses import replace
from time import monotonic

import anyio
import pytest

from proxmox_client import DeadlineExceeded, Unreachable
from proxmox_client.limits import remaining
from pvemcp_server.clusters import Notes
from pvemcp_server.errors import counted, plural
from pvemcp_server.tables import fanout
from pvemcp_server.tables.registry import Budget, LoadRequest, Shares

pytestmark = pytest.mark.anyio


async def refuse(key):
    raise Unreachable(str(key), "on fire")


async def refused_masked(cluster, keys, visible):
    return await fanout.each_masked(
        cluster,
        keys,
        visible,
        lambda view, some: fanout.each(view, some, refuse, LoadRequest(), "content of storage"),
        LoadRequest(),
    )


async def test_a_hidden_storage_that_fails_is_not_named(open_cluster):
    cluster = open_cluster()
    assert await refused_masked(cluster, ["secret-nfs"], lambda _: False) == {}
    assert list(cluster.notes) == ["A part of prod did not answer; rows may be missing."]


async def test_a_visible_storage_that_fails_is_named(open_cluster):
    cluster = open_cluster()
    await refused_masked(cluster, ["nfs", "secret-nfs"], "nfs".__eq__)
    notes = " ".join(cluster.notes)
    assert "Missing from prod: content of storage nfs. " in notes
    assert "secret" not in notes


async def test_many_failures_of_one_kind_are_noted_in_few_lines(open_cluster):
    cluster = open_cluster()
    await fanout.each(cluster, range(100, 400), refuse, LoadRequest(), "configuration of guest")
    assert len(list(cluster.notes)) == 4


async def test_a_silent_cluster_gets_one_short_deadline_for_all_keys(open_cluster):
    cluster = open_cluster()
    trouble = Unreachable("prod", "on fire")
    inventory = replace(cluster.inventory, short_timeout=0.5, failure=trouble)

    async def ask(_key):
        return remaining()

    assert await fanout.each(cluster, [1], ask, LoadRequest(), "guest") == {1: None}
    silent = replace(cluster, inventory=inventory)
    assert (await fanout.each(silent, [1], ask, LoadRequest(), "guest"))[1] <= 0.5


async def test_no_key_waits_for_one_that_hangs(open_cluster):
    last = anyio.Event()

    async def ask(key):
        if key == 0:
            await last.wait()
        if key == 299:
            last.set()
        return key

    with anyio.fail_after(5):
        answers = await fanout.each(
            open_cluster(), range(300), ask, LoadRequest(), "configuration of guest"
        )
    assert list(answers) == list(range(300))


async def test_late_answers_are_noted_with_the_next_step(open_cluster):
    cluster = open_cluster()
    request = LoadRequest(budget=Budget(until=monotonic() + 0.05))

    async def ask(key):
        while monotonic() < request.budget.until:
            await anyio.lowlevel.checkpoint()
        raise DeadlineExceeded("too late")

    await fanout.each(cluster, range(5), ask, request, "configuration of guest")
    assert any(
        "5 of 5 configurations of guests on prod not in time" in note for note in cluster.notes
    )


@pytest.mark.parametrize(
    ("what", "many"),
    [
        ("configuration of guest", "configurations of guests"),
        ("snapshots of guest", "snapshots of guests"),
        ("traffic of node", "traffic of nodes"),
        ("pool", "pools"),
    ],
)
def test_notes_of_several_missing_answers_use_the_plural(what, many):
    assert plural(what) == many


async def test_a_fault_of_the_server_costs_one_key_and_is_logged(open_cluster, caplog):
    async def fail(key):
        return 1 / key

    cluster = open_cluster()
    assert await fanout.each(cluster, [0, 1], fail, LoadRequest(), "guest") == {1: 1.0}
    assert list(cluster.notes) == [
        "Missing from prod: guest 0. The server failed on this; its log says more."
    ]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("number", "what", "words"),
    [(0, "row", "0 rows"), (1, "row", "1 row"), (2, "disks of node", "2 disks of nodes")],
)
def test_a_number_has_its_noun_in_the_right_form(number, what, words):
    assert counted(number, what) == words


def shared(clusters, most):
    shares = Shares(most)
    shares.begin(clusters)
    return shares, LoadRequest(budget=Budget(shares=shares))


async def read_together(open_cluster, sizes, request):
    """Read so many keys of each cluster at once; return the notes, and how many keys were read."""
    clusters = {name: replace(open_cluster(), name=name, notes=Notes()) for name in sizes}
    read = dict.fromkeys(sizes, 0)

    async def load(cluster):
        async def ask(key):
            read[cluster.name] += 1
            await anyio.lowlevel.checkpoint()

        keys = range(sizes[cluster.name])
        try:
            await fanout.each(cluster, keys, ask, request, "snapshots of guest")
        finally:
            request.budget.shares.end(cluster.name)

    async with anyio.create_task_group() as tasks:
        for cluster in clusters.values():
            tasks.start_soon(load, cluster)
    return read, [note for cluster in clusters.values() for note in cluster.notes.items()]


@pytest.mark.parametrize(
    ("sizes", "read"),
    [
        ({"a": 100, "b": 100, "c": 100, "d": 100}, [25, 25, 25, 25]),
        ({"a": 10, "b": 10, "c": 10, "d": 10}, [10, 10, 10, 10]),
        ({"a": 900, "b": 10, "c": 10, "d": 10}, [70, 10, 10, 10]),
        ({"a": 10, "b": 10, "c": 10, "d": 900}, [10, 10, 10, 70]),
    ],
    ids=["equal", "enough", "the first is large", "the last is large"],
)
async def test_clusters_share_the_calls_of_one_tool_call_fairly(open_cluster, sizes, read):
    numbers, notes = await read_together(open_cluster, sizes, shared(sizes, 100)[1])
    assert list(numbers.values()) == read
    left_out = {kind.cut.cluster: kind.cut.number for _, kind in notes if kind.cut}
    assert left_out == {n: sizes[n] - numbers[n] for n in sizes if sizes[n] > numbers[n]}


async def test_no_cluster_waits_for_the_share_of_one_that_also_waits(open_cluster):
    sizes = {"a": 900, "b": 900, "c": 0, "d": 1}
    with anyio.fail_after(3):
        numbers, _notes = await read_together(open_cluster, sizes, shared(sizes, 100)[1])
    assert sum(numbers.values()) == 100
    assert min(numbers["a"], numbers["b"]) >= 25


async def test_what_many_clusters_left_out_is_one_note(open_cluster):
    sizes = {f"c{n:02}": 100 for n in range(50)}
    _shares, request = shared(sizes, 2000)
    _numbers, found = await read_together(open_cluster, sizes, request)
    notes = Notes(found)
    notes.fold_cuts()
    [note] = notes
    assert note == (
        "Incomplete: 3000 of 5000 snapshots of guests on 50 clusters not read (c00 60 of 100, "
        "c01 60 of 100, c02 60 of 100 and 47 more): the call's budget was used up. Narrow the call "
        "to some vmids, nodes or storages. Or read one cluster alone: cluster_name."
    )


async def test_a_key_of_several_calls_takes_them_all_from_the_share(open_cluster):
    shares, request = shared(["prod"], 10)
    request = replace(request, budget=replace(request.budget, per_key=4))

    async def ask(key):
        return key

    cluster = open_cluster()
    assert len(await fanout.each(cluster, range(9), ask, request, "guest")) == 2
    assert shares.left == 2


async def test_no_number_of_keys_begins_more_requests_at_once(open_cluster):
    running, most = 0, 0

    async def ask(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        return key

    answers, missing = await open_cluster().ask_all(range(2_500), ask)
    assert (len(answers), missing) == (2_500, {})
    assert most == 1_000
