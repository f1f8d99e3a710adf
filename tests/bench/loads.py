"""The loads: what is asked of each participant, and what it cost there.

Guarantees: a figure is the server's CPU time (or memory) per unit of work, with everything that
the work left behind in it; the client's share is never part of it.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from facade.oci.digest import Digest
from tests.bench.clients import ab, crowd, ctr, curl, idle_connections, skopeo
from tests.bench.cpu import cpu_seconds, family, own_pss_kib, pss_kib, settled_cpu_seconds
from tests.bench.stand import MIB, REPOSITORY, Participant, Stand

GB = 1e9

CACHED = ("nginx", "registry", "floor")
UNCACHED = ("nginx-proxy", "registry-proxy", "floor")
FIRST_BYTES = 7
FIRST_BYTE_TURNS = 3
SMALL_TURNS = 4
ALWAYS = 100
STATIC = ("nginx", "registry")
BUSY_CONNECTIONS = 8
BUSY_BURSTS = 6
MANIFESTS = 1900
"""With those that warm up fewer than the facade writes down of one device at once."""
WARM_MANIFESTS = 20
WARM_BURST = 2000
WARM = 6
"""So many connections meet both of two workers, but for one time in 32."""


Measure = Callable[[Stand, Sequence[Participant]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Load:
    """One thing to measure.

    Arguments:
        unit: of its figures.
        peers: with whom the facade is compared.
        measure: gives a figure for each participant of a round, who come in the order to measure them in.
        targets: peer → at most so many times its figure.
        rounds: at most so many, for what is costly or does not vary.
        root: needs to be root.
        grow: done to the facade once, before the rounds of this load: they come when all others are over,
            for what it leaves stays, for the loads after it too.
    """

    name: str
    unit: str
    peers: Sequence[str]
    measure: Measure
    targets: dict[str, float]
    rounds: int = ALWAYS
    root: bool = False
    grow: Callable[[Stand], None] | None = None

    @property
    def costly(self) -> bool:
        """Whether it is not worth repeating in every round."""
        return self.rounds < ALWAYS and self.grow is None


def each(measure: Callable[[Stand, Participant], float], turns: int = 1) -> Measure:
    """All measured by `measure`, `turns` times in the order A, B, B, A; a figure is the mean of one's own."""

    def measured(stand: Stand, whom: Sequence[Participant]) -> list[float]:
        found: list[list[float]] = [[] for _ in whom]
        for turn in range(turns):
            for index in there_and_back(len(whom), turn):
                found[index].append(measure(stand, whom[index]))
        return [statistics.mean(figures) for figures in found]

    return measured


def there_and_back(count: int, turn: int) -> Sequence[int]:
    """The order of the `turn`-th turn: what changes while they last meets the first and the last alike."""
    return range(count) if turn % 2 == 0 else range(count - 1, -1, -1)


def blob_loads(*, quick: bool) -> list[Load]:
    """Blobs from the cache and through it."""
    repeat = {1: 32, 64: 2, 256: 1} if quick else {1: 64, 64: 4, 256: 2}
    sizes = (1, 64) if quick else (1, 64, 256)
    loads = [
        Load(
            f"cached blob, {size} MiB",
            "CPU s/GB",
            CACHED,
            each(
                partial(cached, size=size, repeat=repeat[size]),
                turns=SMALL_TURNS if size == 1 else 1,
            ),
            {"nginx": 0.9, "registry": 0.65},
        )
        for size in sizes
    ]
    loads += [
        Load(
            f"uncached blob, {size} MiB",
            "CPU s/GB",
            UNCACHED,
            each(partial(_uncached, size=size)),
            {"nginx-proxy": 1.0, "registry-proxy": 0.45},
        )
        for size in sizes
        if size > 1
    ]
    loads += [
        Load(
            "uncached blobs, 8 of 1 MiB in a row",
            "CPU s/GB",
            UNCACHED,
            each(uncached_row),
            {"nginx-proxy": 1.0, "registry-proxy": 0.45},
        ),
        Load(
            "uncached blob, 1 MiB alone, with its connection",
            "CPU s/GB",
            UNCACHED,
            each(partial(_uncached, size=1)),
            {"nginx-proxy": 1.0, "registry-proxy": 0.45},
        ),
    ]
    return loads


