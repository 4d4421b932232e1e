"""GetQuerySchema and ExecuteQuery, as keys with different grants and accounts see them."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest

from pvemcp_server.access.model import Grant, Resources
from pvemcp_server.clusters.acl import question
from pvemcp_server.query.examples import EXAMPLES
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.registry import Shares, tables
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.tools import query

from .altered import RESOURCES, altered, rows_changed
from .few_guests import few_guests

pytestmark = pytest.mark.anyio

SCENARIO = few_guests
KEEPS_ANSWERS = True

EVERY_TABLE = sorted(n for n, table in tables().items() if ClusterKind.PVE in table.kinds)


def is_(field, operator, *value):
    return {"field": field, "operator": operator, "value": list(value)}


def where(*conditions, logic="and"):
    return {"logic": logic, "conditions": list(conditions)}


async def ask(demo_client, cluster_name=None, **query):
    named = {"cluster_name": cluster_name} if cluster_name else {}
    answer = await demo_client("ExecuteQuery", query=query, limit=1000, **named)
    assert not answer.failed, answer.text
    return answer


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question)
async def test_the_example_queries_run_and_separate_clusters(tool_client, example):
    answer = await tool_client("ExecuteQuery", query=example.query)
    assert not answer.failed, answer.text
    assert "cluster" in example.query["select"] or "user" in example.query["select"]
    assert "several clusters" not in answer.notes
    names = [column.rpartition(" as ")[2] for column in example.query["select"]]
    for row in answer.data:
        assert set(row) <= set(names)


async def test_the_schema_summarizes_all_tables(tool_client):
    schema = (await tool_client("GetQuerySchema")).data
    named = [table["name"] for table in schema["tables"]]
    assert named == [name for name in EVERY_TABLE if not tables()[name].rare]
    assert list(schema["more_tables"]) == [name for name in EVERY_TABLE if tables()[name].rare]
    assert all(0 < len(text) <= 100 for text in schema["more_tables"].values())
    guests = next(table for table in schema["tables"] if table["name"] == "guests")
    assert guests["fields"].startswith("cluster, vmid:integer, name, node, status, type, tags:list")
    assert guests["cost"] == "one call"
    assert guests["relations"]["qemu_config"].startswith("qemu_configs: ")
    assert "NOT CONTAINS" in schema["operators"]["text"]
    assert schema["aggregates"]["SUM"] == ["integer", "number"]
    assert [example["question"] for example in schema["examples"]] == [
        example.question for example in EXAMPLES
    ]


async def test_the_schema_describes_named_tables_in_full(tool_client):
    schema = (await tool_client("GetQuerySchema", tables=["Guests", "node"])).data
    assert [table["name"] for table in schema["tables"]] == ["guests", "nodes"]
    fields = {field["name"]: field for field in schema["tables"][0]["fields"]}
    assert fields["memory_max"]["unit"] == "bytes"
    assert fields["memory_max"]["also_called"] == ["memory_total"]
    assert fields["type"]["values"] == ["qemu", "lxc"]
    assert all(field["description"] for field in fields.values())


async def test_a_described_table_has_only_its_own_examples(tool_client):
    schema = (await tool_client("GetQuerySchema", tables=["task"])).data
    assert [example["query"]["from"] for example in schema["examples"]] == ["tasks"]


async def test_all_tables_can_be_described_at_once(tool_client):
    answer = await tool_client("GetQuerySchema", tables=EVERY_TABLE)
    described = answer.data["tables"]
    fields = {table["name"]: [field["name"] for field in table["fields"]] for table in described}
    assert fields == {name: ["cluster", *tables()[name].fields] for name in EVERY_TABLE}
    assert answer.notes == ""


async def test_the_schema_of_an_unknown_table_suggests_the_nearest(tool_client):
    error = await tool_client.refused("GetQuerySchema", tables=["gests"])
    assert "tables[0]: no table 'gests'. Did you mean guests?" in error


@pytest.mark.parametrize("cluster", ["home-lab", "prod"])
@pytest.mark.parametrize("table", EVERY_TABLE)
async def test_every_table_answers_on_8_4_and_9_2(tool_client, table, cluster):
    answer = await ask(tool_client, cluster, **{"from": table, "select": ["*"]})
    counted = await ask(tool_client, cluster, **{"from": table, "select": ["COUNT(*) as n"]})
    assert "Missing" not in answer.notes
    assert min(counted.data[0]["n"], 1000) == len(answer.data)
    assert all(row["cluster"] == cluster for row in answer.data)


async def test_tables_of_nodes_name_the_node_that_is_offline(tool_client):
    answer = await ask(tool_client, "prod", **{"from": "node_disks", "select": ["node"]})
    assert "Offline on prod, so missing here: pve05." in answer.notes
    assert "pve05" not in answer.column("node")


async def test_cached_rows_of_an_offline_node_are_noted(
    tool_client,
):
    for _ in range(2):
        answer = await ask(tool_client, "prod", **{"from": "guests", "select": ["COUNT(*) as n"]})
        assert "Offline on prod: pve05; state and use of the rows there are unknown" in answer.notes


async def test_notes_of_joined_tables_name_their_table(tool_client):
    query = {"from": "guests", "select": ["vmid", "qemu_config.os_type"]}
    answer = await ask(tool_client, "prod", **query)
    assert "qemu_configs: Offline on prod, so missing here: pve05." in answer.notes
    assert "guests: Offline on prod: pve05; state and use of the rows there" in answer.notes


async def test_an_unknown_cluster_in_a_condition_is_noted(tool_client):
    answer = await ask(tool_client, **{"from": "guests", "where": is_("cluster", "=", "prodd")})
    assert answer.data == []
    assert "No cluster 'prodd' is asked; asked are home-lab, prod." in answer.notes


@pytest.mark.parametrize(
    ("table", "condition", "note"),
    [
        (
            "guests",
            is_("node", "=", "pve1"),
            "No node 'pve1' on home-lab, prod. Did you mean pve01,",
        ),
        (
            "tasks",
            is_("node", "=", "pve1"),
            "No node 'pve1' on home-lab, prod. Did you mean pve01,",
        ),
        (
            "backups",
            is_("storage", "IN", "pbs"),
            "No storage 'pbs' on home-lab, prod. Did you mean",
        ),
        ("guests", is_("pool", "=", "prod"), "No pool 'prod' in guests. Did you mean production?"),
        (
            "guests",
            is_("tags", "CONTAINS", "prodn"),
            "No tags 'prodn' in guests. Did you mean prod",
        ),
        (
            "guests",
            is_("qemu_config.os_type", "=", "windows"),
            "No qemu_config.os_type 'windows' in guests. Did you mean win11?",
        ),
        (
            "storages",
            is_("type", "=", "floppy"),
            "No type 'floppy' in storages. There are dir, lvmthin,",
        ),
        ("guests", is_("name", "CONTAINS", "%web%"), "In '%web%' the signs % and * stand for them"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
async def test_an_empty_answer_names_values_that_no_row_has(tool_client, table, condition, note):
    for select in ({}, {"select": ["COUNT(*) as n"]}):
        answer = await ask(tool_client, **{"from": table, "where": condition, **select})
        assert note in answer.notes


@pytest.mark.parametrize(
    ("condition", "note"),
    [
        (is_("pool", "!=", "prodution"), "No pool 'prodution' in the guests looked at. Did you"),
        (is_("pool", "NOT IN", "staging", "ofice"), "No pool 'ofice' in the guests looked at."),
        (is_("tags", "NOT CONTAINS", "prodn"), "No tags 'prodn' in the guests looked at. Did"),
        (is_("node", "!=", "pve1"), "No node 'pve1' in the guests looked at. Did you mean pve01"),
        (is_("pool", "!=", "production"), ""),
        (is_("tags", "NOT IN", "production"), ""),
        (is_("status", "!=", "running"), ""),
    ],
)
async def test_a_value_that_leaves_nothing_out_is_named(tool_client, condition, note):
    for select in ({}, {"select": ["COUNT(*) as n"]}):
        answer = await ask(tool_client, **{"from": "guests", "where": condition, **select})
        assert note in answer.notes
        assert ("looked at" in answer.notes) == bool(note)


async def test_hints_on_many_long_values_stay_short(tool_client):
    words = [f"{n:03}{'x' * 500}" for n in range(900)]
    answer = await ask(tool_client, **{"from": "guests", "where": is_("pool", "IN", *words)})
    assert answer.notes.count("No pool '00") == 3
    assert len(answer.notes) < 600


async def test_existing_names_are_not_noted(tool_client):
    named = where(is_("node", "=", "PVE01"), is_("pool", "=", "production"), is_("vmid", "=", 999))
    answer = await ask(tool_client, **{"from": "guests", "where": named})
    assert (answer.data, "No " in answer.notes) == ([], False)


async def test_hints_name_only_readable_values(tool_client):
    narrow = tool_client.scoped(Resources(pools=frozenset({"staging"})))
    answer = await ask(narrow, **{"from": "guests", "where": is_("pool", "=", "production")})
    assert "No pool 'production' in guests. There is staging." in answer.notes
    answer = await ask(narrow, **{"from": "backups", "where": is_("storage", "=", "pbs-mai")})
    assert "pbs-main" not in answer.notes.replace("'pbs-mai'", "")


@pytest.mark.parametrize(
    ("query", "noted"),
    [
        ({"select": ["SUM(disk_total) as n"]}, True),
        ({"select": ["type", "COUNT(*) as n"], "groupBy": ["type"]}, True),
        ({"select": ["SUM(disk_total) as n"], "where": is_("is_primary", "=", True)}, False),
        ({"select": ["SUM(disk_total) as n"], "where": is_("node", "=", "pve01")}, False),
        ({"select": ["node", "SUM(disk_total) as n"], "groupBy": ["node"]}, False),
        ({"select": ["MAX(disk_total) as n", "COUNT(DISTINCT storage) as m"]}, False),
        ({"select": ["storage", "disk_total"]}, False),
    ],
)
async def test_counting_shared_storages_per_node_is_noted(tool_client, query, noted):
    answer = await ask(tool_client, "prod", **{"from": "storages", **query})
    assert ("add is_primary = true to count them once" in answer.notes) is noted


@pytest.mark.parametrize(
    ("query", "noted"),
    [
        ({"where": is_("disk_usage_percentage", ">", 80)}, True),
        ({"select": ["storage", "disk_free"], "orderBy": [{"field": "disk_free"}]}, True),
        ({"select": ["storage"], "distinct": True}, False),
        ({"where": where(is_("used", ">", 80), is_("is_primary", "=", True))}, False),
        ({"where": is_("node", "=", "pve01")}, False),
        ({"where": is_("shared", "=", False)}, False),
    ],
)
async def test_an_answer_that_repeats_shared_storages_is_noted(tool_client, query, noted):
    answer = await ask(tool_client, "prod", **{"from": "storages", **query})
    assert ("add is_primary = true to have one" in answer.notes) is noted


@pytest.mark.parametrize(
    ("table", "column", "node"),
    [
        ("disks", "storage", "node"),
        ("disks", "storage.storage", "storage.node"),
        ("storages", "storage", "node"),
        ("storage_content", "storage", "node"),
        ("storage_metrics", "storage", "node"),
    ],
)
async def test_merging_storages_that_each_node_has_itself_is_noted(
    tool_client, table, column, node
):
    counted = {"from": table, "select": [column, "COUNT(*) as n"]}
    answer = await ask(tool_client, "prod", **counted, groupBy=[column])
    note = next(n for n in answer.notes.split("\n") if "each node has its own" in n)
    assert note.startswith(f"{column} ")
    assert "local-zfs" in note
    assert "ceph-vm" not in note
    assert note.endswith(f"Add {node} to groupBy to separate them.")
    answer = await ask(tool_client, "prod", **counted, groupBy=[column, node])
    assert "each node has its own" not in answer.notes


@pytest.mark.parametrize(
    ("where", "noted"),
    [
        (is_("usage_percentage", ">", 0.8), True),
        (is_("usage_percentage", ">=", "0.8"), True),
        (is_("usage_percentage", ">", 80), False),
        (is_("usage_percentage", "<", 0.5), False),
        (is_("disk_total", ">", 0), False),
    ],
)
async def test_a_percentage_that_looks_like_a_fraction_is_noted(tool_client, where, noted):
    answer = await ask(tool_client, "prod", **{"from": "storages", "where": where})
    assert ("0.8 is 0.8 % here" in answer.notes) is noted


@pytest.mark.parametrize(
    "query",
    [
        {"select": ["COUNT(DISTINCT vmid) as n"]},
        {"select": ["vmid", "COUNT(*) as n"], "groupBy": ["vmid"]},
    ],
)
async def test_merging_guests_of_several_clusters_is_noted(tool_client, query):
    note = "vmid 101, 105: on several clusters, so rows were merged here."
    answer = await ask(tool_client, **{"from": "snapshots", **query})
    assert note in answer.notes
    answer = await ask(tool_client, "prod", **{"from": "snapshots", **query})
    assert note not in answer.notes
    apart = {
        "select": ["cluster", *query["select"]],
        "groupBy": ["cluster", *query.get("groupBy", [])],
    }
    answer = await ask(tool_client, **{"from": "snapshots", **apart})
    assert note not in answer.notes


@pytest.mark.parametrize(
    ("table", "fields", "more", "note"),
    [
        ("snapshots", ["vmid"], "cluster", "vmid 101, 105: on several clusters, so rows were merg"),
        ("storages", ["storage"], "node", "each node has its own, and they were merged here."),
    ],
)
async def test_rows_limited_per_a_name_of_several_things_are_noted(
    tool_client, table, fields, more, note
):
    def limited(names):
        limit = {"fields": names, "count": 1}
        return ask(tool_client, **{"from": table, "orderBy": names, "limitPer": limit})

    noted = next(n for n in (await limited(fields)).notes.split("\n") if note in n)
    assert noted.endswith(f"Add {more} to limitPer to separate them.")
    assert note not in (await limited([more, *fields])).notes


async def test_guests_without_a_pool_are_no_merged_pool(tool_client):
    query = {"from": "guests", "select": ["pool", "COUNT(*) as n"], "groupBy": ["pool"]}
    answer = await ask(tool_client, **query)
    assert any("pool" not in row or row["pool"] is None for row in answer.data)
    assert "several clusters" not in answer.notes


async def test_offline_nodes_outside_the_query_are_not_noted(tool_client):
    named = where(is_("node", "=", "pve01"))
    answer = await ask(tool_client, "prod", **{"from": "storages", "where": named})
    assert "pve05" not in answer.notes
    elsewhere = tool_client.scoped(Resources(nodes=frozenset({"pve01", "pve02"})))
    answer = await ask(elsewhere, "prod", **{"from": "guests", "select": ["COUNT(*) as n"]})
    assert answer.data[0]["n"]
    assert "pve05" not in answer.notes


async def test_guests_by_node_and_status(tool_client):
    answer = await ask(
        tool_client,
        "prod",
        **{
            "from": "guests",
            "select": ["node", "status", "COUNT(vmid) as total"],
            "groupBy": ["node", "status"],
        },
    )
    rows = await tool_client("ListVms", cluster_name="prod")
    truth = Counter((row["node"], row["status"]) for row in rows.data)
    assert {(r["node"], r["status"]): r["total"] for r in answer.data} == truth


async def test_averages_have_two_decimals(tool_client):
    query = {"from": "guests", "select": ["AVG(cpu_count) as cores"]}
    here = {"where": is_("node", "=", "pve02")}
    known = (await ask(tool_client, "prod", **{**query, **here, "select": ["cpu_count"]})).data
    cores = [row["cpu_count"] for row in known]
    average = sum(cores) / len(cores)
    assert round(average, 1) != round(average, 2)
    answer = await ask(tool_client, "prod", **query, **here)
    assert answer.data == [{"cores": round(average, 2)}]


async def test_a_query_may_be_json_text_and_name_no_cluster(tool_client):
    query = json.dumps({"from": "clusters", "select": "name", "orderBy": "name"})
    answer = await tool_client("ExecuteQuery", query=query)
    assert answer.column("name") == ["home-lab", "prod"]


@pytest.mark.parametrize("query", [None, ["guests"], 7])
async def test_an_invalid_query_is_answered_with_an_example(tool_client, query):
    error = await tool_client.refused("ExecuteQuery", query=query)
    assert error.startswith('query: it is an object. For example {"from": "guests", "select":')


async def test_a_condition_on_the_cluster_asks_only_that_cluster(tool_client):
    tool_client.refresh()
    tool_client.requests("prod"), tool_client.requests("home-lab")
    answer = await ask(
        tool_client, **{"from": "guests", "select": "vmid", "where": is_("cluster", "=", "PROD")}
    )
    assert len(answer.data) == len(tool_client["prod"].emulated.state.guests)
    assert tool_client.requests("home-lab") == []


async def test_the_top_5_read_the_configuration_of_few_guests(tool_client):
    tool_client.requests("prod")
    answer = await ask(
        tool_client,
        "prod",
        **{
            "from": "guests",
            "select": ["vmid", "memory_usage", "qemu_config.os_type"],
            "where": is_("type", "=", "qemu"),
            "orderBy": [{"field": "memory_usage", "direction": "desc"}],
            "limit": 5,
        },
    )
    configs = [request for request in tool_client.requests("prod") if request.endswith("/pending")]
    assert len(answer.data) == 5
    assert all(row["qemu_config.os_type"] for row in answer.data)
    assert len(configs) == 6  # one more shows whether there are more


@pytest.mark.parametrize("column", ["qemu_config.os_type", "description"])
async def test_the_largest_of_each_node_read_the_configuration_of_few_guests(tool_client, column):
    query = {
        "from": "guests",
        "select": ["vmid", "node", column],
        "where": is_("type", "=", "qemu"),
        "orderBy": ["node", "memory_usage desc"],
    }
    every = (await ask(tool_client, "prod", **query)).data
    by_node = {node: [r for r in every if r["node"] == node] for node in {r["node"] for r in every}}
    tool_client.requests("prod")
    answer = await ask(tool_client, "prod", **query, limitPer={"fields": ["node"], "count": 2})
    configs = [r for r in tool_client.requests("prod") if r.endswith(("/pending", "/config"))]
    assert answer.data == [row for node in sorted(by_node) for row in by_node[node][:2]]
    cut = sum(len(rows) > 2 for rows in by_node.values())
    assert cut
    assert f"limitPer cut {cut} of {len(by_node)} values of node: they have more" in answer.notes
    # one more of each node that is online shows whether it has more
    online = [rows for node, rows in by_node.items() if node != "pve05"]
    assert len(configs) == sum(min(len(rows), 3) for rows in online)


async def test_rows_limited_per_what_costs_calls_are_taken_of_all_rows(tool_client):
    query = {
        "from": "guests",
        "select": ["vmid", "qemu_config.os_type", "memory_max"],
        "where": where(is_("type", "=", "qemu"), is_("qemu_config.os_type", "IS NOT NULL")),
        "orderBy": ["memory_max desc", "vmid"],
    }
    every = (await ask(tool_client, "prod", **query)).data
    limit = {"fields": ["qemu_config.os_type"], "count": 1}
    answer = await ask(tool_client, "prod", **query, limitPer=limit)
    first = {}
    for row in every:
        first.setdefault(row["qemu_config.os_type"], row)
    assert answer.data == list(first.values())


async def test_groups_are_limited_per_outer_group(tool_client):
    query = {
        "from": "guests",
        "select": ["cluster", "node", "COUNT(*) as n"],
        "groupBy": ["cluster", "node"],
        "orderBy": ["cluster", "n desc"],
    }
    every = (await ask(tool_client, **query)).data
    answer = await ask(tool_client, **query, limitPer={"fields": ["cluster"], "count": 2})
    kept = [
        [r for r in every if r["cluster"] == name][:2]
        for name in sorted(tool_client.clusters.connected)
    ]
    assert answer.data == [row for rows in kept for row in rows]


async def test_pages_of_a_reduced_query_fit_together(tool_client):
    def page(offset, limit):
        return ask(
            tool_client,
            "prod",
            **{
                "from": "guests",
                "select": ["vmid", "qemu_config.cores"],
                "where": where(is_("type", "=", "qemu"), is_("status", "=", "running")),
                "orderBy": ["cpu_usage desc", "vmid"],
                "offset": offset,
                "limit": limit,
            },
        )

    whole = (await page(0, 12)).data
    assert (await page(0, 5)).data + (await page(5, 7)).data == whole


async def test_descriptions_are_read_only_of_matching_guests(tool_client):
    tool_client.requests("prod")
    answer = await ask(
        tool_client,
        "prod",
        **{
            "from": "guests",
            "select": ["vmid", "description"],
            "where": is_("vmid", "IN", 101, 102, 103),
        },
    )
    assert answer.column("vmid") == [101, 102, 103]
    assert sum(request.endswith("/config") for request in tool_client.requests("prod")) == 3


async def test_conditions_reach_proxmox(tool_client):
    tool_client.requests("prod")
    await ask(tool_client, "prod", **{"from": "snapshots", "where": is_("vmid", "=", 101)})
    assert [request for request in tool_client.requests("prod") if "snapshot" in request] == [
        "GET /nodes/pve01/qemu/101/snapshot"
    ]
    await ask(tool_client, "prod", **{"from": "tasks", "where": is_("node", "=", "PVE02")})
    task_requests = [request for request in tool_client.requests("prod") if "tasks" in request]
    assert task_requests == ["GET /nodes/pve02/tasks"]
    await ask(tool_client, "prod", **{"from": "backups", "where": is_("storage", "=", "pbs-main")})
    content_requests = [request for request in tool_client.requests("prod") if "content" in request]
    assert len(content_requests) == 1


@pytest.mark.parametrize("table", ["tasks", "backups", "snapshots", "disks"])
@pytest.mark.parametrize("vmid", [7, -1, 100.5, "1e2", 10**12, 9 * 10**18])
async def test_impossible_vmids_are_not_sent_to_proxmox(tool_client, table, vmid):
    query = {"from": table, "select": "vmid", "where": is_("vmid", "=", vmid)}
    answer = await ask(tool_client, "prod", **query)
    assert "Missing" not in answer.notes
    assert answer.data == [] or set(answer.column("vmid")) == {100}


@pytest.mark.parametrize("time", [-5, 0, 10**11, "0001-01-01", "9999-12-31"])
async def test_impossible_times_are_not_sent_to_proxmox(tool_client, time):
    answer = await ask(
        tool_client, "prod", **{"from": "tasks", "where": is_("start_time", ">=", time)}
    )
    assert "Missing" not in answer.notes
    assert bool(answer.data) == (time in (-5, 0, "0001-01-01"))


@pytest.mark.parametrize(
    "condition", [is_("start_time", ">", "-30d"), is_("start_time", "BETWEEN", "-30d", "now")]
)
async def test_how_far_back_tasks_are_asked_for_reaches_proxmox(
    tool_client, monkeypatch, condition
):
    monkeypatch.setattr(import_module("pvemcp_server.tables.tasks"), "LATEST", 1)
    query = {"from": "tasks", "select": ["COUNT(*) as n"], "where": condition}
    answer = await ask(tool_client, "prod", **query)
    assert answer.data[0]["n"] > 10
    assert "Only the latest" not in answer.notes


async def test_the_same_inventory_is_read_once_for_many_queries(tool_client):
    tool_client.refresh()
    tool_client.requests("prod")
    for operator in ("=", "!=", ">"):
        await ask(tool_client, "prod", **{"from": "guests", "where": is_("vmid", operator, 101)})
    assert tool_client.requests("prod") == ["GET /cluster/resources"]


PAUSED = {
    "alone": ("guests", is_("status", "=", "paused"), True),
    "or another": (
        "guests",
        where(is_("status", "=", "paused"), is_("status", "=", "stopped"), logic="or"),
        True,
    ),
    "not": ("guests", is_("status", "!=", "paused"), False),
    "running and not": (
        "guests",
        where(is_("status", "=", "running"), is_("status", "NOT IN", "paused")),
        False,
    ),
    "by a relation": ("qemu_configs", is_("guest.status", "=", "paused"), True),
}


@pytest.mark.parametrize("case", PAUSED)
async def test_conditions_distinguish_paused_guests(demo_client, case):
    state = demo_client["prod"].emulated.state
    guest = next(g for g in state.guests.values() if g.kind == "qemu" and g.status == "running")
    guest.paused = True
    table, conditions, is_found = PAUSED[case]
    query = {"from": table, "select": ["vmid"], "where": conditions}
    answer = await ask(demo_client, "prod", **query)
    assert (guest.vmid in answer.column("vmid")) == is_found


async def test_a_cut_result_is_noted(tool_client):
    asked_for = await ask(tool_client, **{"from": "backups", "limit": 3})
    assert len(asked_for.data) == 3
    assert "Cut" not in asked_for.notes
    cut = await ask(tool_client, **{"from": "permissions", "limit": 5000, "select": "path"})
    assert len(cut.data) == 1000
    assert "Cut at 1000 rows: ask for the next with offset 1000" in cut.notes


@pytest.mark.parametrize(
    ("query", "noted"),
    [
        ({"select": ["vmid"], "orderBy": "memory_max", "limit": 3}, "the same memory_max as"),
        ({"select": ["name", "cpu_count as n"], "orderBy": "n desc", "limit": 2}, "the same n as"),
        ({"select": ["node", "COUNT(*) as n"], "groupBy": "node", "orderBy": "n", "limit": 2}, ""),
        ({"select": ["vmid"], "orderBy": ["vmid", "name"], "limit": 3}, ""),
        ({"select": ["vmid"], "orderBy": "memory_max"}, ""),
        ({"select": ["pool"], "distinct": True, "orderBy": "pool", "limit": 1}, ""),
    ],
)
async def test_a_limit_that_cuts_equal_rows_is_noted(tool_client, query, noted):
    answer = await ask(tool_client, "prod", **{"from": "guests", **query})
    assert noted in answer.notes
    assert ("The limit cut rows with the same" in answer.notes) == bool(noted)


async def test_a_query_without_a_limit_has_400_rows_and_a_cursor(tool_client):
    query = {"from": "permissions", "select": "path"}
    answer = await tool_client("ExecuteQuery", query=query)
    assert len(answer.data) == 400
    assert "Rows 1–400 of 1000; for the next page repeat the call with cursor=" in answer.notes
    assert "Cut at 1000 rows: ask for the next with offset 1000" in answer.notes


async def test_raising_the_row_cap_raises_that_of_queries(demo_client):
    query = {"from": "permissions", "select": "path", "limit": 5000}
    for cap in (20, 1200):
        demo_client.change(row_cap=cap)
        answer = await demo_client("ExecuteQuery", query=query, limit=5000)
        assert len(answer.data) == cap
        assert f"Cut at {cap} rows: ask for the next with offset {cap}" in answer.notes


async def test_a_query_notes_a_cluster_that_does_not_answer(demo_client):
    await demo_client["home-lab"].emulated.node_down("pve")
    answer = await ask(demo_client, **{"from": "guests", "select": ["COUNT(*) as n"]})
    assert answer.data == [{"n": len(demo_client["prod"].emulated.state.guests)}]
    assert "Missing: guests of home-lab." in answer.notes


async def test_a_query_fails_when_no_cluster_answers(demo_client):
    for name in ("home-lab", "prod"):
        for node in list(demo_client[name].emulated.state.nodes):
            await demo_client[name].emulated.node_down(node)
    error = await demo_client.refused("ExecuteQuery", query={"from": "guests"})
    assert "connection attempts failed" in error


# --- grants -------------------------------------------------------------------------------------


def with_tools(demo_client, *names, resources=None):
    from dataclasses import replace

    scoped = demo_client.scoped(resources) if resources else demo_client
    return replace(scoped, tools=frozenset(names))


async def test_tables_of_tools_that_are_not_granted_do_not_exist(tool_client):
    narrow = with_tools(tool_client, "ExecuteQuery", "GetQuerySchema", "ListVms")
    schema = (await narrow("GetQuerySchema")).data
    assert [table["name"] for table in schema["tables"]] == ["guests"]
    assert "relations" not in schema["tables"][0]
    denied = await narrow.refused("ExecuteQuery", query={"from": "nodes"})
    unheard = await narrow.refused("ExecuteQuery", query={"from": "xyzzy"})
    assert denied.replace("nodes", "NAME") == unheard.replace("xyzzy", "NAME")
    related = await narrow.refused(
        "ExecuteQuery", query={"from": "guests", "select": ["node.cpu_usage"]}
    )
    unheard = await narrow.refused(
        "ExecuteQuery", query={"from": "guests", "select": ["xyzz.cpu_usage"]}
    )
    assert related.replace("node", "NAME") == unheard.replace("xyzz", "NAME")


@pytest.mark.parametrize("name", [name for name, table in tables().items() if table.joined])
async def test_a_table_of_several_tools_takes_the_grants_of_all(tool_client, name):
    query, granted = {"from": name, "select": ["COUNT(*) as n"]}, tables()[name].tools
    assert (
        await with_tools(tool_client, "ExecuteQuery", *granted)("ExecuteQuery", query=query)
    ).data
    for missing in granted:
        narrow = with_tools(tool_client, "ExecuteQuery", *(set(granted) - {missing}))
        error = await narrow.refused("ExecuteQuery", query=query)
        assert f"no table {name!r}" in error


SCOPES = {
    "pool": (Resources(pools=frozenset({"production"})), lambda row: row["pool"] == "production"),
    "tags": (
        Resources(tags=frozenset({"db", "web"})),
        lambda row: {"db", "web"} & {*(row["tags"] or ())},
    ),
    "vmids": (Resources(vmids=frozenset({101, 102})), lambda row: row["vmid"] in (101, 102)),
    "node": (Resources(nodes=frozenset({"pve01"})), lambda row: row["node"] == "pve01"),
    "storage": (Resources(storages=frozenset({"pbs-main"})), lambda _: False),
}
MOST_COLUMNS = 59  # of a query, beside a count
AGGREGATES = {
    "COUNT": len,
    "SUM": lambda values: sum(values) if values else None,
    "MIN": lambda values: min(values, default=None),
    "MAX": lambda values: max(values, default=None),
    "AVG": lambda values: sum(values) / len(values) if values else None,
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_narrow_key_sees_only_its_guests_in_every_table(tool_client, scope):
    resources, granted = SCOPES[scope]
    everything = {"from": "guests", "select": ["vmid", "pool", "tags", "node"]}
    guests = (await ask(tool_client, "prod", **everything)).data
    mine = {row["vmid"] for row in guests if granted({"pool": None, **row})}
    narrow = tool_client.scoped(resources)
    for name in EVERY_TABLE:
        table = tables()[name]
        if "vmid" in table.fields:
            rows = (await ask(narrow, "prod", **{"from": name, "select": ["*"]})).data
            others = {row["vmid"] for row in rows if row.get("vmid")} - mine
            where_it_is = resources.storages | resources.nodes
            allowed = [row for row in rows if row.get("vmid") in others]
            assert all({row.get("storage"), row.get("node")} & where_it_is for row in allowed), name
            if table.covered is tables()["guests"].covered:
                assert not others


@pytest.mark.parametrize("scope", SCOPES)
async def test_aggregates_of_a_narrow_key_cover_only_its_rows(tool_client, scope, monkeypatch):
    now = datetime.now(UTC)
    monkeypatch.setattr("pvemcp_server.tables.rows._now", lambda: now)
    narrow = tool_client.scoped(SCOPES[scope][0])
    for name in EVERY_TABLE:
        table = tables()[name]
        if name == "clocks":
            continue  # its figures are measured again with each query
        fields = [
            field.name
            for field in table.fields.values()
            if field.kind in ("integer", "number") and field.name not in table.extra
        ]
        rows = (await ask(narrow, "prod", **{"from": name, "select": ["*"]})).data
        every = [(function, field) for function in AGGREGATES for field in fields]
        for start in range(0, len(every), MOST_COLUMNS):
            part = every[start : start + MOST_COLUMNS]
            select = ["COUNT(*) as n", *(f"{f}({field}) as {f}_{field}" for f, field in part)]
            totals = (await ask(narrow, "prod", **{"from": name, "select": select})).data[0]
            assert min(totals["n"], 1000) == len(rows)
            for function, field in part if totals["n"] == len(rows) else ():
                of = AGGREGATES[function]
                truth = of([row[field] for row in rows if row.get(field) is not None])
                close = truth if truth is None else pytest.approx(truth, abs=0.06)  # one decimal
                assert totals.get(f"{function}_{field}") == close, (name, function, field)


async def test_joins_lead_to_nothing_that_is_not_granted(tool_client):
    narrow = tool_client.scoped(Resources(pools=frozenset({"production"})))
    query = {"from": "guests", "select": ["vmid", "node.memory_total", "node.node"]}
    answer = await ask(narrow, "prod", **query)
    assert answer.data
    assert all(row.get("node.memory_total") is None for row in answer.data)
    query["where"] = is_("node.memory_total", ">", 0)
    assert (await ask(narrow, "prod", **query)).data == []


async def test_a_row_needs_grants_of_query_and_table_tool(tool_client):
    from pvemcp_server.access.model import Caller, Effect, Role
    from pvemcp_server.query.sources import reach

    grants = (
        Grant(frozenset({"ExecuteQuery"}), resources=Resources(nodes=frozenset({"pve01"}))),
        Grant(frozenset({"ListVms"}), resources=Resources(tags=frozenset({"web"}))),
    )
    caller = Caller("k", "key", Role(1, "r", "", grants))
    scope = reach(caller, tables()["guests"], "prod")
    assert scope.covers_guest(1, node="pve01", tags=("web",))
    assert not scope.covers_guest(1, node="pve01")
    assert not scope.covers_guest(1, node="pve02", tags=("web",))
    assert not reach(caller, tables()["nodes"], "prod")
    assert tools()["ExecuteQuery"].effect is Effect.READ


async def test_a_query_does_not_narrow_the_cached_rows_of_the_next(tool_client):
    """Keep whole tables in the cached database, whatever conditions the first query had."""
    for demo_client in (
        tool_client,
        tool_client.scoped(Resources(pools=frozenset({"production"}))),
    ):
        tool_client.refresh()
        await ask(demo_client, "prod", **{"from": "guests", "where": is_("vmid", "=", 101)})
        listed = await demo_client("ListVms", cluster_name="prod")
        counted = await ask(demo_client, "prod", **{"from": "guests", "select": ["COUNT(*) as n"]})
        assert counted.data == [{"n": len(listed.data)}]


async def test_a_key_never_gets_the_database_of_another(tool_client):
    """Keep the rows of an inventory between calls, separately for each scope."""
    query = {"from": "guests", "select": ["COUNT(*) as n"]}
    everything = (await ask(tool_client, "prod", **query)).data[0]["n"]
    one = tool_client.scoped(Resources(vmids=frozenset({101})))
    assert (await ask(one, "prod", **query)).data == [{"n": 1}]
    assert (await ask(tool_client, "prod", **query)).data == [{"n": everything}]
    two = tool_client.scoped(Resources(vmids=frozenset({101, 102})))
    assert (await ask(two, "prod", **query)).data == [{"n": 2}]


async def test_a_query_with_few_rights_names_missing_privileges(tool_client, with_token, new_token):
    token = new_token(tool_client["prod"].emulated, ("/vms/101", "PVEAuditor"))
    poor = await with_token(tool_client, "prod", token)
    guests = await ask(poor, "prod", **{"from": "guests", "select": ["vmid"]})
    assert guests.column("vmid") == [101]
    error = await poor.refused("ExecuteQuery", query={"from": "backup_jobs"}, cluster_name="prod")
    assert "Sys.Audit" in error
    assert question(token[0], "/", ["Sys.Audit"]) in error
    configs = await ask(poor, "prod", **{"from": "qemu_configs", "select": ["vmid"]})
    assert configs.column("vmid") == [101]
    rich = await ask(tool_client, "prod", **{"from": "guests", "select": ["COUNT(*) as n"]})
    assert rich.data == [{"n": len(tool_client["prod"].emulated.state.guests)}]


# --- tests for related rows ---------------------------------------------------------------------


def rows_of(table, *conditions, operator="NOT EXISTS", logic="and"):
    return {"field": table, "operator": operator, "logic": logic, "conditions": list(conditions)}


RELATED = [
    ("guests", ("vmid",), "backups", ("vmid",), is_("creation", ">", "-7d")),
    ("guests", ("vmid",), "snapshots", ("vmid",), is_("name", "!=", "x")),
    ("guests", ("vmid",), "tasks", ("vmid",), is_("type", "=", "vzdump")),
    ("pools", ("poolid",), "guests", ("pool",), is_("status", "=", "running")),
    ("nodes", ("node",), "replications.target_node", ("target",), is_("disabled", "=", "no")),
    ("backups", ("vmid",), "guest", ("vmid",), is_("status", "=", "running")),
    ("disks", ("vmid",), "guest.snapshots", ("vmid",), is_("include_ram", "=", "false")),
]


@pytest.mark.parametrize(
    ("table", "key", "related", "foreign", "condition"),
    RELATED,
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_rows_with_and_without_related_rows_are_all_rows(
    tool_client, table, key, related, foreign, condition
):
    part = {"guest": "guests"}.get(related) or related.removeprefix("guest.").partition(".")[0]
    others = {"from": part, "select": ["cluster", *foreign], "where": condition}
    keys = {tuple(row.values()) for row in (await ask(tool_client, **others)).data}
    every = (await ask(tool_client, **{"from": table, "select": ["cluster", *key]})).data
    for operator, kept in (("EXISTS", True), ("NOT EXISTS", False)):
        where = rows_of(related, condition, operator=operator)
        asked = {"from": table, "select": ["cluster", *key], "where": where}
        truth = [row for row in every if (tuple(row.values()) in keys) is kept]
        assert (await ask(tool_client, **asked)).data == truth


async def test_a_test_reads_the_related_rows_of_matching_rows_only(tool_client):
    tool_client.requests("prod")
    where_ = where(is_("vmid", "IN", 101, 102), rows_of("snapshots", is_("date", ">", "-1d")))
    await ask(tool_client, "prod", **{"from": "guests", "select": ["vmid"], "where": where_})
    assert sum("snapshot" in request for request in tool_client.requests("prod")) == 2


WITHOUT = {"from": "guests", "select": ["cluster", "vmid"], "where": rows_of("backups")}


@pytest.mark.parametrize(
    ("operator", "effect"),
    [("NOT EXISTS", "has rows that do have some"), ("EXISTS", "lacks rows")],
)
async def test_a_test_of_incomplete_rows_is_noted_with_its_effect(tool_client, operator, effect):
    query = {**WITHOUT, "where": rows_of("backups", operator=operator)}
    answer = await ask(tool_client, "prod", **query)
    assert "backups: Offline on prod, so missing here: pve05." in answer.notes
    assert f"{operator} backups was decided by the backups that can be read" in answer.notes
    assert f"perhaps this answer {effect}." in answer.notes
    complete = await ask(tool_client, "home-lab", **query)
    assert "was decided by" not in complete.notes


async def test_a_test_notes_the_cluster_whose_related_rows_are_missing(
    tool_client, with_token, new_token
):
    token = new_token(tool_client["prod"].emulated, ("/vms", "PVEAuditor"))
    poor = await with_token(tool_client, "prod", token)
    answer = await ask(poor, **{**WITHOUT, "where": rows_of("ha_resource")})
    assert "Missing: ha_resources of prod." in answer.notes
    assert (
        "NOT EXISTS ha_resources was decided by the ha_resources that can be read" in answer.notes
    )
    error = await poor.refused(
        "ExecuteQuery", query={**WITHOUT, "where": rows_of("ha_resource")}, cluster_name="prod"
    )
    assert "Sys.Audit" in error


async def test_a_test_sees_only_the_rows_of_the_key_and_says_so(tool_client):
    narrow = tool_client.scoped(Resources(nodes=frozenset({"pve01"}), pools=frozenset({"web"})))
    query = {"from": "pools", "select": ["poolid"], "where": rows_of("guests", operator="EXISTS")}
    mine = await ask(narrow, "prod", **{"from": "guests", "select": ["pool"], "distinct": True})
    pools = await ask(narrow, "prod", **{"from": "pools", "select": ["poolid"]})
    answer = await ask(narrow, "prod", **query)
    assert answer.column("poolid") == [
        pool for pool in pools.column("poolid") if pool in mine.column("pool")
    ]
    assert "the role of this key covers a part of prod only" in answer.notes


async def test_a_test_of_a_table_that_is_not_granted_is_an_unknown_name(tool_client):
    narrow = with_tools(tool_client, "ExecuteQuery", "ListVms")
    denied = await narrow.refused("ExecuteQuery", query=WITHOUT)
    unheard = await narrow.refused("ExecuteQuery", query={**WITHOUT, "where": rows_of("xyzzyxy")})
    assert denied.replace("backups", "NAME") == unheard.replace("xyzzyxy", "NAME")


async def test_a_misspelt_value_in_a_test_is_noted(tool_client):
    query = {**WITHOUT, "where": rows_of("backups", is_("storage", "=", "pbs-mai"))}
    answer = await ask(tool_client, "prod", **query)
    assert answer.data
    assert "backups: No storage 'pbs-mai' on prod. Did you mean pbs-main" in answer.notes


async def test_groups_of_old_rows_point_to_what_has_no_rows(tool_client):
    old = {"from": "backups", "select": ["cluster", "vmid", "MAX(creation) as last"]}
    old |= {"groupBy": ["cluster", "vmid"], "having": is_("last", "<", "-7d")}
    note = "guests without backups are in no group: for these, ask from guests where backups NOT"
    assert note in (await ask(tool_client, **old)).notes
    assert note not in (await ask(tool_client, **{**old, "having": is_("last", ">", 0)})).notes


# --- spans of time, and fields compared with fields ---------------------------------------------


@pytest.mark.parametrize(
    ("span", "start"),
    [
        ("HOUR", lambda time: time.replace(minute=0, second=0)),
        ("DAY", lambda time: time.replace(hour=0, minute=0, second=0)),
        (
            "WEEK",
            lambda time: time.replace(hour=0, minute=0, second=0) - timedelta(time.weekday()),
        ),
    ],
)
async def test_rows_are_grouped_by_spans_of_a_time(tool_client, span, start):
    tasks = await ask(tool_client, **{"from": "tasks", "select": ["start_time"]})
    times = [start(datetime.fromisoformat(time)) for time in tasks.column("start_time")]
    grouped = {"select": [f"{span}(start_time) as begin", "COUNT(*) as n"], "groupBy": "begin"}
    answer = await ask(tool_client, **{"from": "tasks", **grouped})
    counts = {datetime.fromisoformat(row["begin"]): row["n"] for row in answer.data}
    assert counts == Counter(times)
    assert list(counts) == sorted(counts)


async def test_a_field_is_compared_with_a_related_one_and_with_sums(tool_client):
    every = {"from": "guests", "select": ["cluster", "vmid", "memory_max", "node.memory_usage"]}
    larger = {"field": "memory_max", "operator": ">", "valueField": "node.memory_usage"}
    truth = [
        row
        for row in (await ask(tool_client, **every)).data
        if row.get("node.memory_usage") is not None and row["memory_max"] > row["node.memory_usage"]
    ]
    assert (await ask(tool_client, **{**every, "where": larger})).data == truth
    overcommitted = {
        "from": "guests",
        "select": ["cluster", "node", "SUM(memory_max) as sum", "node.memory_total"],
        "groupBy": ["cluster", "node", "node.memory_total"],
    }
    rows = (await ask(tool_client, **overcommitted)).data
    having = {"field": "sum", "operator": "<=", "valueField": "node.memory_total"}
    answer = await ask(tool_client, **{**overcommitted, "having": having})
    assert answer.data == [
        row
        for row in rows
        if row.get("node.memory_total") and row["sum"] <= row["node.memory_total"]
    ]
    assert "node.memory_total is unknown in" in answer.notes


async def test_vms_are_found_by_the_time_of_their_creation(demo_client):
    state = demo_client["prod"].emulated.state
    new, edited = (state.guests[vmid] for vmid in (100, 101))
    yesterday = int(state.now) - 86_400
    new.config["meta"] = f"creation-qemu=10.0.2,ctime={yesterday}"
    edited.config["meta"] = "creation-qemu=10.0.2,ctime=99999999999999"
    query = {
        "from": "guests",
        "select": ["vmid", "qemu_config.created as created"],
        "where": is_("qemu_config.created", ">", "-30d"),
    }
    answer = await ask(demo_client, "prod", **query)
    created = datetime.fromtimestamp(yesterday, UTC)
    assert answer.data == [{"vmid": 100, "created": f"{created:%Y-%m-%dT%H:%M:%SZ}"}]
    assert "(its configuration does not have it), which this answer is not about." in answer.notes


async def test_guests_are_counted_by_each_of_their_tags(tool_client):
    guests = await ask(tool_client, **{"from": "guests", "select": ["tags", "node"]})
    tags = Counter(tag for row in guests.data for tag in row.get("tags") or [None])
    asked = {"from": "guests", "select": ["tags", "COUNT(*) as n"], "groupBy": "tags"}
    answer = await ask(tool_client, **asked)
    assert {row.get("tags"): row["n"] for row in answer.data} == tags
    above = {**asked, "having": is_("n", ">", 5), "orderBy": "n desc"}
    rows = (await ask(tool_client, **above)).data
    assert rows
    assert {row.get("tags"): row["n"] for row in rows} == {t: n for t, n in tags.items() if n > 5}
    tag = rows[0]["tags"]
    named = {**asked, "having": is_("tags", "=", tag.upper())}
    assert (await ask(tool_client, **named)).data == [{"tags": tag, "n": tags[tag]}]


# --- words that people use for values -----------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "field", "word", "values"),
    [
        ("guests", "type", "VM", ["qemu"]),
        ("guests", "type", "container", ["lxc"]),
        ("snapshots", "type", "ct", ["lxc"]),
        ("disks", "guest.type", "vm", ["qemu"]),
        ("ha_resources", "type", "qemu", ["vm"]),
        ("tasks", "type", "backup", ["vzdump"]),
        ("tasks", "type", "console", ["vncproxy", "vncshell", "spiceproxy", "termproxy"]),
        ("storages", "type", "Ceph", ["rbd", "cephfs"]),
        ("storages", "type", "zfs", ["zfspool", "zfs"]),
        ("storages", "type", "lvm", ["lvm"]),
    ],
)
async def test_words_that_people_use_are_read_as_the_values(
    tool_client, table, field, word, values
):
    query = {"from": table, "select": ["cluster", field]}
    for one, many in (("=", "IN"), ("!=", "NOT IN")):
        truth = await ask(tool_client, **query, where=is_(field, many, *values))
        for operator in (one, many):
            answer = await ask(tool_client, **query, where=is_(field, operator, word))
            assert answer.data == truth.data
            read = f"{field} {word.casefold()!r} stands for {', '.join(values)}."
            assert (read in answer.notes) is (len(values) > 1)


@pytest.mark.parametrize(
    ("tool", "word", "values"),
    [
        ("ListTasks", "Backup", {"vzdump"}),
        ("ListStorage", "ceph", {"rbd", "cephfs"}),
        ("ListStorage", "dir", {"dir"}),
    ],
)
async def test_lists_read_these_words_like_queries(tool_client, tool, word, values):
    answer = await tool_client(tool, cluster_name="prod", type=word)
    assert answer.data
    assert set(answer.column("type")) <= values


@pytest.mark.parametrize(("word", "type_"), [("VM", "qemu"), ("container", "lxc"), ("ct", "lxc")])
async def test_guests_are_listed_by_the_words_for_their_types(tool_client, word, type_):
    answer = await tool_client("ListVms", cluster_name="prod", type=word)
    same = await tool_client("ListVms", cluster_name="prod", type=type_)
    assert answer.data == same.data != []


async def test_a_share_is_the_percentage_of_all_rows_that_where_leaves(tool_client):
    sums = {"select": ["node", "SUM(memory_max) as n"], "groupBy": "node"}
    running = {"from": "guests", "where": is_("status", "=", "running")}
    rows = (await ask(tool_client, "prod", **running, **sums)).data
    shares = {**sums, "select": ["node", "SHARE(memory_max) as share"]}
    total = sum(row["n"] for row in rows)
    answer = await ask(tool_client, "prod", **running, **shares)
    assert answer.data == [
        {"node": row["node"], "share": round(100 * row["n"] / total, 2)} for row in rows
    ]
    large = {**shares, "having": is_("share", ">", 30)}
    assert (await ask(tool_client, "prod", **running, **large)).data == [
        row for row in answer.data if row["share"] > 30
    ]


LARGE = 2**64 - 1  # an unsigned counter of Proxmox
LARGE_COUNTER = {
    "a value": {"select": ["vmid", "network_in"]},
    "a maximum": {"select": ["MAX(network_in) as network_in"]},
    "a group": {"select": ["network_in", "COUNT(*) as n"], "groupBy": ["network_in"]},
    "another name": {"select": ["name", "network_in as received"]},
}


def with_large_counter(row):
    return {**row, "netin": LARGE} if row.get("vmid") == 101 else row


@pytest.mark.parametrize("way", LARGE_COUNTER)
async def test_an_integer_beyond_2_to_63_is_named_as_rounded(tool_client, way):
    query = {"from": "guests", **LARGE_COUNTER[way]}
    with altered(tool_client["prod"], RESOURCES, rows_changed(with_large_counter)):
        answer = await tool_client("ExecuteQuery", cluster_name="prod", query=query)
    name = "received" if way == "another name" else "network_in"
    assert f"{name} has values beyond 2^63" in answer.notes
    assert 2**64 in answer.column(name)


async def test_a_sum_over_an_integer_beyond_2_to_63_is_an_error(tool_client):
    query = {"from": "guests", "select": ["SUM(network_in) as total"]}
    with altered(tool_client["prod"], RESOURCES, rows_changed(with_large_counter)):
        error = await tool_client.refused("ExecuteQuery", cluster_name="prod", query=query)
        exact = await tool_client("ListVms", cluster_name="prod", fields=["vmid", "network_in"])
    assert error.startswith("A sum is larger than 2^63.")
    assert LARGE in exact.column("network_in")


async def test_the_clusters_of_a_query_share_one_budget_of_requests(tool_client, monkeypatch):
    monkeypatch.setattr(query, "Shares", lambda: Shares(6))
    tool_client.refresh()
    for name in ("home-lab", "prod"):
        tool_client.requests(name)
    answer = await tool_client("ExecuteQuery", query={"from": "qemu_configs", "select": ["vmid"]})
    sent = {
        name: sum(not path.endswith("/resources") for path in tool_client.requests(name))
        for name in ("home-lab", "prod")
    }
    assert sum(sent.values()) == 6
    assert min(sent.values()) == 3
    assert all(f"on {name} not read" in answer.notes for name in sent)
