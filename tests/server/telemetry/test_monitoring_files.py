"""The dashboard, the alert rules and the page name figures that the server has."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

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
LABELS = {label for figure in FIGURES for label in figure.labels}


def alerts() -> dict[str, str]:
    """Return the expression of each alert."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


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
    filtered = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expression))
    assert filtered <= LABELS | {"instance", "job"}


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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")
def test_prometheus_accepts_all_rules_and_queries(tmp_path):
    variables = {"$__rate_interval": "5m", "$instance": ".*", "$cluster": ".*"}
    rules = []
    for number, expression in enumerate(panels().values()):
        for name, value in variables.items():
            expression = expression.replace(name, value)
        if not expression.startswith("label_values"):
            rules.append({"record": f"panel_{number}", "expr": expression})
    queries = tmp_path / "panels.yml"
    queries.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(RULES), str(queries)],
        capture_output=True,
        text=True,
        check=False,
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
