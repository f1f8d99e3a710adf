"""The loads: what is asked of each participant, and what it cost there.

Guarantees: a figure is the server's CPU time (or memory) per unit of work, with everything that
the work left behind in it; the client's share is never part of it.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from facade.oci.digest import Digest
from tests.bench.clients import ab, crowd, curl, idle_connections, skopeo
from tests.bench.cpu import cpu_seconds, pss_kib, settled_cpu_seconds
from tests.bench.stand import MIB, REPOSITORY, Participant, Stand

GB = 1e9

CACHED = ("nginx", "registry")
UNCACHED = ("nginx-proxy", "registry-proxy")
GROWN_TARGETS = 9_999
"""Beside the one that is asked for: the most that one fleet may have."""
STATIC = ("nginx", "registry")


@dataclass(frozen=True, slots=True)
class Load:
    """One thing to measure.

    Arguments:
        unit: of its figures.
        peers: with whom the facade is compared.
        measure: gives one participant's figure.
        targets: peer → at most so many times its figure.
        rounds: at most so many, for what is costly or does not vary.
    """

    name: str
    unit: str
    peers: Sequence[str]
    measure: Callable[[Stand, Participant], float]
    targets: dict[str, float]
    rounds: int = 100


def blob_loads(*, quick: bool) -> list[Load]:
    """Blobs from the cache and through it."""
    repeat = {1: 32, 64: 2, 256: 1} if quick else {1: 64, 64: 4, 256: 2}
    sizes = (1, 64) if quick else (1, 64, 256)
    loads = [
        Load(
            f"cached blob, {size} MiB",
            "CPU s/GB",
            CACHED,
            partial(_cached, size=size, repeat=repeat[size]),
            {"nginx": 0.9, "registry": 0.65},
        )
        for size in sizes
    ]
    loads += [
        Load(
            f"uncached blob, {size} MiB",
            "CPU s/GB",
            UNCACHED,
            partial(_uncached, size=size, repeat=4 if size == 1 else 1),
            {"nginx-proxy": 1.0, "registry-proxy": 0.45},
        )
        for size in sizes
    ]
    return loads


def small_loads(*, quick: bool) -> list[Load]:
    """Manifests and handshakes."""
    many, few = (1000, 150) if quick else (3000, 400)
    return [
        Load(
            "manifest, keep-alive",
            "CPU µs",
            STATIC,
            partial(_requests, count=many, keep_alive=True),
            {"registry": 0.15, "nginx": 10.0},
        ),
        Load(
            "handshake and manifest",
            "CPU µs",
            STATIC,
            partial(_requests, count=few, keep_alive=False),
            {"nginx": 1.0},
        ),
    ]


def crowd_loads(*, quick: bool) -> list[Load]:
    """Memory first, while nothing has been asked for; then many at once, and whole images."""
    clients, connections = (60, 300) if quick else (200, 1000)
    return [
        Load(
            "memory at rest, both wings in one process",
            "MiB PSS",
            (),
            lambda stand, who: pss_kib(who.pid) / 1024,
            {"bound": 110.0},
            rounds=1,
        ),
        Load(
            "idle connection",
            "KiB PSS",
            ("nginx",),
            partial(_idle, connections=connections),
            {"bound": 40.0},
            rounds=1,
        ),
        Load(
            f"stampede, {clients} clients, 16 MiB, over its parts",
            "ratio",
            (),
            partial(_stampede, clients=clients),
            {"parts": 1.1},
            rounds=3,
        ),
        Load(
            "first byte of an uncached blob, beyond the upstream's",
            "ms, wall",
            (),
            _first_byte,
            {"bound": 5.0},
        ),
        Load(
            "image of 14 layers, skopeo, cached",
            "CPU ms",
            ("registry",),
            _image,
            {},
            rounds=1 if quick else 3,
        ),
    ]


def growth_loads() -> list[Load]:
    """What more signed targets cost a request. Last: they stay."""
    return [
        Load(
            f"manifest, keep-alive, {GROWN_TARGETS + 1:,} signed targets over 1",
            "ratio",
            (),
            partial(_growth, targets=GROWN_TARGETS),
            {"bound": 1.1},
            rounds=1,
        )
    ]


def _cached(stand: Stand, who: Participant, size: int, repeat: int) -> float:
    url = who.blob(stand.blobs[size])
    curl(stand.devices[0], url)  # it is in the cache, and open, from here on
    before = settled_cpu_seconds(who.pid)
    curl(stand.devices[0], *[url] * repeat)
    return (cpu_seconds(who.pid) - before) / (repeat * size * MIB / GB)


def _uncached(stand: Stand, who: Participant, size: int, repeat: int) -> float:
    return sum(_uncached_once(stand, who, size) for _ in range(repeat)) / (repeat * size * MIB / GB)


def _uncached_once(stand: Stand, who: Participant, size: int) -> float:
    digest = stand.blobs[size]
    who.forget(digest)
    before = settled_cpu_seconds(who.pid)
    curl(stand.devices[0], who.blob(digest))
    return settled_cpu_seconds(who.pid) - before


def _requests(stand: Stand, who: Participant, count: int, *, keep_alive: bool) -> float:
    url = who.manifest(stand.manifest)
    ab(stand.devices[0], url, 20, keep_alive=keep_alive)
    before = settled_cpu_seconds(who.pid)
    ab(stand.devices[0], url, count, keep_alive=keep_alive)
    return (cpu_seconds(who.pid) - before) / count * 1e6


def _stampede(stand: Stand, who: Participant, clients: int) -> float:
    """CPU of a stampede on an uncached blob over that of its parts: one fill, and hits."""
    digest = stand.blobs[16]
    fill = _uncached_once(stand, who, 16)
    hits = _crowd(stand, who, digest, clients)
    who.forget(digest)
    fetched = stand.upstream.count("GET", str(digest))
    together = _crowd(stand, who, digest, clients)
    if (transfers := stand.upstream.count("GET", str(digest)) - fetched) != 1:
        raise RuntimeError(f"A stampede made {transfers} upstream transfers.")
    return together / (fill + hits)


def _crowd(stand: Stand, who: Participant, digest: Digest, clients: int) -> float:
    before = settled_cpu_seconds(who.pid)
    crowd(stand.devices, who.blob(digest), clients, stand.folder / "crowd.txt")
    return settled_cpu_seconds(who.pid) - before


def _idle(stand: Stand, who: Participant, connections: int) -> float:
    url = who.manifest(stand.manifest)
    with idle_connections(stand.devices, url, 20):
        pass  # what the first ones cost is not what each costs
    before = pss_kib(who.pid)
    with idle_connections(stand.devices, url, connections):
        return (pss_kib(who.pid) - before) / connections


def _first_byte(stand: Stand, who: Participant) -> float:
    digest = stand.blobs[1]
    direct = f"{stand.upstream.url}/v2/{REPOSITORY}/blobs/{digest}"
    who.forget(digest)
    seconds = curl(stand.devices[0], who.blob(digest))[0] - curl(stand.devices[0], direct)[0]
    return seconds * 1000


def _image(stand: Stand, who: Participant) -> float:
    target = stand.folder / "pulled"
    shutil.rmtree(target, ignore_errors=True)
    image = f"{who.origin}{who.root}@{stand.manifest}".removeprefix("https://").replace(
        "/v2/", "/", 1
    )
    skopeo(stand.devices[0], image, target)
    before = settled_cpu_seconds(who.pid)
    skopeo(stand.devices[0], image, target)
    return (cpu_seconds(who.pid) - before) * 1000


def _growth(stand: Stand, who: Participant, targets: int) -> float:
    """The cheapest of some measurements, with many targets over with one."""
    few = min(_requests(stand, who, 1000, keep_alive=True) for _ in range(5))
    stand.sign(targets)
    many = min(_requests(stand, who, 1000, keep_alive=True) for _ in range(5))
    return many / few
