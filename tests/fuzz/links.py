"""Harnesses for what passes between `facade up` and its serving processes, in either direction.

Each harness is one direction: its first byte says which message, the rest is the message. What is taken is
written again, and read again as the same: nothing gets in that could not get out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from facade.config.settings import Settings, TrustSettings
from facade.link.cache_codec import (
    counts_in,
    flag_in,
    status_in,
    status_out,
    warm_request_in,
    warm_request_out,
    warm_result_in,
    warm_result_out,
)
from facade.link.codec import (
    authorization_in,
    authorization_out,
    authorization_request_in,
    authorization_request_out,
    manifest_request_in,
    manifest_request_out,
)
from facade.link.errors_codec import error_in, error_out
from facade.link.events_codec import event_in, event_out
from facade.link.feed_codec import (
    LENGTH_BYTES,
    Frame,
    Position,
    frame_in,
    frame_out,
    length_in,
    position_in,
    position_out,
)
from facade.link.strict import Malformed, dump, load
from facade.observability.exposition import decode, encode, lasting, merged, render
from facade.observability.health import Finding, Severity, decode_findings, encode_findings
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, ConnectionSettings, Scope
from facade.wings import (
    CacheStatus,
    ConnectionUsed,
    ControlSnapshot,
    IntegrityFailed,
    Pulled,
    Revocations,
    WarmResult,
)
from facade.workers.gather import judged
from facade.workers.order import Order, serving_settings
from facade.workers.user import WorkerUser
from tests.fuzz.harness import Harness, as_json

_DIGEST = Digest.of(b"")
_REPOSITORY = Repository.parse("org/app")
_HOST = RegistryHost.parse("registry.example")
_CONNECTION = Connection(
    "c1", _HOST, "static", 3, ConnectionSettings(ca_pem="-----BEGIN", auth_hosts=("a.example",))
)
_WORDS = [
    *(b'":', b'{"', b'"}', b"null", b"true", b"[[", b"-1", b"1e999", b'"inf"', b"NaN", b"\\ud800"),
    *(b'"kind":', b'"reason":', b'"event":', b'"at":', b'"generation":', b'"snapshot":', b",0"),
]


class Messages:
    """Messages of one direction: each a reader of bytes, a writer, and examples."""

    def __init__(
        self, kinds: Sequence[tuple[Callable[[bytes], Any], Callable[[Any], bytes], Sequence[Any]]]
    ) -> None:
        self._kinds = kinds

    def run(self, data: bytes) -> None:
        """Read one; what was taken can be written, and is the same when it is read again."""
        read, write, _ = self._kinds[(data[0] if data else 0) % len(self._kinds)]
        try:
            value = read(data[1:])
        except Malformed as error:
            assert len(str(error)) < 200, "a refusal that repeats what it was given"
            return
        again = read(write(value))
        assert _same(again, value), (again, value)

    def seeds(self) -> list[bytes]:
        """Proper messages."""
        return [
            bytes([number]) + write(value)
            for number, (_, write, values) in enumerate(self._kinds)
            for value in values
        ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Exception):
        return error_out(one) == error_out(other)  # type: ignore[arg-type]
    return bool(one == other)


def from_worker() -> Messages:
    """What the parent reads: a worker's questions and reports, and its answers for the cache."""
    return Messages(
        [
            (
                lambda data: authorization_request_in(load(data)),
                lambda value: dump(authorization_request_out(*value)),
                [
                    (
                        _CONNECTION,
                        Scope(_REPOSITORY),
                        (Challenge("bearer", {"realm": "https://a.example"}),),
                        "t1",
                    )
                ],
            ),
            (
                lambda data: manifest_request_in(load(data)),
                lambda value: dump(manifest_request_out(*value)),
                [(_HOST, _REPOSITORY, _DIGEST)],
            ),
            (
                lambda data: event_in(load(data)),
                lambda value: dump(event_out(value)),
                [
                    ConnectionUsed("c1", 1.7e9, "no"),
                    Pulled(
                        *(1.7e9, "dev/kiosk-7", str(_HOST), str(_REPOSITORY), str(_DIGEST)),
                        *("manifest", "refused", Reason.NOT_SIGNED, 5, "hit"),
                    ),
                    IntegrityFailed(1.7e9, str(_HOST), str(_REPOSITORY), str(_DIGEST), "odd"),
                ],
            ),
            (
                lambda data: warm_result_in(load(data)),
                lambda value: dump(warm_result_out(value)),
                [WarmResult(_DIGEST, 5, cached=True)],
            ),
            (
                lambda data: status_in(load(data)),
                lambda value: dump(status_out(value)),
                [CacheStatus(1, 2, None, 3, 4)],
            ),
            (lambda data: counts_in(load(data)), dump, [(1, 2)]),
            (lambda data: flag_in(load(data)), dump, [True]),
            (
                lambda data: error_in(load(data)),
                lambda value: dump(error_out(value)),
                list(_errors()),
            ),
        ]
    )


