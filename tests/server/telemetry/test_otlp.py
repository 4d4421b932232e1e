"""Traces and metrics of OpenTelemetry: their parents and children, and what they never hold."""

import logging
import sys
import threading
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_tracer_provider
from opentelemetry.util.re import parse_env_headers

from proxmox_client.emulator import Emulator, demo
from pvemcp_server import telemetry
from pvemcp_server.errors import ConfigError
from pvemcp_server.telemetry import exporters, otlp
from pvemcp_server.telemetry.exporters import _signals, monitored
from pvemcp_server.telemetry.figures import FIGURES, Kind

pytestmark = pytest.mark.anyio
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = PARENT.replace(TRACE, "1" * 32)
ACCEPT = {"Accept": "application/json, text/event-stream"}
CLIENT = {"name": "canary", "version": "1"}
BEGIN = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": CLIENT}
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": BEGIN}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@asynccontextmanager
async def exporting(served):
    """Export to memory; yield the exporter of spans and the reader of metrics."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for this start only
            patch.setattr(otlp, "OTLPSpanExporter", lambda: spans)
            patch.setattr(otlp, "BatchSpanProcessor", SimpleSpanProcessor)
            patch.setattr(otlp, "OTLPMetricExporter", lambda: None)
            patch.setattr(otlp, "PeriodicExportingMetricReader", lambda _: reader)
            monitoring = monitored(served.app.asgi, served.app.endpoint, None, ENDPOINT)
            await stack.enter_async_context(monitoring)
        yield spans, reader


@pytest.fixture(scope="module")
async def lab(anyio_backend, tmp_path_factory, serve_demo):
    """Serve the demo clusters, exported to memory."""
    folder = tmp_path_factory.mktemp("otlp") / "state"
    async with (
        Emulator(demo()) as pve,
        serve_demo(folder, pve) as served,
        exporting(served) as (spans, reader),
    ):
        yield served, spans, reader


@pytest.fixture
def traced(lab):
    """Return the server, and a function that returns the new spans: calls, and requests."""
    served, exporter, _ = lab
    exporter.clear()

    def spans():
        finished = exporter.get_finished_spans()
        kinds = (SpanKind.SERVER, SpanKind.CLIENT)
        return tuple([span for span in finished if span.kind is kind] for kind in kinds)

    return served, spans


async def test_a_call_has_a_span_with_one_below_for_each_request(traced):
    served, spans = traced
    await served.modern.call("ListTasks", cluster_name="prod")
    (call,), requests = spans()
    assert call.name == "tools/call ListTasks"
    assert call.attributes["pvemcp.outcome"] == "ok"
    assert call.attributes["pvemcp.clusters"] == ("prod",)
    entries = await served.recorded()
    assert call.attributes["pvemcp.call_id"] == entries[-1].call_id
    assert {span.name for span in requests} == {
        "GET /cluster/resources",
        "GET /nodes/{node}/tasks",
    }
    for span in requests:
        assert span.parent.span_id == call.context.span_id
        assert span.attributes["http.response.status_code"] == 200
        assert call.start_time <= span.start_time <= span.end_time <= call.end_time


@pytest.mark.parametrize(
    ("meta", "headers", "trace"),
    [
        ({"traceparent": PARENT}, {}, TRACE),
        ({}, {"traceparent": PARENT}, TRACE),
        ({"traceparent": PARENT}, {"traceparent": OTHER}, TRACE),
        ({"traceparent": "nonsense"}, {"traceparent": PARENT}, TRACE),
        ({"traceparent": 7}, {}, None),
        ({}, {}, None),
    ],
    ids=["meta", "header", "both", "malformed", "no text", "none"],
)
async def test_a_call_continues_the_trace_of_its_client(traced, meta, headers, trace):
    served, spans = traced
    params = {"name": "ListClusters", "arguments": {}, "_meta": meta}
    await served.modern.send("tools/call", params, **headers)
    (call,), _ = spans()
    assert (f"{call.context.trace_id:032x}" == TRACE) is (trace is not None)


async def test_a_failed_call_has_no_text_of_its_error_in_the_span(traced):
    served, spans = traced
    await served.modern.call("GetVmConfig", cluster_name="prod", vmid=424242)
    await served.modern.call("CanaryTool", a="canary")
    (failed, unknown), _ = spans()
    assert failed.attributes["error.type"] == "error"
    assert failed.status.status_code is StatusCode.ERROR
    assert unknown.name == "tools/call"
    for span in (failed, unknown):
        assert span.status.description is None
        assert span.events == ()
        assert "424242" not in span.to_json()
        assert "anary" not in span.to_json()


async def test_no_method_of_a_clients_own_invention_is_in_a_span(traced):
    served, spans = traced
    await served.modern.send("canary/method", {"name": "canary"})
    await served.modern.send("tools/list")
    text = "".join(span.to_json() for each in spans() for span in each)
    assert "tools/list" in text
    assert "canary" not in text


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
@pytest.mark.parametrize("method", ["canary/" + "x" * 5_000, "tools/canary"], ids=["long", "short"])
async def test_no_method_of_a_client_s_own_is_kept_in_a_span(traced, version, method):
    served, spans = traced
    if version == "2025-06-18":
        unknown = {"jsonrpc": "2.0", "id": 2, "method": method, "params": {"name": "canary"}}
        opened = await served.http.post(served.mcp, json=HELLO, headers=ACCEPT)
        headers = {**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
        await served.http.post(served.mcp, json=unknown, headers=headers)
    else:
        await served.modern.send(method, {"name": "canary"})
    *_, call = spans()[0]
    assert call.name == call.attributes["mcp.method.name"] == "other"
    assert "anary" not in call.to_json()


async def test_the_methods_of_the_protocol_have_their_names_in_spans(traced):
    served, spans = traced
    for method in ("tools/list", "prompts/list", "resources/list", "tasks/get"):
        await served.modern.send(method)
    assert {"tools/list", "prompts/list", "resources/list", "tasks/get"} <= {
        span.name for span in spans()[0]
    }


async def test_no_guest_node_or_value_of_a_path_is_in_a_span(traced):
    served, spans = traced
    guests = await served.modern.call("ListVms", limit=1000)
    await served.modern.call("ListSnapshots", cluster_name="prod")
    await served.modern.call("GetAttention", cluster_name="prod")
    calls, requests = spans()
    assert len(requests) > 20
    text = "".join(span.to_json() for span in (*calls, *requests))
    assert "{vmid}" in text
    assert "web" in str(guests)
    for name in ("pve1", "pve-", "web", "local-lvm", "UPID", served.key, served.key_id):
        assert name not in text.replace("web-", "")


async def test_spans_of_other_libraries_are_not_exported(traced):
    served, spans = traced
    assert get_tracer_provider() is not served.app.endpoint.server.middleware[0].provider
    await served.modern.send("tools/list")
    (listed,), requests = spans()
    assert (listed.name, requests) == ("tools/list", [])


async def test_an_exporter_that_fails_costs_its_own_figures_only(traced, monkeypatch, caplog):
    served, spans = traced

    def fail(*_):
        raise OSError("canary")

    services = served.app.endpoint.services
    monkeypatch.setattr(services.audit, "observers", [fail, *services.audit.observers])
    monkeypatch.setattr(otlp, "shape_of", fail)
    listed = await served.modern.call("ListTasks", cluster_name="prod")
    assert not listed["result"]["isError"]
    assert "A call was not counted" in caplog.text
    assert "A request to Proxmox was not counted" in caplog.text
    (call,), _ = spans()
    assert call.attributes["pvemcp.outcome"] == "ok"


async def test_every_figure_is_an_instrument(lab):
    served, _, reader = lab
    await served.modern.call("ListNodes")
    (metrics,) = {
        each.__self__
        for each in served.app.endpoint.services.audit.observers
        if isinstance(each.__self__, otlp.Metrics)
    }
    await metrics.read()
    (exported,) = reader.get_metrics_data().resource_metrics
    found = {metric.name: metric for scope in exported.scope_metrics for metric in scope.metrics}
    absent = {figure.name for figure in FIGURES} - found.keys()
    assert absent <= {"pvemcp_database_connections", "pvemcp_database_connections_limit"}
    calls = {
        point.attributes["tool"]: point.value for point in found["pvemcp_calls"].data.data_points
    }
    assert calls["ListNodes"] >= 1
    for figure in FIGURES:
        if figure.kind is Kind.HISTOGRAM:
            (point, *_) = found[figure.name].data.data_points
            assert tuple(point.explicit_bounds) == figure.bounds
    assert exported.resource.attributes["service.name"] == "pvemcp"


@pytest.mark.parametrize(
    ("environment", "signals"),
    [
        ({}, set()),
        (ENDPOINT, {"TRACES", "METRICS"}),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, set()),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, {"TRACES"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9"}, {"METRICS"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, set()),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "", "OTEL_SDK_DISABLED": ""}, {"TRACES", "METRICS"}),
    ],
)
def test_the_standard_variables_choose_what_is_exported(environment, signals):
    assert _signals(environment) == signals


async def test_without_the_extra_the_log_names_it(served, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "pvemcp_server.telemetry.otlp")
    monkeypatch.delattr(telemetry, "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    with caplog.at_level(logging.WARNING):
        async with monitored(served.app.asgi, served.app.endpoint, None, ENDPOINT):
            assert "result" in await served.modern.call("ListThings")
    assert "pip install 'pvemcp-server[otel]'" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "authorization=Bearer canary",
        "authorization=Bearer%20canary, x-team = canary=",
        "",
        "Authorization: Bearer canary",
        "x-team canary",
        'x-team="canary"',
        "a=b,canary;c",
        "a=ü",
    ],
)
async def test_headers_that_the_sdk_would_log_are_refused_without_their_text(served, text):
    wanted = [pair for pair in text.split(",") if pair.strip()]
    environment = ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": text}
    if len(parse_env_headers(text, liberal=True)) == len(wanted):
        exporters._check_headers(environment)
        return
    with pytest.raises(ConfigError, match="OTLP_TRACES_HEADERS has to be name=value") as refused:
        async with monitored(served.app.asgi, served.app.endpoint, None, environment):
            pass
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_MAX_QUEUE_SIZE"])
async def test_a_variable_that_the_sdk_refuses_is_an_error_of_the_configuration(
    served, monkeypatch, name
):
    monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="A variable OTEL_… has a wrong value"):
        async with monitored(served.app.asgi, served.app.endpoint, None, ENDPOINT):
            pass


def test_the_environment_names_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,deployment=lab")
    assert otlp.resource().attributes["service.name"] == "pvemcp"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pve")
    attributes = otlp.resource().attributes
    assert [attributes[f"service.{name}"] for name in ("name", "version")] == ["pve", "9"]


async def test_a_collector_that_hangs_does_not_hold_the_end(monkeypatch):
    monkeypatch.setattr(otlp, "SHUTDOWN_SECONDS", 0.05)
    answers = threading.Event()
    await otlp.shut_down([answers.wait])
    assert not answers.is_set()
    answers.set()


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("GET", "/nodes/pve1/qemu/101/config", "/nodes/{node}/qemu/{vmid}/config"),
        ("GET", "/cluster/resources", "/cluster/resources"),
        ("GET", "/nodes/pve1/storage/nfs%2Fa/content", "/nodes/{node}/storage/{storage}/content"),
        ("GET", "/admin/datastore/customers/snapshots", "/admin/…"),
        ("GET", "/unknown/secret", "/unknown/…"),
    ],
)
def test_a_path_is_shown_without_its_values(method, path, shape):
    assert otlp.shape_of(method, path) == shape
