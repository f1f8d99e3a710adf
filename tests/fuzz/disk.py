"""Harnesses for what lies on the node's own disk, where somebody else wrote: the index, names, the clock's mark.

(`metadata` has the block tags.)
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from facade.clock import SystemClock
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.serving.blobs.layout import PARTIAL, Layout, declared_size
from facade.serving.blobs.partials import Partials
from facade.serving.blobs.port import BlobKey
from facade.serving.blobs.possession import PossessionIndex
from facade.serving.blobs.refused import MAX_RETRY_AFTER_SECONDS, read_note
from facade.serving.trust.served import ServedFiles
from facade.serving.trust.shared import NodeFiles
from facade.serving.trust.watermark import FILE_NAME, Watermark
from tests.fuzz.harness import Harness

_KEY = BlobKey(
    "c1", RegistryHost.parse("registry.example"), Repository.parse("org/app"), Digest.of(b"")
)


_CLOCK = SystemClock()


def index(data: bytes) -> None:
    """A database that somebody else wrote: it can be used, or is made anew, or says that it cannot."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        path.write_bytes(data)
        asyncio.run(_use(path))


async def _use(path: Path) -> None:
    index = PossessionIndex.at(path, _CLOCK)
    try:
        await index.has(_KEY)
        await index.totals()
        await index.least_recently_used(10)
        await index.add(_KEY, 5)
        assert await index.has(_KEY)
    finally:
        await index.close()


def good_index() -> bytes:
    """One of ours, with one object."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        asyncio.run(_use(path))
        return path.read_bytes()


def partial_name(data: bytes) -> None:
    """A file in the folder of partials, by its name."""
    name = data.decode("utf-8", "surrogateescape").replace("/", "").replace("\0", "")[:200]
    if name in ("", ".", "..") or len(name.encode("utf-8", "surrogateescape")) > 255:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(b"12345")
        assert 0 <= declared_size(path) < 10**20
        partials = Partials(Path(folder))
        assert partials.count() in (0, 5)
        partials.sweep(0.0)


def clock_mark(data: bytes) -> None:
    """The highest time seen."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        path.write_bytes(data)
        Watermark(path, _CLOCK).check()


def refusal_note(data: bytes) -> None:
    """Why a registry gave nothing, as another process noted it."""
    found = read_note(data)
    if found is not None:
        assert found.message
        assert found.retry_after is None or 0 <= found.retry_after <= MAX_RETRY_AFTER_SECONDS


def served_timestamp(data: bytes) -> None:
    """The timestamp that another serving process offers."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "served").mkdir()
        (Path(folder) / "served" / "timestamp.json").write_bytes(data or b"{}")
        other = ServedFiles(Path(folder))
        files = NodeFiles(other, (other,))
        files.behind()
        assert files.read("timestamp.json") == (data or b"{}")


def harnesses() -> list[Harness]:
    """All of them."""
    name = Layout(Path("/x")).partial(_KEY, 12345).name
    return [
        Harness("index", index, [good_index()], [b"SQLite format 3\0"], 65536),
        Harness("partial-name", partial_name, [name.encode()], [PARTIAL.encode(), b".", b"9" * 20]),
        Harness("clock-mark", clock_mark, [b"1700000000\n"], [b"inf", b"nan", b"1e400", b"_"], 128),
        Harness(
            "refusal-note",
            refusal_note,
            [b'["upstream-rate-limited", "Too many.", 429, 5.0]', b'["deadline", "x", null, null]'],
            [b'"upstream-refused"', b"1e999", b"9" * 400, b"[[", b"null"],
            1024,
        ),
        Harness(
            "served-timestamp",
            served_timestamp,
            [b'{"signed": {"version": 7}}'],
            [b'"version":', b"1e999", b"[[", b"9" * 30],
        ),
    ]