def small_loads(*, quick: bool) -> list[Load]:
    """Manifests and handshakes."""
    many, few = (1000, 150) if quick else (MANIFESTS, 400)
    return [
        Load(
            "manifest, keep-alive",
            "CPU µs",
            STATIC,
            each(partial(requests, count=many, keep_alive=True)),
            {"registry": 0.15, "nginx": 10.0},
        ),
        Load(
            "handshake and manifest",
            "CPU µs",
            STATIC,
            each(partial(requests, count=few, keep_alive=False)),
            {"nginx": 1.0},
        ),
    ]


def crowd_loads(*, quick: bool) -> list[Load]:
    """Memory first, while nothing has been asked for; then many at once, and whole images."""
    clients, connections = (60, 300) if quick else (200, 1000)
    return [
        Load(
            "memory at rest, a serving process",
            "MiB PSS",
            (),
            each(lambda stand, who: max(map(own_pss_kib, family(who.pid)[1:])) / 1024),
            {"bound": 110.0},
            rounds=1,
        ),
        Load(
            "memory at rest, all processes",
            "MiB PSS",
            (),
            each(lambda stand, who: pss_kib(who.pid) / 1024),
            {},
            rounds=1,
        ),
        Load(
            "idle connection",
            "KiB PSS",
            ("nginx",),
            each(partial(_idle, connections=connections)),
            {"bound": 40.0},
            rounds=1,
        ),
        Load(
            f"stampede, {clients} clients, 16 MiB, over its parts",
            "ratio",
            (),
            each(partial(_stampede, clients=clients)),
            {"parts": 1.1},
            rounds=2 if quick else 3,
        ),
        Load(
            "first byte of an uncached blob, beyond the upstream's",
            "ms, wall",
            (),
            each(_first_byte, turns=FIRST_BYTE_TURNS),
            {"bound": 5.0},
        ),
    ]


def whole_loads() -> list[Load]:
    """What only whole runs measure: two workers, and images as stock clients pull them."""
    clients = 200
    return [
        Load(
            f"stampede, {clients} clients, 16 MiB, two workers, over its parts",
            "ratio",
            (),
            each(lambda stand, who: _stampede(stand, stand.two[who.name], clients)),
            {"parts": 1.1},
            rounds=3,
        ),
        Load(
            "two workers over one: manifest, keep-alive",
            "ratio",
            ("nginx",),
            each(_busy_twice),
            {"bound": 1.1},
        ),
        Load(
            "two workers over one: cached blob, 16 MiB",
            "ratio",
            ("nginx",),
            each(_blobs_twice),
            {"bound": 1.1},
        ),
        Load(
            "image of 14 layers, skopeo, cached",
            "CPU ms",
            STATIC,
            each(partial(_image, client=_by_skopeo)),
            {},
            rounds=3,
        ),
        Load(
            "image of 14 layers, ctr, cached",
            "CPU ms",
            STATIC,
            each(partial(_image, client=_by_ctr)),
            {},
            rounds=3,
            root=True,
        ),
    ]


def cached(stand: Stand, who: Participant, size: int, repeat: int, warm: int = 1) -> float:
    """CPU seconds per GB of a blob that is asked for `repeat` times on one connection, after `warm` others."""
    url = who.blob(stand.blobs[size])
    for _ in range(warm):  # connections
        curl(who.devices[0], url)  # it is in the cache, and open, from here on
    before = settled_cpu_seconds(who.pid)
    curl(who.devices[0], *[url] * repeat)
    return (cpu_seconds(who.pid) - before) / (repeat * size * MIB / GB)


