"""What is measured, side by side: the facade and its peers, on the same content and certificates.

Guarantees: every participant serves the same bytes under paths that differ by a prefix only, over
TLS 1.3 with the same server certificate, and demands the same device's certificate; all run on
one processor, the clients and (unless asked otherwise) the upstream on another, where there are two. Everything ends with the context.
"""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facade.clock import SystemClock
from facade.control.signing.ceremony import delegate
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.demo.image import CONFIG_TYPE, LAYER_TYPE, Image
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.target import SignedTarget
from facade.up.state import StateFolder
from tests.bench.aside import Aside
from tests.bench.devices import Rested
from tests.bench.ends import End
from tests.bench.peers import Material, floor, nginx, registry_over_tls
from tests.support.daemons import Containerd, containerd
from tests.support.docker_registry import DockerRegistry, docker_registry
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import push

MIB = 1024 * 1024
REPOSITORY = "bench/app"
LAYER_MIB = (1, 16, 64, 256)
MORE_MIB = 7
"""So many further layers of 1 MiB: what an image has most of."""
SMALL_LAYERS = 3
SMALL_LAYER_BYTES = 64 * 1024
TAKEN_UP_SECONDS = 90.0
PLAIN = "facade, as it began"
RECORDED_SECONDS = 1.6
"""So long after an answer the record of its pull is in the database: one second in the serving process, half
of one in the control side."""
DEVICES = 7
"""So many share the work of crowds: the facade bounds what one device may do at once."""


@dataclass(frozen=True, slots=True)
class Participant:
    """One server that is measured.

    Arguments:
        pid: of its first process; those that it started are found from there.
        origin: `https://HOST:PORT`.
        root: what stands before `/manifests/` and `/blobs/`.
        devices: folders with ca.crt, client.cert and client.key that it lets in.
        forget: drop a blob from its cache, so that the next request finds it uncached.
        aftermath_seconds: it may write down only so long after an answer what it writes down.
        rested: its devices for small requests by the thousand; None = it writes nothing down.
    """

    name: str
    pid: int
    origin: str
    root: str
    devices: Sequence[Path]
    forget: Callable[[Digest], None]
    aftermath_seconds: float = 0.0
    rested: Rested | None = None

    def recorded(self, pulls: int) -> Path:
        """A device of whose next `pulls` each is written down, where any is."""
        return self.rested.device(pulls) if self.rested else self.devices[0]

    def blob(self, digest: Digest) -> str:
        """The URL of a blob."""
        return f"{self.origin}{self.root}/blobs/{digest}"

    def manifest(self, digest: Digest) -> str:
        """The URL of a manifest."""
        return f"{self.origin}{self.root}/manifests/{digest}"


@dataclass(frozen=True, slots=True)
class Stand:
    """Everything that a load needs.

    Arguments:
        participants: by name: facade, nginx, nginx-proxy, registry, registry-proxy, floor.
        two: another facade, and another nginx, with two workers each; by the name of the one with one.
        containerd: None where we may not run one.
        upstream: where the caches fetch from, over plain http.
        manifest: the image's, of 14 layers.
        blobs: layers by size in MiB.
        small: all those of 1 MiB.
        end: when it has begun nothing is started again.
    """

    folder: Path
    facade: FacadeProcess
    participants: dict[str, Participant]
    two: dict[str, Participant]
    containerd: Containerd | None
    loop: asyncio.AbstractEventLoop
    upstream: DockerRegistry
    manifest: Digest
    blobs: dict[int, Digest]
    small: Sequence[Digest]
    end: End

    def sign(self, targets: int, fleets: int) -> None:
        """Sign so many more targets for the devices' fleet, and delegate to so many more fleets; return when
        the facade has them.
        """
        state = StateFolder(self.folder / "state")
        *names, last = (f"filler-{number}" for number in range(fleets))
        delegate(
            state.repository,
            state.offline,
            state.online_keys,
            Secret(state.offline_passphrase.read_text().strip()),
            names,
            clock=SystemClock(),
        )
        publisher = Publisher(state.repository, OnlineKeys(state.online_keys), SystemClock())
        filler = Digest.of(b"filler")
        result = publisher.publish(
            "dev",
            add=[
                SignedTarget(
                    fleet="dev",
                    name=f"filler-{number}",
                    version="v1",
                    digest=filler,
                    length=1,
                    registry=self.upstream.host,
                    repository=Repository.parse(f"bench/filler-{number}"),
                    media_type=OCI_MANIFEST,
                )
                for number in range(targets)
            ],
        )
        # By the operator's port: the facade looks at all that is new then, not half a minute later.
        asyncio.run_coroutine_threadsafe(self.facade.must("fleet", "add", last), self.loop).result()
        taken_up = state.verified / "served" / f"{result.versions['dev']}.dev.json"
        deadline = time.monotonic() + TAKEN_UP_SECONDS
        while not taken_up.exists() and time.monotonic() < deadline:
            if self.end.begun.wait(0.5):
                break
        if not taken_up.exists():
            raise RuntimeError("The facade did not take the new targets up.")

    def fill_index(self, count: int) -> None:
        """Put `count` further blobs, used just now, into the facade's index."""
        with contextlib.closing(sqlite3.connect(self.folder / "state/cache/index.db")) as index:
            names = (f"sha256:{number:064x}" for number in range(count))
            rows = ((name, "filler", "bench/filler", "filler.example") for name in names)
            for batch in _batches(rows, 20_000):
                with index:
                    index.executemany("INSERT INTO possession VALUES (?, ?, ?, ?)", batch)
                    index.executemany(
                        "INSERT INTO object VALUES (?, ?, ?)",
                        [(row[0], 1, time.time()) for row in batch],
                    )

    def facade_down(self) -> None:
        """Stop the facade; its state stays."""
        asyncio.run_coroutine_threadsafe(self.facade.stop(), self.loop).result()

    def facade_up(self) -> None:
        """Start it again, on all processors; return when it serves. It is another process then."""
        asyncio.run_coroutine_threadsafe(self._facade_up(), self.loop).result()

    async def _facade_up(self) -> None:
        if self.end.begun.is_set():
            raise RuntimeError("The stand has ended.")
        with on_processors(range(os.cpu_count() or 1)):
            await self.facade.start()


