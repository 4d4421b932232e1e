"""The dashboard, the alert rules and the page name figures that the server has."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pvemcp_server.audit import Outcome
from pvemcp_server.telemetry.figures import FIGURES, Kind

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "deploy" / "monitoring"
RULES = FOLDER / "prometheus-rules.yml"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PROCESS = {"start_time_seconds", "cpu_seconds_total", "resident_memory_bytes"}
SUFFIXES = {Kind.COUNTER: ("_total",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_count")}
NAMES = {f"process_{name}" for name in PROCESS} | {
    figure.name + suffix for figure in FIGURES for suffix in SUFFIXES[figure.kind]
}
LABELS = {
    figure.name + suffix: {*figure.labels, *({"le"} if suffix == "_bucket" else ())}
    for figure in FIGURES
    for suffix in SUFFIXES[figure.kind]
}
TARGET = {"instance", "job"}  # labels that Prometheus adds
OUTCOMES = {
    "pvemcp_calls_total": set(Outcome),
    "pvemcp_proxmox_requests_total": {
        *("ok", "refused", "failed", "node unreachable", "unreachable", "timeout", "given up"),
    },
}
SELECTOR = re.compile(r"\b((?:pvemcp_|process_|up\b)\w*)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring) *\(([^)]*)\)")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs Debian's package prometheus"
)


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def alerts() -> dict[str, str]:
    """Return the expression of each alert."""
    return {rule["alert"]: rule["expr"] for rule in rules()}


def panels() -> dict[str, str]:
    """Return the expressions of each panel, and the queries of variables."""
    queries = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }
    variables = DASHBOARD["templating"]["list"]
    return queries | {
        each["name"]: each["definition"] for each in variables if "definition" in each
    }


EXPRESSIONS = alerts() | panels()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_every_expression_names_figures_and_labels_that_exist(expression):
    named = set(re.findall(r"\b(?:pvemcp_|process_|up\b)\w*", expression))
    assert named
    assert named <= NAMES | {"up"}
    selected = [(name, filters) for name, filters in SELECTOR.findall(expression)]
    for name, filters in selected:
        assert labels_of(filters) <= LABELS.get(name, set()) | TARGET, name
    having = set().union(*(LABELS.get(name, set()) for name, _ in selected)) | TARGET
    assert {word for words in GROUPING.findall(expression) for word in words.split(", ")} <= having
    for name, values in re.findall(r"(\w+)\{[^}]*outcome[=!]~?\"([^\"]*)\"", expression):
        assert set(values.split("|")) <= OUTCOMES[name]


def labels_of(filters: str) -> set[str]:
    """Return the labels that the braces of a selector name."""
    return set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", filters))


def test_every_legend_and_text_shows_a_label_that_is_left():
    shown = [
        (target["expr"], set(re.findall(r"{{ *(\w+) *}}", target.get("legendFormat", ""))))
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]
    shown += [
        (rule["expr"], set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))))
        for rule in rules()
    ]
    for expression, labels in shown:
        aggregated = re.match(
            r"(?:\w+\()*(?:sum|max|min|count|avg|histogram_quantile)\b", expression
        )
        grouped = {word for words in GROUPING.findall(expression) for word in words.split(", ")}
        names = [name for name, _ in SELECTOR.findall(expression)]
        whole = set().union(*(LABELS.get(name, set()) for name in names)) | TARGET
        assert labels <= (grouped if aggregated else whole), expression


def test_every_figure_of_a_fault_has_an_alert_or_a_panel():
    text = "\n".join(EXPRESSIONS.values())
    assert [figure.name for figure in FIGURES if figure.name not in text] == []


def test_panels_have_their_own_ids_and_places():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@needs_promtool
def test_prometheus_accepts_all_rules_and_queries(tmp_path):
    variables = {"$__rate_interval": "5m", "$instance": ".*", "$cluster": ".*"}
    recorded = []
    for number, expression in enumerate(panels().values()):
        for name, value in variables.items():
            expression = expression.replace(name, value)
        if not expression.startswith("label_values"):
            recorded.append({"record": f"panel_{number}", "expr": expression})
    queries = tmp_path / "panels.yml"
    queries.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(RULES), str(queries)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def series(**more: str) -> str:
    """Return the labels of a series of the process `a`, as PromQL writes them."""
    labels = {"instance": "a", "job": "pvemcp", **more}
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


PROD = series(cluster="prod")
CALLS = {"tool": "ListVms", "cluster": "prod"}
FAULTS = [
    ("PvemcpDown", {f"up{series()}": "0x30"}, "pvemcp on a does not answer"),
    (
        "PvemcpAuditNotWritten",
        {f"pvemcp_audit_failing{series()}": "1x30"},
        "The audit of a cannot be written",
    ),
    (
        "PvemcpAuditBufferFilling",
        {
            f"pvemcp_audit_buffered_entries{series()}": "60x30",
            f"pvemcp_audit_buffer_limit{series()}": "100x30",
        },
        "60% of the audit's buffer on a is in use",
    ),
    (
        "PvemcpClusterSilent",
        {f"pvemcp_cluster_up{PROD}": "0x30", f"pvemcp_cluster_circuit_state{PROD}": "1x30"},
        "Cluster prod does not answer a",
    ),
    (
        "PvemcpClusterSilent",
        {f"pvemcp_cluster_up{PROD}": "1x30", f"pvemcp_cluster_circuit_state{PROD}": "2x30"},
        "Cluster prod does not answer a",
    ),
    (
        "PvemcpNodeSilent",
        {f"pvemcp_cluster_circuits_not_closed{PROD}": "3x30"},
        "3 nodes or storages of prod do not answer",
    ),
    (
        "PvemcpProxmoxFails",
        {
            f"pvemcp_proxmox_requests_total{series(cluster='prod', outcome=each)}": f"0+{rate}x30"
            for each, rate in {"ok": 50, "refused": 20, "failed": 10, "timeout": 20}.items()
        },
        "30% of the requests to prod fail",
    ),
    (
        "PvemcpCallsFail",
        {
            f"pvemcp_calls_total{series(**CALLS, outcome=outcome)}": "0+50x30"
            for outcome in ("ok", "error")
        },
        "50% of the calls on a fail",
    ),
    (
        "PvemcpReadsSlow",
        {
            f"pvemcp_call_duration_seconds_bucket{series(tool='ListVms', le=bound)}": rate
            for bound, rate in {"10": "0x30", "30": "0+60x30", "+Inf": "0+60x30"}.items()
        },
        "One read in twenty on a takes more than 29s",
    ),
    (
        "PvemcpRequestsQueue",
        {f"pvemcp_proxmox_requests_waiting{PROD}": "101x30"},
        "101 requests wait for a place on prod",
    ),
    (
        "PvemcpOpenFilesNearlyUsed",
        {f"pvemcp_open_files{series()}": "90x30", f"pvemcp_open_files_limit{series()}": "100x30"},
        "90% of the open files of a are in use",
    ),
    (
        "PvemcpSocketsNearlyUsed",
        {
            f"pvemcp_proxmox_sockets{series()}": "95x30",
            f"pvemcp_proxmox_sockets_limit{series()}": "100x30",
        },
        "95% of the sockets to clusters are in use on a",
    ),
    (
        "PvemcpDatabasePoolNearlyUsed",
        {
            f"pvemcp_database_connections{series(state='in use')}": "15x30",
            f"pvemcp_database_connections{series(state='idle')}": "1x30",
            f"pvemcp_database_connections_limit{series()}": "16x30",
        },
        "93.75% of the connections of a to PostgreSQL are in use",
    ),
    (
        "PvemcpSignInsRefused",
        {f"pvemcp_calls_total{series(tool='sign in', outcome='refused')}": "0+120x30"},
        "2 sign-ins a second are refused on a",
    ),
    (
        "PvemcpRestarts",
        {f"process_start_time_seconds{series()}": "1 2 3 4x30"},
        "pvemcp on a has started 3 times in half an hour",
    ),
]


@needs_promtool
def test_prometheus_raises_each_alert_for_its_fault_and_shows_where(tmp_path):
    known = {rule["alert"]: rule for rule in rules()}
    assert {alert for alert, _, _ in FAULTS} == known.keys()
    tests = []
    for alert, values, summary in FAULTS:
        rule = known[alert]
        shown = "cluster" if "$labels.cluster" in str(rule["annotations"]) else ""
        grouped = GROUPING.findall(rule["expr"]) and "sum" in rule["expr"]
        labels = {"instance": "a", **({} if grouped else {"job": "pvemcp"})}
        labels |= {shown: "prod"} if shown else {}
        expected = {
            "exp_labels": labels | rule["labels"],
            "exp_annotations": rule["annotations"] | {"summary": summary},
        }
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": each} for name, each in values.items()],
                "alert_rule_test": [
                    {"eval_time": "25m", "alertname": alert, "exp_alerts": [expected]}
                ],
            }
        )
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    checked = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_page_has_the_table_of_all_figures():
    script = REPOSITORY / "scripts" / "make_docs_figures.py"
    spec = importlib.util.spec_from_file_location("make_docs_figures", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text("utf-8")
    assert module.page(text) == text
