"""What is delivered for Prometheus and Grafana: rules, dashboard and page name what the code tells, and promtool, which
is Prometheus' own, takes all of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from faxbot import metrics, wiring
from faxbot.metrics import HISTOGRAM, METRICS
from tests.debian import NoPackages
from tests.installation import Installation
from tests.prometheus.packages import PROMETHEUS, Tree, store

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/faxbot.rules.yml"
EXAMPLE = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/faxbot.json"
PAGE = ROOT / "docs/metrics.md"
TOLD = {
    *(name for name, metric in METRICS.items() if metric.kind != HISTOGRAM),
    *(
        f"{name}_{part}"
        for name, metric in METRICS.items()
        if metric.kind == HISTOGRAM
        for part in ("bucket", "sum", "count")
    ),
}
"""The series that Prometheus gets."""
_OF_PROMETHEUS = {"job", "instance", "le"}


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Fetched by whoever is first (2 s)."""
    try:
        tree: Tree = store().fetch()
    except NoPackages as error:
        pytest.skip(f"{PROMETHEUS.not_tested}: {error}")
    return tree.promtool


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def asked_for() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_rules_and_dashboard_ask_for_what_is_told_by_labels_that_it_has() -> None:
    for where, query in asked_for():
        names = re.findall(r"faxbot_\w+", query)
        assert names, where
        assert set(names) <= TOLD, where
        known = set(_OF_PROMETHEUS)
        for name in names:
            base = re.sub("_(bucket|sum|count)$", "", name) if name not in METRICS else name
            known |= set(METRICS[base].labels)
            for labels in re.findall(rf"{name}{{(.*?)}}", query):
                assert set(re.findall(r"(\w+)(?:=|!)", labels)) <= {*METRICS[base].labels, "job"}, (
                    where
                )
        for labels in re.findall(r"by \((.*?)\)", query):
            assert set(labels.split(", ")) <= known, where


def test_of_counters_the_largest_is_taken_label_by_label() -> None:
    """Of fewer labels than the metric has, one provider's figure would stand in the place of all of theirs."""
    counted = re.compile(r"max(?: by \((.*?)\) )?\((?:increase|rate)\((faxbot_\w+)(?:{(.*?)})?\[")
    for where, query in asked_for():
        plain = re.sub(r"\( ", "(", " ".join(query.split()))
        found = counted.findall(plain)
        assert len(found) == len(re.findall(r"increase|rate\(", plain)), where
        for kept, name, chosen in found:
            base = name if name in METRICS else name.removesuffix("_bucket")
            its = {*METRICS[base].labels, *({"le"} if METRICS[base].kind == HISTOGRAM else ())}
            fixed = re.findall(r'(\w+)="', chosen)
            assert its <= {*kept.split(", "), *fixed}, where


def test_what_is_told_is_on_the_dashboard() -> None:
    shown = DASHBOARD.read_text()

    assert [name for name in METRICS if name not in shown] == []


def test_the_page_has_every_metric_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(faxbot_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.M)
    told = [
        (name, metric.kind, ", ".join(f"`{each}`" for each in metric.labels) or "-", metric.meaning)
        for name, metric in METRICS.items()
    ]

    assert rows == told
    assert set(re.findall(r"faxbot_\w+", page)) <= TOLD | set(METRICS)


def test_every_alert_has_a_paragraph_that_says_what_to_do() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)\n(?=\S)", page, re.M)

    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def run(promtool: Path, *words: str | Path, given: bytes = b"") -> str:
    """What it said; it must have been content."""
    done = subprocess.run([promtool, *words], input=given, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_promtool_takes_the_rules_and_the_example(promtool: Path) -> None:
    assert f"{len(alerts())} rules found" in run(promtool, "check", "rules", RULES)
    run(promtool, "check", "config", EXAMPLE)


def test_each_alert_is_raised_by_what_it_is_about_and_by_nothing_else(promtool: Path) -> None:
    tests = ROOT / "tests/prometheus/rules.yml"
    run(promtool, "test", "rules", tests)

    assert [rule["alert"] for rule in alerts() if rule["alert"] not in tests.read_text()] == []


def test_promtool_takes_the_queries_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    queries = [
        query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$provider", ".*")
        for _, query in asked_for()
    ]
    rules = [{"record": f"asked:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "asked.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))

    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", file)


def test_promtool_takes_what_a_server_tells(promtool: Path, embedded: Installation) -> None:
    runtime = wiring.build(embedded.config())
    text = metrics.exposition(runtime)
    runtime.close()

    assert text.count(b"# TYPE faxbot_") == len(METRICS)
    assert run(promtool, "check", "metrics", given=text) == ""
    # It does look: a name that breaks the rules is named.
    wrong = subprocess.run(
        [promtool, "check", "metrics"],
        input=b"# HELP x y\n# TYPE x counter\nx 1\n",
        capture_output=True,
        check=False,
    )
    assert b"_total" in wrong.stdout + wrong.stderr
