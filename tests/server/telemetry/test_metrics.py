"""The figures at /metrics: which they are, what they never name, and where they are served."""

import re
from contextlib import asynccontextmanager

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxmox_client import Exchange
from proxmox_client.emulator import Emulator, demo
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.http.gate import PUBLIC
from pvemcp_server.oauth.addresses import OAUTH
from pvemcp_server.telemetry.exporters import monitored
from pvemcp_server.telemetry.figures import FIGURES, MOST_SERIES, SEVERAL, Kind, outcome_of

pytestmark = pytest.mark.anyio
PORT = 9811


@asynccontextmanager
async def scraping(served):
    """Measure a server; yield a client of its port of metrics, and one of its other port."""
    async with monitored(served.app.asgi, served.app.endpoint, PORT) as asgi:
        transport = httpx.ASGITransport(app=asgi)
        async with (
            httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as metrics,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8811") as other,
        ):
            yield metrics, other


@pytest.fixture(scope="module")
async def lab(anyio_backend, tmp_path_factory, serve_demo):
    """Serve the demo clusters, measured; yield the server with both clients."""
    folder = tmp_path_factory.mktemp("metrics") / "state"
    async with (
        Emulator(demo()) as pve,
        serve_demo(folder, pve) as served,
        scraping(served) as clients,
    ):
        yield served, *clients


async def samples(metrics: httpx.AsyncClient) -> dict[tuple[str, frozenset[str]], float]:
    """Return each value by its name and its labels, as Prometheus parses them."""
    response = await metrics.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_calls_and_requests_are_counted_by_tool_outcome_and_cluster(lab):
    served, metrics, _ = lab
    before = await samples(metrics)
    for cluster in ("prod", "prod", "home-lab"):
        await served.modern.call("ListTasks", cluster_name=cluster)
    await served.modern.call("ListNodes")
    await served.modern.call("GetVmConfig", cluster_name="prod", vmid=99999)
    after = await samples(metrics)

    def grown(name: str, *labels: str) -> float:
        key = name, frozenset(labels)
        return after.get(key, 0) - before.get(key, 0)

    assert grown("pvemcp_calls_total", "ListTasks", "ok", "prod") == 2
    assert grown("pvemcp_calls_total", "ListTasks", "ok", "home-lab") == 1
    assert grown("pvemcp_calls_total", "ListNodes", "ok", SEVERAL) == 1
    assert grown("pvemcp_calls_total", "GetVmConfig", "error", "prod") == 1
    assert grown("pvemcp_call_duration_seconds_count", "ListTasks") == 3
    assert grown("pvemcp_call_duration_seconds_bucket", "ListTasks", "+Inf") == 3
    assert grown("pvemcp_proxmox_requests_total", "prod", "ok") >= 3
    assert grown("pvemcp_proxmox_request_duration_seconds_count", "prod") >= 3
    assert grown("pvemcp_inventory_reads_total", "prod", "cached") >= 1
    assert after["pvemcp_cluster_up", frozenset({"prod"})] == 1
    assert after["pvemcp_cluster_circuit_state", frozenset({"prod"})] == 0


async def test_every_figure_is_exposed_and_described(lab):
    served, metrics, _ = lab
    await served.modern.call("ListVms")
    text = (await metrics.get("/metrics")).text
    for figure in FIGURES:
        name = figure.name + ("_total" if figure.kind is Kind.COUNTER else "")
        assert f"# HELP {name} {figure.description}\n" in text
        assert f"# TYPE {name} {figure.kind}\n" in text
    assert "process_resident_memory_bytes" in text


async def test_every_sample_has_the_labels_that_its_figure_declares(lab):
    served, metrics, _ = lab
    await served.modern.call("ListVms")
    declared = {figure.name: set(figure.labels) for figure in FIGURES}
    families = text_string_to_metric_families((await metrics.get("/metrics")).text)
    found = {
        family.name: {frozenset(sample.labels.keys() - {"le"}) for sample in family.samples}
        for family in families
        if family.name in declared
    }
    assert found.keys() == declared.keys()
    on_postgresql = {"pvemcp_database_connections", "pvemcp_database_connections_limit"}
    for name, labels in found.items():
        assert labels == (set() if name in on_postgresql else {frozenset(declared[name])}), name