def _uncached(stand: Stand, who: Participant, size: int) -> float:
    repeat = 4 if size == 1 else 1
    return sum(_uncached_once(stand, who, size) for _ in range(repeat)) / (repeat * size * MIB / GB)


def uncached_row(stand: Stand, who: Participant) -> float:
    """As an image's layers are: other blobs each time, one connection."""
    return _fetching(stand, who, stand.small) / (len(stand.small) * MIB / GB)


def _uncached_once(stand: Stand, who: Participant, size: int) -> float:
    return _fetching(stand, who, [stand.blobs[size]])


def _fetching(stand: Stand, who: Participant, digests: Sequence[Digest]) -> float:
    """CPU seconds for blobs that are not in the cache, on one connection."""
    for digest in digests:
        who.forget(digest)
    fetched = _fetches(stand, digests)
    before = settled_cpu_seconds(who.pid)
    curl(who.devices[0], *map(who.blob, digests))
    took = settled_cpu_seconds(who.pid) - before
    # docker-registry fetches each twice: for the client, and for its cache.
    if any(now == then for now, then in zip(_fetches(stand, digests), fetched, strict=True)):
        raise RuntimeError(f"{who.name} had a blob that it should have forgotten.")
    return took


def _fetches(stand: Stand, digests: Sequence[Digest]) -> list[int]:
    return [stand.upstream.count("GET", str(digest)) for digest in digests]


def requests(stand: Stand, who: Participant, count: int, *, keep_alive: bool) -> float:
    """CPU µs of a manifest, with its record, and with a handshake unless the connections are kept."""
    url = who.manifest(stand.manifest)
    device = who.recorded(WARM_MANIFESTS + count)
    ab(device, url, WARM_MANIFESTS, keep_alive=keep_alive)
    before = settled_cpu_seconds(who.pid)
    ab(device, url, count, keep_alive=keep_alive)
    return (_recorded_cpu_seconds(who) - before) / count * 1e6


def side_by_side(
    stand: Stand,
    whom: Sequence[Participant],
    *,
    bursts: int,
    connections: int,
    seconds: float = 0.0,
) -> list[float]:
    """CPU µs of a manifest on keep-alive for each of `whom`, in bursts that take turns: A, B, B, A.

    A shared machine is fast for some seconds and slow for the next; so each has its bursts among the others', and
    everything that each does from the first burst to the last record is charged to its requests.

    Arguments:
        bursts: of each, of `MANIFESTS`, each by a device that has rows left.
        connections: of each burst. Workers who share them are all met and all busy with enough of them: one that waits
            for its client finds one request at each waking, one with a queue finds several.
        seconds: spread over so many, and nothing that is done within is left out; 0 = one after the other.
    """
    # Another's to warm up with, for it uses up what is written down of one; the last, which blobs alone do not use.
    for who in whom:
        url = who.manifest(stand.manifest)
        ab(who.devices[-1], url, WARM_BURST, keep_alive=True, concurrency=2 * connections)
    devices = [[who.recorded(MANIFESTS) for who in whom] for _ in range(bursts)]
    aftermath = max(who.aftermath_seconds for who in whom)
    time.sleep(aftermath)
    before = [settled_cpu_seconds(who.pid) for who in whom]
    began = time.monotonic()
    pause = max(seconds - aftermath, 0.0) / bursts
    for burst in range(bursts):
        time.sleep(max(0.0, began + burst * pause - time.monotonic()))
        for index in there_and_back(len(whom), burst):
            device, url = devices[burst][index], whom[index].manifest(stand.manifest)
            ab(device, url, MANIFESTS, keep_alive=True, concurrency=connections)
    time.sleep(max(aftermath, began + seconds - time.monotonic()))
    after = [settled_cpu_seconds(who.pid) for who in whom]
    spent = zip(before, after, strict=True)
    return [(now - then) / (bursts * MANIFESTS) * 1e6 for then, now in spent]