def _batches(rows: Iterator[tuple[str, ...]], count: int) -> Iterator[list[tuple[str, ...]]]:
    while batch := list(itertools.islice(rows, count)):
        yield batch


@contextlib.asynccontextmanager
async def stand(
    folder: Path,
    *,
    upstream_beside: str = "clients",
    mebibytes: Sequence[int] = LAYER_MIB,
    with_plain: bool = False,
    end: End | None = None,
) -> AsyncIterator[Stand]:
    """Start everything under `folder`.

    Arguments:
        upstream_beside: whose processor the upstream shares: "clients" or "servers".
        with_plain: start one more facade, PLAIN, to which nothing is added.
        end: its own, where somebody else may begin it.
    """
    image, manifest, blobs, small = _image(mebibytes)
    aside = Aside(folder / "aside")
    end = end or End()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(end.over)
        with on_processor(1 if upstream_beside == "clients" else 0):
            upstream = await stack.enter_async_context(docker_registry(folder / "upstream"))
            await push(upstream.url, REPOSITORY, image, "v1")
        with on_processor(0):
            facade = await stack.enter_async_context(facade_up(folder / "state"))
            devices = await _connect(facade, upstream, folder / "devices")
            other = await stack.enter_async_context(
                facade_up(folder / "two", env={"FACADE_DEVICE__WORKERS": "2"})
            )
            others = await _connect(other, upstream, folder / "others")
            more: list[tuple[FacadeProcess, Sequence[Path]]] = []
            if with_plain:
                third = await stack.enter_async_context(facade_up(folder / "plain"))
                more = [(third, await _connect(third, upstream, folder / "thirds", devices=2))]
            material = Material(
                certificate=folder / "state" / "server.pem",
                key=folder / "state" / "server.key",
                device_ca=folder / "state" / "device-ca.pem",
            )
            static = _lay_out(folder / "static", image)
            web = await stack.enter_async_context(
                nginx(folder / "nginx", material, static=static, upstream=upstream.url)
            )
            web_two = await stack.enter_async_context(
                nginx(
                    folder / "nginx-two", material, static=static, upstream=upstream.url, workers=2
                )
            )
            plain = await stack.enter_async_context(
                registry_over_tls(
                    folder / "registry", material, storage=upstream.folder / "storage"
                )
            )
            mirror = await stack.enter_async_context(
                registry_over_tls(folder / "mirror", material, proxied=upstream.url)
            )
            bare = await stack.enter_async_context(
                floor(folder / "floor", material, upstream=upstream.url)
            )
        direct = f"/v2/{REPOSITORY}"
        through = f"/v2/{upstream.host.path_segment}/{REPOSITORY}"
        participants = [
            _ours("facade", facade, through, devices, aside),
            *(_ours(PLAIN, each, through, theirs, aside) for each, theirs in more),
            Participant("nginx", web.pid, web.static, direct, devices, _cannot_forget),
            Participant(
                "nginx-proxy",
                web.pid,
                web.proxy,
                direct,
                devices,
                lambda _: aside.take(path for path in web.cache.rglob("*") if path.is_file()),
            ),
            Participant("registry", plain.pid, plain.origin, direct, devices, _cannot_forget),
            Participant(
                "registry-proxy",
                mirror.pid,
                mirror.origin,
                direct,
                devices,
                lambda digest: aside.take(_proxied(mirror.storage, digest)),
            ),
            Participant(
                "floor",
                bare.pid,
                bare.origin,
                direct,
                devices,
                lambda digest: aside.take(bare.kept.glob(f"{digest.hex}*")),
            ),
        ]
        with on_processor(1):
            daemon = None
            if os.geteuid() == 0:
                daemon = await stack.enter_async_context(containerd())
            stack.callback(end.begin)
            yield Stand(
                folder,
                facade,
                {each.name: each for each in participants},
                {
                    "facade": _ours("facade, two workers", other, through, others, aside),
                    "nginx": Participant(
                        "nginx, two workers",
                        web_two.pid,
                        web_two.static,
                        direct,
                        devices,
                        _cannot_forget,
                    ),
                },
                daemon,
                asyncio.get_running_loop(),
                upstream,
                manifest,
                blobs,
                small,
                end,
            )