async def test_openmetrics_is_served_to_those_that_ask_for_it(lab):
    _, metrics, _ = lab
    accept = "application/openmetrics-text;version=1.0.0"
    response = await metrics.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


async def test_no_key_guest_node_or_text_of_a_client_is_in_the_figures(lab):
    served, metrics, _ = lab
    vms = await served.modern.call("ListVms", cluster_name="prod", limit=1000)
    await served.modern.call("ExecuteQuery", query={"from": "canary-table"})
    await served.modern.call("CanaryTool", a="canary-value")
    await served.http.post("/mcp", headers={"X-API-Key": "pvemcp_canary"}, json={})
    text = (await metrics.get("/metrics")).text
    names = set(re.findall(r"\b(?:web|db|pve|app|mail)[\w-]*\d\b", str(vms)))
    assert len(names) > 3
    found = {name for name in (*names, "canary", "Canary", "pvemcp_canary") if name in text}
    assert found == set()
    assert served.key not in text
    assert served.key_id not in text


async def test_nothing_but_metrics_is_at_its_port_and_no_metrics_at_the_other(lab):
    served, metrics, other = lab
    for path in sorted({*PUBLIC, *OAUTH, *served.app.asgi.transports, "/admin/", "/admin/sign-in"}):
        response = await metrics.get(path, headers={"X-API-Key": served.key})
        assert (path, response.status_code) == (path, 404)
    assert (await metrics.post("/metrics")).status_code == 405
    for headers in ({}, {"X-API-Key": served.key}):
        assert (await other.get("/metrics", headers=headers)).status_code == 404
    assert (await other.get(f"http://127.0.0.1:{PORT}/readyz")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": f"rebound.example:{PORT}"}, 421),
        ({"Origin": "https://page.example"}, 403),
        ({"Host": "[::1]:9811"}, 200),
        ({"Host": f"localhost:{PORT}"}, 200),
    ],
)
async def test_a_page_of_a_browser_cannot_read_the_metrics(lab, headers, status):
    _, metrics, _ = lab
    assert (await metrics.get("/metrics", headers=headers)).status_code == status


async def test_the_series_of_a_removed_cluster_end(lab):
    served, metrics, _ = lab
    await served.modern.call("ListTasks", cluster_name="home-lab")
    assert any("home-lab" in labels for _, labels in await samples(metrics))
    await served.state.access.clusters.change("home-lab", name="renamed")
    await served.state.store.watch.poll()
    assert not any("home-lab" in labels for _, labels in await samples(metrics))
    await served.state.access.clusters.change("renamed", name="home-lab")
    await served.state.store.watch.poll()


async def test_callers_cannot_make_series_of_their_own(lab):
    served, metrics, _ = lab
    (count,) = served.app.endpoint.services.audit.observers
    for number in range(100):
        count(Event(tool=f"Invented{number}", outcome=Outcome.REFUSED))
    invented = [name for name in await samples(metrics) if "Invented" in str(name)]
    assert invented == []
    measurements = count.__self__
    for number in range(MOST_SERIES + 10):
        count(Event(tool="ListVms", outcome=Outcome.OK, cluster=f"c{number}"))
    assert len(measurements._calls) <= MOST_SERIES + len(Outcome)


@pytest.mark.parametrize(
    ("exchange", "outcome"),
    [
        (Exchange("h", "GET", "/", 0.1, 200), "ok"),
        (Exchange("h", "GET", "/", 0.1, 403), "refused"),
        (Exchange("h", "GET", "/", 0.1, 500), "failed"),
        (Exchange("h", "GET", "/", 0.1, 595), "node unreachable"),
        (Exchange("h", "GET", "/", 0.1, 0, httpx.ConnectError), "unreachable"),
        (Exchange("h", "GET", "/", 0.1, 200, httpx.ReadTimeout), "timeout"),
        (Exchange("h", "GET", "/", 0.1, 0, TimeoutError), "given up"),
    ],
)
async def test_a_request_has_the_outcome_of_its_response_or_failure(exchange, outcome):
    assert outcome_of(exchange) == outcome
