"""Alert rules and dashboard: they are valid, they do what they say, and they know only metrics that exist."""
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from processes import wait_for

CONFIG = pathlib.Path(__file__).resolve().parent.parent.parent / "config"
RULES = CONFIG / "prometheus" / "heirflow.rules.yml"
CASES = CONFIG / "prometheus" / "heirflow.rules.test.yml"
DASHBOARD = CONFIG / "grafana" / "heirflow.json"


@pytest.fixture
def promtool():
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")

    def run(*arguments):
        result = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=CASES.parent)
        return result.returncode, result.stdout + result.stderr
    return run


def names(text):
    return set(re.findall(r"\bheirflow_\w+", text))


def alerts():
    return re.findall(r"- alert: (\w+)\n\s+expr: (.*(?:\n {10,}.*)*)", RULES.read_text())


@pytest.fixture
def metrics(node, database):
    ada = node("ada", database=database, rabbitmq=type("Nowhere", (), {"url": "amqp://a:b@127.0.0.1:1/"}))
    wait_for(lambda: ada.metric("heirflow_members") == 1, 20, lambda: "all metrics\n" + ada.log())
    return set(re.findall(r"^(heirflow_\w+)\{", ada.get("/metrics").text, re.MULTILINE))


def test_rules_are_valid(promtool):
    code, output = promtool("check", "rules", str(RULES))
    assert code == 0, output


def test_each_alert_fires_on_its_fault_and_not_before(promtool):
    code, output = promtool("test", "rules", str(CASES))
    assert code == 0, output
    tested = set(re.findall(r"alertname: (\w+)\n\s+eval_time: \S+\n\s+exp_alerts:\n", CASES.read_text()))
    assert tested == {name for name, _ in alerts()}


def test_an_alert_that_does_not_fire_is_noticed(promtool, folder):
    """The cases can fail: with all rules silenced, every one of them is missed."""
    rules = RULES.read_text()
    for _, expression in alerts():
        rules = rules.replace(expression, "vector(0) > 1")
    (folder / RULES.name).write_text(rules)
    (folder / CASES.name).write_text(CASES.read_text())
    code, output = promtool("test", "rules", str(folder / CASES.name))
    missed = set(re.findall(r"alertname: (\w+), time: \S+,\s+exp:\[", output))
    assert code != 0 and missed == {name for name, _ in alerts()}, output


def test_alerts_and_dashboard_know_only_metrics_that_exist(metrics):
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 10
    assert names(" ".join(asked + [dashboard["templating"]["list"][1]["query"]["query"]])) - metrics == set()
    assert names(" ".join(expression for _, expression in alerts())) - metrics == set()


def test_every_metric_is_described_and_shown_somewhere(metrics):
    manual = (CONFIG.parent / "docs" / "http.md").read_text()
    assert {name for name in metrics if name.removesuffix("_sum").removesuffix("_count") not in manual} == set()


def test_every_alert_leads_to_a_remedy():
    manual = (CONFIG.parent / "docs" / "operating.md").read_text()
    assert re.findall(r"^\| `(Heirflow\w+)` \|", manual, re.MULTILINE) == [name for name, _ in alerts()]


def test_the_dashboards_queries_are_valid(promtool, folder):
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [{"record": f"check:{i}", "expr": expression.replace("$__rate_interval", "1m").replace("$group", ".*")}
             for i, expression in enumerate(asked)]
    (folder / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, output = promtool("check", "rules", str(folder / "dashboard.yml"))
    assert code == 0, output
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