def from_parent() -> Messages:
    """What a worker reads: authorizations, snapshots, what the operator asks of the cache."""
    snapshot = ControlSnapshot(
        7,
        {_HOST: _CONNECTION},
        Revocations({("dev", "kiosk-7"): float("inf")}, frozenset({("CN=x", "1f")})),
    )
    return Messages(
        [
            (
                lambda data: authorization_in(load(data)),
                lambda value: dump(authorization_out(value)),
                [Authorization(Secret("Bearer x"), "t1", 1.7e9), Authorization(None, "")],
            ),
            (
                _frame,
                frame_out,
                [Frame(Position("e", 7), snapshot), Frame(Position("e", 7))],
            ),
            (position_in, position_out, [Position("e", 7)]),
            (
                lambda data: warm_request_in(load(data)),
                lambda value: dump(warm_request_out(value)),
                [(_CONNECTION, _REPOSITORY, _DIGEST, 5, True)],
            ),
            (
                lambda data: error_in(load(data)),
                lambda value: dump(error_out(value)),
                list(_errors()),
            ),
        ]
    )


def _frame(data: bytes) -> Frame:
    length_in(data[:LENGTH_BYTES])
    return frame_in(data[LENGTH_BYTES:])


def _errors() -> list[Exception]:
    documents: list[Mapping[str, Any]] = [
        {"kind": "Upstream", "reason": "upstream-refused", "status": 401, "retry_after": 5},
        {"kind": "Integrity", "reason": "integrity", "status": None, "retry_after": None},
        {"kind": "Denied", "reason": None, "status": None, "retry_after": "inf"},
    ]
    return [error_in({**document, "message": "No."}) for document in documents]


def samples(data: bytes) -> None:
    """What a worker counts: the page of all stays one that Prometheus reads, and as long as it was."""
    found = decode(data)
    assert decode(encode(found)).keys() == found.keys()
    honest = decode(_SAMPLES)
    for page in ([honest, found], [found, honest, found], [honest, lasting(found)]):
        text = render(merged(page)).decode()
        seen = {family.name for family in text_string_to_metric_families(text)}
        assert "facade_own" in seen


def findings(data: bytes) -> None:
    """What a worker finds wrong with itself."""
    found = decode_findings(data)
    assert decode_findings(encode_findings(found)) == found
    judged([found, ()])


def order(data: bytes) -> None:
    """What a worker is told to do; what it takes is what the parent can have said."""
    found = Order.decode(data)
    assert Order.decode(found.encode()) == found
    assert found.user is None or found.user.uid > 0


_SAMPLES = as_json(
    [
        [
            *("facade_own", "counter", "O."),
            [["facade_own_total", [["host", "a"]], 5.0], ["facade_own_created", [], 1.7e9]],
        ],
        ["facade_ready", "gauge", "R.", [["facade_ready", [], 1.0]]],
        [
            *("facade_seconds", "histogram", "S."),
            [
                ["facade_seconds_bucket", [["le", "+Inf"]], 2.0],
                ["facade_seconds_count", [], 2.0],
                ["facade_seconds_sum", [], 0.5],
            ],
        ],
    ]
)


def _order() -> bytes:
    settings = Settings(trust=TrustSettings(root=Path("/etc/facade/root.json")))
    return Order(
        index=1,
        listen_fd=5,
        control_socket=Path("/run/facade/control"),
        cache_socket=Path("/run/facade/w/1"),
        parent_uid=0,
        user=WorkerUser("facade", 990, 990),
        others=(Path("/var/lib/facade/metadata"),),
        settings=serving_settings(settings, Path("/var/lib/facade/metadata-1")),
    ).encode()


def harnesses() -> list[Harness]:
    """All of them."""
    up, down = from_worker(), from_parent()
    told = encode_findings(
        [Finding(Severity.UNREADY, "no metadata"), Finding(Severity.DEGRADED, "")]
    )
    given = _order()
    return [
        Harness("from-worker", up.run, up.seeds(), _WORDS),
        Harness("from-parent", down.run, down.seeds(), _WORDS),
        Harness(
            "samples",
            samples,
            [_SAMPLES],
            [
                b'"counter"',
                b'"gauge"',
                b'"histogram"',
                b"_total",
                b"_bucket",
                b'"le"',
                b"NaN",
                b":",
            ],
        ),
        Harness("findings", findings, [told], [b'"unready"', b'"degraded"', b"[["]),
        Harness("order", order, [given], _words_of(given), 16384),
    ]


def _words_of(line: bytes) -> list[bytes]:
    document = json.loads(line)
    return [f'"{name}":'.encode() for name in (*document, *document["settings"])]