def _busy_twice(stand: Stand, who: Participant) -> float:
    """What a manifest costs with two workers over what it costs with one, on one processor."""
    both = (stand.two[who.name], who)
    two, one = side_by_side(stand, both, bursts=BUSY_BURSTS, connections=BUSY_CONNECTIONS)
    return two / one


def _recorded_cpu_seconds(who: Participant) -> float:
    """With the records of thousands of requests: a third of what answering them from memory costs."""
    return settled_cpu_seconds(who.pid, aftermath_seconds=who.aftermath_seconds)


def _stampede(stand: Stand, who: Participant, clients: int) -> float:
    """CPU of a stampede on an uncached blob over that of its parts: one fill, and hits, which are measured
    before and after it.
    """
    digest = stand.blobs[16]
    fill = _uncached_once(stand, who, 16)
    before = _crowd(stand, who, digest, clients)
    who.forget(digest)
    fetched = stand.upstream.count("GET", str(digest))
    together = _crowd(stand, who, digest, clients)
    if (transfers := stand.upstream.count("GET", str(digest)) - fetched) != 1:
        raise RuntimeError(f"A stampede made {transfers} upstream transfers.")
    hits = statistics.mean([before, _crowd(stand, who, digest, clients)])
    return together / (fill + hits)


def _crowd(stand: Stand, who: Participant, digest: Digest, clients: int) -> float:
    before = settled_cpu_seconds(who.pid)
    crowd(who.devices, who.blob(digest), clients, stand.folder / "crowd.txt")
    return settled_cpu_seconds(who.pid) - before


def _idle(stand: Stand, who: Participant, connections: int) -> float:
    url = who.manifest(stand.manifest)
    with idle_connections(who.devices, url, 20):
        pass  # what the first ones cost is not what each costs
    before = pss_kib(who.pid)
    with idle_connections(who.devices, url, connections):
        return (pss_kib(who.pid) - before) / connections


def _first_byte(stand: Stand, who: Participant) -> float:
    """The median of some blobs, through the facade and directly in turn; the first one warms up.

    Each after the manifest, on its connection: with TLS 1.3 a client is done with the handshake, and sends its request,
    while the server still has to verify the client's certificate.
    """
    for digest in stand.small:
        who.forget(digest)
    upstream = f"{stand.upstream.url}/v2/{REPOSITORY}"
    through: list[float] = []
    direct: list[float] = []
    for number, digest in enumerate(stand.small[: FIRST_BYTES + 1]):
        ways = [
            (through, who.manifest(stand.manifest), who.blob(digest)),
            (direct, f"{upstream}/manifests/{stand.manifest}", f"{upstream}/blobs/{digest}"),
        ]
        for found, *urls in ways if number % 2 == 0 else reversed(ways):
            found.append(curl(who.devices[0], *urls)[-1])
    return (statistics.median(through[1:]) - statistics.median(direct[1:])) * 1000


def _blobs_twice(stand: Stand, who: Participant) -> float:
    """What a cached blob of 16 MiB costs with two workers over what it costs with one, on one processor."""
    measure = each(partial(cached, size=16, repeat=8, warm=WARM), turns=4)
    two, one = measure(stand, (stand.two[who.name], who))
    return two / one


def _image(
    stand: Stand, who: Participant, client: Callable[[Stand, Participant, str], None]
) -> float:
    image = f"{who.origin}{who.root}@{stand.manifest}".removeprefix("https://").replace(
        "/v2/", "/", 1
    )
    client(stand, who, image)
    before = settled_cpu_seconds(who.pid)
    client(stand, who, image)
    return (cpu_seconds(who.pid) - before) * 1000


def _by_skopeo(stand: Stand, who: Participant, image: str) -> None:
    target = stand.folder / "pulled"
    shutil.rmtree(target, ignore_errors=True)
    skopeo(who.devices[0], image, target)


def _by_ctr(stand: Stand, who: Participant, image: str) -> None:
    if stand.containerd is None:
        raise RuntimeError("containerd needs root.")
    ctr(stand.containerd, who.devices[0], image)
