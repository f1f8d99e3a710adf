"""Alert rules and dashboard against Debian's Prometheus, which scrapes a `facade up` that served pulls."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.crew import answered_by
from tests.support.facade_process import run
from tests.support.live import REPOSITORY, Live, live
from tests.support.prometheus import Prometheus, prometheus
from tests.support.redis_server import redis_server
from tests.support.traffic import CACHE_ENV, UNSIGNED, Tally, Traffic, scrape

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "facade.rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "facade.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "facade.json"
GUIDE = DEPLOY / "guides" / "operations.md"

EMPTY = {
    "Times a registry was given up": "no registry limits us often enough",
    "Requests that registries allow": "the registry announces no budget",
}
"""Panels that show nothing after ordinary pulls, and why."""

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


WORKERS = 2
COUNTED: Mapping[str, tuple[str, ...]] = {
    "requests_total": ("route", "status"),
    "refusals_total": ("reason",),
    "sent_bytes_total": ("host",),
    "fetched_bytes_total": ("host",),
    "cache_requests_total": ("host", "outcome"),
    "request_duration_seconds_bucket": ("le", "route"),
    "time_to_first_byte_seconds_bucket": ("le", "route"),
    "upstream_requests_total": ("host", "status"),
    "upstream_latency_seconds_bucket": ("host", "le"),
    "upstream_retries_total": ("host", "why"),
    "token_exchanges_total": ("outcome", "provider"),
    "token_expiry_seconds": ("host",),
    "metadata_expiry_seconds": ("role",),
    "certificate_expiry_seconds": ("certificate",),
    "handshakes_total": (),
    "handshake_failures_total": ("reason",),
    "cache_bytes": (),
    "cache_evicted_bytes_total": (),
    "cache_evicted_objects_total": (),
    "integrity_failures_total": ("host",),
    "event_loop_lag_seconds_bucket": ("le",),
    "device_rate_waits_total": ("limit",),
    "connections": (),
}
"""What interface.md promises to count, and by what; `WHILE` has what is counted only meanwhile."""
WHILE = ("transfers_in_flight", "streams_in_flight")


async def hurry(it: Live) -> None:
    """More requests on one connection than a device may make at once."""
    path = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}/manifests/{UNSIGNED}"
    async with it.connected() as session:
        for _ in range(40):
            async with session.get(path) as answer:
                await answer.read()


@dataclass(frozen=True)
class Watched:
    """A facade of two workers with some history, the Prometheus that saw it, and what devices saw."""

    it: Live
    prometheus: Prometheus
    tally: Tally


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    async with redis_server(folder / "redis") as redis:
        env = {
            **CACHE_ENV,
            "FACADE_REDIS__URL": redis.url,
            "FACADE_DEVICE__WORKERS": str(WORKERS),
            "FACADE_DEVICE__LIMITS__REQUESTS_PER_SECOND": "3",  # and 32 at once, of each worker
        }
        async with (
            live(folder, env=env) as it,
            prometheus(
                folder / "own", it.facade.metrics.removeprefix("http://"), rules=RULES
            ) as it_saw,
        ):
            await it_saw.until("facade_ready")
            traffic = Traffic(it)
            await traffic.everything()
            await it_saw.until("facade_cache_evicted_objects_total > 0")
            await hurry(it)
            await it_saw.until("facade_device_rate_waits_total > 0")
            await asyncio.sleep(2)  # two more scrapes, so that rates have their samples
            yield Watched(it, it_saw, traffic.tally)


def alerts() -> list[str]:
    """The alerts' names, in order."""
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def panels() -> Iterator[tuple[str, str]]:
    """(title, expression) of the dashboard, as Grafana would send it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in (
                ("$job", ".+"),
                ("$instance", ".+"),
                ("$__rate_interval", "1m"),
                ("$__range", "5m"),
            ):
                expression = expression.replace(name, value)
            yield panel["title"], expression


async def test_promtool_takes_the_rules_and_the_example_configuration() -> None:
    for command in (
        ("check", "rules", RULES),
        ("check", "config", RULES.with_name("prometheus.yml")),
    ):
        checked = await run("promtool", *command)
        assert checked.code == 0, checked


async def test_each_alert_fires_when_it_should_and_not_short_of_that() -> None:
    tested = await run("promtool", "test", "rules", RULE_TESTS)
    assert tested.code == 0, tested.stdout + tested.stderr
    text = RULE_TESTS.read_text()
    assert sorted(alerts()) == sorted(set(alerts()))
    for alert in alerts():
        fires, quiet = (
            len(re.findall(rf"alertname: {alert}\n        exp_alerts:{end}", text))
            for end in (r"\n", r" \[\]")
        )
        assert (fires, quiet) == (1, 1), alert


async def test_each_alert_has_its_part_of_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", GUIDE.read_text(), re.MULTILINE)
    assert headings == alerts()
    anchors = re.findall(r"operations\.md#(\w+)", RULES.read_text())
    assert anchors == [alert.lower() for alert in alerts()]


async def test_prometheus_scrapes_all_of_it(watched: Watched) -> None:
    (target,) = (await watched.prometheus.get("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    names = set(await watched.prometheus.get("label/__name__/values"))
    assert {name for name in await scrape(watched.it) if not name.endswith("_created")} <= names


@pytest.mark.parametrize("name", COUNTED)
async def test_what_the_interface_promises_is_counted(watched: Watched, name: str) -> None:
    """By those labels, and more than nothing: what the workers counted, and not the parent alone."""
    own = {"__name__", "instance", "job"}
    found = await watched.prometheus.query(f"max_over_time(facade_{name}[10m]) > 0")
    assert found, name
    for series in found:
        assert tuple(sorted(series["metric"].keys() - own)) == COUNTED[name]


async def test_both_workers_served_and_nothing_is_missing_in_their_sum(watched: Watched) -> None:
    assert answered_by(watched.it.facade) == set(range(WORKERS))
    tally = watched.tally
    now = await scrape(watched.it)
    for status, cut in ((200, tally.cut), (502, 0)):  # what is cut has had its status
        labels = (("route", "blobs"), ("status", str(status)))
        counted = now["facade_requests_total"].get(labels, 0)
        assert counted == tally.count("blobs", status) + cut
    [(_, sent)] = now["facade_sent_bytes_total"].items()
    assert sent >= tally.body_bytes
    # A worker that has seen the wrong bytes refuses them; the other one has to see them first.
    assert sum(now["facade_integrity_failures_total"].values()) == tally.cut in (1, 2)
    for name in WHILE:
        assert sum(tally.during[f"facade_{name}"].values()) > 0


async def test_every_expression_of_the_dashboard_gives_data(watched: Watched) -> None:
    seen = 0
    for title, expression in panels():
        found = await watched.prometheus.query(expression)
        if not found and title in EMPTY:
            continue
        assert found, f"{title}: {expression}"
        assert any(item["value"][1] != "NaN" for item in found), f"{title}: {expression}"
        seen += 1
    assert seen > 40


async def test_the_dashboard_shows_every_family(watched: Watched) -> None:
    shown = " ".join(expression for _, expression in panels())
    unseen = {"facade_process_virtual_memory_bytes"}  # address space says nothing
    for name in await scrape(watched.it):
        family = re.sub(r"_(count|sum|bucket|created)$", "", name)
        if not name.endswith("_created") and family not in unseen:
            assert family in shown, family


async def test_the_dashboards_variables_find_job_and_instance(watched: Watched) -> None:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "job", "instance"]
    series = await watched.prometheus.get("series", **{"match[]": "facade_ready"})
    assert series[0]["job"] == "facade"
    assert series[0]["instance"] in watched.it.facade.metrics


async def test_rules_are_evaluated_and_wrong_bytes_have_raised_the_alarm(watched: Watched) -> None:
    groups = (await watched.prometheus.get("rules"))["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(alerts())
    assert {rule["name"] for rule in rules if rule["health"] != "ok"} == set()
    firing = await watched.prometheus.until('ALERTS{alertname="FacadeIntegrityFailure"}')
    assert firing[0]["metric"]["host"] == watched.it.host
    assert firing[0]["metric"]["severity"] == "critical"


async def test_a_facade_that_is_gone_is_noticed(watched: Watched) -> None:
    """Last: it stops the facade."""
    await watched.it.facade.stop()
    await watched.prometheus.until('ALERTS{alertname="FacadeDown"}')
