"""What doctor makes of `/readyz` and `/metrics`; the answers are the product's own renderings."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facade.cli import running
from facade.cli.running import DAY, Figures, Finding, read_figures
from facade.errors import Unavailable
from facade.observability.metrics import Metrics
from facade.observability.worker_counts import WorkerCounts
from tests.support.clock import FakeClock
from tests.support.operator_server import CommandLine

URL = "http://127.0.0.1:9464"
GIB = 1024**3


class View:
    """Roles that end in so many seconds."""

    def __init__(self, clock: FakeClock, **left: float) -> None:
        self.expires = {role: clock.time() + seconds for role, seconds in left.items()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock)


def figures(metrics: Metrics) -> Figures:
    return read_figures(metrics.render(), URL)


def statuses(found: Iterator[Finding]) -> dict[str, str]:
    return {finding.status: finding.message for finding in found}


def test_readiness_that_is_well() -> None:
    [found] = running.readiness(200, b'{"status":"ok","reasons":[]}')
    assert (found.status, found.message) == ("ok", "it says ok")


@pytest.mark.parametrize(
    ("verdict", "reason", "status", "advice"),
    [
        ("degraded", "Redis at localhost:1 does not answer", "warning", "bring Redis back"),
        ("degraded", "plain http to a.example", "warning", "--insecure"),
        ("degraded", "the cache's folder cannot be written (X)", "warning", "make room"),
        (
            "degraded",
            "The cache's index cannot be used: X",
            "warning",
            "made anew within half a minute",
        ),
        ("degraded", "worker 1: it does not answer", "warning", "worker_ended"),
        ("degraded", "The CRL of CN=x is overdue.", "warning", "newest list"),
        ("unready", "metadata-expired: timestamp has expired", "failed", "facade trust status"),
        ("unready", "clock-set-back: by 40 s", "failed", "timedatectl"),
        ("unready", "deny list too old: for 20 min", "failed", "restart facade up"),
    ],
)
def test_each_reason_says_what_to_do(verdict: str, reason: str, status: str, advice: str) -> None:
    body = json.dumps({"status": verdict, "reasons": [reason]}).encode()
    [found] = running.readiness(503, body)
    assert found.status == status
    assert reason in found.message
    assert advice in found.message


def test_of_several_reasons_the_first_is_what_stops_it() -> None:
    body = b'{"status":"unready","reasons":["draining","plain http to a.example"]}'
    assert [found.status for found in running.readiness(503, body)] == ["failed", "warning"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status":"ok"}', b'{"reasons":3}'])
def test_another_program_on_the_port_is_no_facade(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not as a facade"):
        list(running.readiness(200, body))
    with pytest.raises(Unavailable, match="not as a facade"):
        read_figures(b"\xff{{{", URL)


@pytest.mark.parametrize(
    ("serving", "ended", "status"),
    [(2, 0, "ok"), (2, 3, "warning"), (1, 1, "warning"), (0, 2, "failed")],
)
def test_workers(metrics: Metrics, serving: int, ended: int, status: str) -> None:
    counts = WorkerCounts(metrics.registry, ready=lambda: serving, configured=2, reasons=("ended",))
    for _ in range(ended):
        counts.worker_restarted("ended")
    [found] = running.workers(figures(metrics))
    assert found.status == status
    assert f"{serving} of 2 serve" in found.message
    assert ("worker_ended" in found.message) == bool(ended)


def test_a_registry_that_is_given_up(metrics: Metrics) -> None:
    metrics.overload.watch_upstream(lambda: {"a.example": True, "b.example": False}, dict)
    [found] = running.upstream(figures(metrics))
    assert found.status == "warning"
    assert "facade registry test a.example" in found.message
    metrics.overload.watch_upstream(lambda: {"b.example": False}, dict)
    assert [found.status for found in running.upstream(figures(metrics))] == ["ok"]


@pytest.mark.parametrize(
    ("role", "left", "status", "words"),
    [
        ("timestamp", 7 * 3600, "ok", "ends in 7 h"),
        ("timestamp", 5 * 3600, "warning", "metadata_resign_failed"),
        ("timestamp", -60, "failed", "ended 1 min ago"),
        ("snapshot", 1.5 * DAY, "warning", "metadata_resign_failed"),
        ("root", 44 * DAY, "warning", "facade trust renew"),
        ("kiosks", 13 * DAY, "warning", "metadata_resign_failed"),
        ("kiosks", 15 * DAY, "ok", "kiosks is next"),
    ],
)
def test_metadata(
    clock: FakeClock, metrics: Metrics, role: str, left: float, status: str, words: str
) -> None:
    metrics.refreshed(View(clock, **{role: left}))
    [found] = running.metadata(figures(metrics))
    assert found.status == status
    assert words in found.message


def test_no_metadata_at_all(metrics: Metrics) -> None:
    assert [found.status for found in running.metadata(figures(metrics))] == ["failed"]


@pytest.mark.parametrize(
    ("name", "left", "status"),
    [
        ("server", 15 * DAY, "ok"),
        ("server", 13 * DAY, "warning"),
        ("server", 0, "failed"),
        ("device-ca:x.pem", 89 * DAY, "warning"),
        ("device-ca:x.pem", 91 * DAY, "ok"),
        ("crl:x.crl", 60, "ok"),
        ("crl:x.crl", -60, "warning"),
    ],
)
def test_certificates(
    clock: FakeClock, metrics: Metrics, name: str, left: float, status: str
) -> None:
    metrics.watch_certificates(lambda: {name: clock.time() + left})
    [found] = running.certificates(figures(metrics))
    assert found.status == status
    assert name in found.message


@pytest.mark.parametrize(("free", "status"), [(2 * GIB, "ok"), (GIB - 1, "warning")])
def test_the_caches_disk(metrics: Metrics, free: int, status: str) -> None:
    metrics.watch_store(lambda: 10 * GIB, lambda: free)
    metrics.watch_cache(lambda: 1, lambda: 5)
    found = statuses(running.cache_disk(figures(metrics)))
    assert set(found) == {status}
    assert "10.0 GiB" in found[status]


def test_nothing_answers(alone: CommandLine, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is facade up running"):
        list(running.examine("http://127.0.0.1:1"))


def test_an_empty_port_is_a_finding_beside_the_others(facade: CommandLine, tmp_path: Path) -> None:
    """FACADE_URL is this folder's own: then its metrics port is asked too."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "api-key").write_text("x")
    (state / "api-key").chmod(0o600)
    (state / "url").write_text(facade.environ["FACADE_URL"] + "\n")
    (state / "metrics-url").write_text("http://127.0.0.1:1\n")
    checks = {
        check["check"]: check["status"]
        for check in json.loads(facade("doctor", "--json").stdout)["checks"]
    }
    assert checks["readiness"] == "failed"
    assert checks["connections"] == "warning"


MISTAKES: dict[str, Callable[[Path], None]] = {
    "holds no facade": lambda state: (state / "api-key").unlink(),
    "others can look into": lambda state: state.chmod(0o755),
    "others can read": lambda state: (state / "api-key").chmod(0o640),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_state_folder_that_is_none_or_open(
    alone: CommandLine, tmp_path: Path, words: str
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "api-key").write_text("x")
    (state / "api-key").chmod(0o600)
    assert "is private" in alone("doctor").stdout
    MISTAKES[words](state)
    ran = alone("doctor")
    assert ran.code == 1
    assert f"failed   state folder: {words}" in ran.stdout.replace(f"{state} ", "")