def _ours(
    name: str, facade: FacadeProcess, root: str, devices: Sequence[Path], aside: Aside
) -> Participant:
    cache = facade.state / "cache" / "blobs"
    loop, numbers = asyncio.get_running_loop(), itertools.count()

    def enrol() -> Path:
        device = devices[0].with_name(f"rested-{next(numbers)}")
        asyncio.run_coroutine_threadsafe(_enrol(facade, device), loop).result()
        return device

    return Participant(
        name,
        facade.pid,
        f"https://{facade.device}",
        root,
        devices,
        lambda digest: aside.take(cache.rglob(f"{digest.hex}*")),
        RECORDED_SECONDS,
        Rested(enrol),
    )


@contextlib.contextmanager
def on_processor(number: int) -> Iterator[None]:
    """What is started within runs there, when the machine has so many processors."""
    allowed = sorted(os.sched_getaffinity(0))
    with on_processors([allowed[min(number, len(allowed) - 1)]]):
        yield


@contextlib.contextmanager
def on_processors(numbers: Iterable[int]) -> Iterator[None]:
    """What is started within runs on these."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


async def _connect(
    facade: FacadeProcess, upstream: DockerRegistry, folder: Path, devices: int = DEVICES
) -> list[Path]:
    """As an operator would: connect the registry, sign the image, enrol devices."""
    host = str(upstream.host)
    await facade.must("registry", "add", host, "--anonymous", "--insecure")
    await facade.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
    made = [folder / f"bench-{number}" for number in range(devices)]
    for device in made:
        await _enrol(facade, device)
    return made


async def _enrol(facade: FacadeProcess, device: Path) -> None:
    await facade.must("device", "issue", f"dev/{device.name}", "--out", device)
    pair = (device / "client.cert").read_text() + (device / "client.key").read_text()
    (device / "both.pem").write_text(pair)  # ab takes certificate and key as one file


def _image(
    mebibytes: Sequence[int],
) -> tuple[Image, Digest, dict[int, Digest], Sequence[Digest]]:
    """An image of random layers: large ones of these sizes, and small ones."""
    more = [secrets.token_bytes(MIB) for _ in range(MORE_MIB)]
    large = {size: secrets.token_bytes(size * MIB) for size in mebibytes}
    layers = [
        *large.values(),
        *more,
        *(secrets.token_bytes(SMALL_LAYER_BYTES) for _ in range(SMALL_LAYERS)),
    ]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(LAYER_TYPE, layer) for layer in layers],
        }
    ).encode()
    child = {
        **_descriptor(OCI_MANIFEST, manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    image = Image(
        Digest.of(index),
        {Digest.of(manifest): (OCI_MANIFEST, manifest), Digest.of(index): (OCI_INDEX, index)},
        {Digest.of(data): data for data in (config, *layers)},
    )
    sizes = {size: Digest.of(data) for size, data in large.items()}
    return image, Digest.of(manifest), sizes, (sizes[1], *map(Digest.of, more))


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def _lay_out(root: Path, image: Image) -> Path:
    """The same content as plain files, for the static server."""
    place = root / "v2" / REPOSITORY
    for kind, content in (
        ("blobs", image.blobs),
        ("manifests", {digest: data for digest, (_, data) in image.manifests.items()}),
    ):
        (place / kind).mkdir(parents=True)
        for digest, data in content.items():
            (place / kind / str(digest)).write_bytes(data)
    return root


def _proxied(storage: Path, digest: Digest) -> list[Path]:
    """Where docker-registry keeps a blob, and that the repository has it: folders."""
    root = storage / "docker" / "registry" / "v2"
    return [
        root / "repositories" / REPOSITORY / "_layers" / "sha256" / digest.hex,
        root / "blobs" / "sha256" / digest.hex[:2] / digest.hex,
    ]


def _cannot_forget(digest: Digest) -> None:
    raise AssertionError("This participant has no cache to forget from.")
