"""What a running facade says of itself on its metrics port, as findings that say what to do.

Guarantees: asks `/readyz` and `/metrics` once each, with bounds on time and bytes; an answer that is none is a
finding, no crash. What keeps the facade from serving is "failed", what will do so or wants a look is a
"warning". Thresholds are those of the alert rules in `deploy/prometheus`.
"""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from facade.cli.output import size
from facade.errors import Unavailable

ASK_SECONDS = 10.0
"""It asks its workers for two seconds at most; a scrape's patience is about ten."""
MAX_BYTES = 16 * 1024 * 1024
DAY = 24 * 3600
WARN_FREE_BYTES = 1024**3
"""Of a disk (FacadeCacheDiskFull)."""
_ROLE_SECONDS = {
    "timestamp": DAY // 4,
    "snapshot": 2 * DAY,
    "root": 45 * DAY,
    "targets": 45 * DAY,
}
_FLEET_SECONDS = 14 * DAY
_SERVER_SECONDS = 14 * DAY
_CA_SECONDS = 90 * DAY

_ADVICE = (
    ("metadata-", "see: facade trust status; the control side signs at its start"),
    ("clock-set-back", "set the clock right (timedatectl)"),
    ("the server certificate", "replace it (device.server_cert), or restart facade up"),
    ("draining", "it was told to stop and finishes its pulls"),
    ("deny list", "restart facade up and look at its log"),
    ("the control side", "restart facade up and look at its log"),
    ("revocations", "make room for facade.db and leave it running: it tries again by itself"),
    (
        "plain http",
        "meant for tests: facade registry show HOST; connect it again without --insecure",
    ),
    (
        "the cache's folder",
        "make room on its disk, or let the facade's user write it; it is tried again by itself",
    ),
    (
        "the cache's index",
        "a damaged one is made anew within half a minute, a locked one heals; else look at the disk",
    ),
    ("redis", "bring Redis back, or check redis.url; it is used again by itself"),
    ("worker", "look for worker_ended in the log; one that hangs is replaced by itself"),
    ("it is being replaced", "look for worker_ended in the log"),
    ("it does not answer", "its processes hang: look at the log, then restart facade up"),
    ("the crl of", "fetch the CA's newest list into the file that device.ca names"),
)
"""What to do, by how a reason of `/readyz` begins."""

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The samples of a `/metrics` answer."""

    samples: Sequence[tuple[str, Mapping[str, str], float]]

    def one(self, name: str) -> float | None:
        """The sum over all labels of `facade_NAME`, None when there is no such sample."""
        found = [value for sample, _, value in self.samples if sample == f"facade_{name}"]
        return sum(found) if found else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """`facade_NAME` by the values of one label."""
        return {
            labels[label]: value
            for sample, labels, value in self.samples
            if sample == f"facade_{name}" and label in labels
        }


def examine(url: str) -> Iterator[Finding]:
    """Ask the facade whose metrics port is at `url`, like http://127.0.0.1:9464.

    Raises Unavailable when nothing answers there as a facade does.
    """
    yield from readiness(*_get(url, "/readyz"))
    figures = read_figures(_get(url, "/metrics")[1], url)
    checks: Sequence[Callable[[Figures], Iterator[Finding]]] = (
        workers,
        upstream,
        metadata,
        certificates,
        cache_disk,
    )
    for check in checks:
        yield from check(figures)


def readiness(status: int, body: bytes) -> Iterator[Finding]:
    """What `/readyz` answered. Raises Unavailable when it is no such answer."""
    try:
        said: Any = json.loads(body)
        verdict, reasons = str(said["status"]), [str(reason) for reason in said["reasons"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unavailable(f"/readyz answered {status}, but not as a facade does.") from error
    if not reasons:
        ready = verdict == "ok"
        yield Finding("readiness", "ok" if ready else "failed", f"it says {verdict}")
    for place, reason in enumerate(reasons):
        # The worst comes first; behind it may stand what alone would not keep a node from serving.
        stops = verdict == "unready" and place == 0
        words = f"it {'cannot serve' if stops else 'is degraded'}: {reason}"
        yield Finding("readiness", "failed" if stops else "warning", _with_advice(words, reason))


def _with_advice(words: str, reason: str) -> str:
    advice = next((do for begin, do in _ADVICE if reason.lower().startswith(begin)), None)
    return words if advice is None else f"{words} ({advice})"


def read_figures(body: bytes, url: str) -> Figures:
    """Parse a `/metrics` answer. Raises Unavailable."""
    # Not at the top: other commands need no parser of metrics.
    from prometheus_client.parser import text_string_to_metric_families

    try:
        return Figures(
            [
                (sample.name, sample.labels, sample.value)
                for family in text_string_to_metric_families(body.decode())
                for sample in family.samples
            ]
        )
    except ValueError as error:  # a wrong encoding is one too
        raise Unavailable(f"{url}/metrics answered, but not as a facade does.") from error


def workers(figures: Figures) -> Iterator[Finding]:
    """Whether all serving processes serve, and whether some had to be replaced."""
    configured, serving = figures.one("workers_configured"), figures.one("workers")
    if configured is None or serving is None:
        yield Finding("workers", "ok", "serves in its own process (device.workers = 0)")
        return
    ended = int(figures.one("worker_restarts_total") or 0)
    words = f"{serving:.0f} of {configured:.0f} serve"
    if ended:
        words += f"; {ended} were replaced since the start (worker_ended in the log says how)"
    missing = serving < configured
    if missing:
        words += "; the missing are started again by themselves: if they stay away, see the log"
    status: Status = "failed" if not serving else "warning" if missing or ended else "ok"
    yield Finding("workers", status, words)


def upstream(figures: Figures) -> Iterator[Finding]:
    """Which registries are given up for now."""
    circuits = figures.by("upstream_circuit_open", "host")
    given_up = sorted(host for host, is_open in circuits.items() if is_open)
    for host in given_up:
        words = (
            f"{host} is given up until a probe succeeds (upstream_circuit_opened in the log says why); "
            f"cached content is served. Try: facade registry test {host}"
        )
        yield Finding("upstream", "warning", words)
    if not given_up:
        yield Finding("upstream", "ok", f"no registry is given up ({len(circuits)} spoken to)")


def metadata(figures: Figures) -> Iterator[Finding]:
    """When the signed metadata ends that devices are served by."""
    ends = figures.by("metadata_expiry_seconds", "role")
    if not ends:
        yield Finding("metadata in use", "failed", "none: nothing can be served; see readiness")
        return
    late = {role: left for role, left in ends.items() if left < _bound(role)}
    for role, left in sorted(late.items(), key=lambda item: item[1]):
        status: Status = "failed" if left <= 0 else "warning"
        yield Finding("metadata in use", status, f"{role} {_until(left)}; {_sign(role)}")
    if not late:
        role = min(ends, key=lambda each: ends[each])
        yield Finding("metadata in use", "ok", f"valid; {role} is next, it {_until(ends[role])}")


def _bound(role: str) -> int:
    return _ROLE_SECONDS.get(role, _FLEET_SECONDS)


def _sign(role: str) -> str:
    if role in ("root", "targets"):
        return "renew it with the offline keys: facade trust renew --offline-keys DIR"
    return "the control side signs it while it runs: metadata_resign_failed in the log says why not"


def certificates(figures: Figures) -> Iterator[Finding]:
    """When the certificates and revocation lists end that the device port uses now."""
    ends = figures.by("certificate_expiry_seconds", "certificate")
    late = {name: left for name, left in ends.items() if left < _margin(name)}
    for name, left in sorted(late.items(), key=lambda item: item[1]):
        stops = left <= 0 and not name.startswith("crl:")
        words = f"{name} {_until(left)}; {_renewal(name)}"
        yield Finding("certificates in use", "failed" if stops else "warning", words)
    if ends and not late:
        name = min(ends, key=lambda each: ends[each])
        yield Finding("certificates in use", "ok", f"{name} is next, it {_until(ends[name])}")


def _margin(name: str) -> int:
    if name.startswith("crl:"):
        return 0
    return _SERVER_SECONDS if name == "server" else _CA_SECONDS


def _renewal(name: str) -> str:
    if name == "server":
        return "replace its files, or restart facade up if it made them"
    if name.startswith("crl:"):
        return "fetch the CA's newest list into that file"
    return "renew devices from a new CA, both in device.ca meanwhile"


def cache_disk(figures: Figures) -> Iterator[Finding]:
    """Whether the cache's disk has room, and what was evicted."""
    free, limit = figures.one("cache_disk_free_bytes"), figures.one("cache_limit_bytes")
    if free is None or limit is None:
        return
    held = int(figures.one("cache_bytes") or 0)
    words = f"{size(int(free))} are left on its disk; it holds {size(held)} of {size(int(limit))}"
    if free < WARN_FREE_BYTES:
        words += (
            "; what finds no room is passed on uncached. Make room: facade cache prune, or lower "
            "store.max_bytes"
        )
        yield Finding("cache disk", "warning", words)
    else:
        yield Finding("cache disk", "ok", words)


def _until(left: float) -> str:
    """In words, when something ends that has `left` seconds."""
    if left <= 0:
        return f"ended {_span(-left)} ago"
    return f"ends in {_span(left)}"


def _span(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 2 * DAY:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // DAY)} days"


def _get(url: str, path: str) -> tuple[int, bytes]:
    """GET; status and body. Raises Unavailable."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "127.0.0.1", parts.port, timeout=ASK_SECONDS
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"The metrics port at {url} does not answer ({type(error).__name__}): is facade up running?"
        ) from error
    finally:
        connection.close()
    if len(body) > MAX_BYTES:
        raise Unavailable(f"{url}{path} answers more than a facade does.")
    return answer.status, body
