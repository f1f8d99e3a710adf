"""Several processes on one cache folder, a real registry, and kill -9 at random moments.

SHARING_KILLS and SHARING_MASSACRES set how often (50 and 100 in the long run); a few times by default.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from tests.support.blobs import MEBI, make_content
from tests.support.misbehaviour import Misbehaviour, trickle
from tests.support.raw_http import Content, Reply, Seen
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SHARING_KILLS", "8"))
MASSACRES = int(os.environ.get("SHARING_MASSACRES", "3"))
SIZE = 8 * MEBI + 77
READERS = 5
LOSS = 4 * MEBI
"""Bytes that may be fetched twice per kill."""
PATIENCE_SECONDS = 60.0


@dataclass
class Worker:
    """A process that serves."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """What it has to say, past its log."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := (await self.process.stdout.readline()).decode().strip():
                if line == "ready" or line.startswith('["'):
                    return line
        raise AssertionError("The process ended.")

    def pull(self, digest: Digest) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{digest} {SIZE} {READERS}\n".encode())

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@dataclass
class Flock:
    """Workers on one folder, and their registry."""

    root: Path
    registry: Registry
    workers: list[Worker] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    async def fill(self, count: int) -> None:
        """Have `count` workers that are ready."""
        fresh = [await self._start() for _ in range(count - len(self.workers))]
        for worker in fresh:
            assert await worker.line() == "ready"
        self.workers += fresh

    def offer(self, seed: int) -> Digest:
        """A new blob, which comes slowly enough to be killed in the middle of it."""
        digest = self.registry.add_blob("org/app", make_content(SIZE, seed))
        self.registry.requests.clear()
        self.sent.clear()
        return digest

    def fetching(self, digest: Digest) -> Worker | None:
        """Who holds the lock on the partial, as the kernel says."""
        for path in (self.root / "ingest").glob(f"sha256-{digest.hex}.*.partial"):
            inode = path.stat().st_ino
            for words in map(str.split, Path("/proc/locks").read_text().splitlines()):
                if words[1:4:2] == ["FLOCK", "WRITE"] and words[5].endswith(f":{inode}"):
                    found = [each for each in self.workers if str(each.process.pid) == words[4]]
                    return found[0] if found else None
        return None

    async def _start(self) -> Worker:
        return Worker(
            await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "tests/faults/sharing_process.py"),
                *(str(self.root), str(self.registry.port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )


@asynccontextmanager
async def flock(root: Path, count: int) -> AsyncIterator[Flock]:
    async with Registry() as registry:
        workers = Flock(root, registry)
        registry.script("*/blobs/*", both(trickle(64 * 1024, 0.003), counted(workers.sent)))
        await workers.fill(count)
        try:
            yield workers
        finally:
            for worker in workers.workers:
                await worker.kill()


@pytest.mark.slow
@pytest.mark.timeout(100 + 10 * KILLS)
async def test_the_fetching_process_is_killed_and_nobody_elses_client_notices(
    tmp_path: Path,
) -> None:
    chance, twice = random.Random(), [0]
    async with flock(tmp_path, 3) as workers:
        for number in range(KILLS):
            await workers.fill(3)
            digest = workers.offer(number)
            for worker in workers.workers:
                worker.pull(digest)
            victim = await wait_for(workers, digest)
            await asyncio.sleep(chance.uniform(0, 0.5))
            victim = workers.fetching(digest) or victim
            await victim.kill()
            workers.workers.remove(victim)
            for worker in workers.workers:
                assert json.loads(await worker.line()) == ["ok"] * READERS
            twice.append(sum(workers.sent) - SIZE)
            assert twice[-1] <= LOSS
            assert len(workers.registry.seen("*/blobs/*")) <= 2
            assert list((tmp_path / "ingest").iterdir()) == []
    print(f"{KILLS} kills: at most {max(twice):,} bytes came twice")


@pytest.mark.slow
@pytest.mark.timeout(100 + 20 * MASSACRES)
async def test_all_are_killed_and_what_was_fetched_is_neither_lost_nor_trusted(
    tmp_path: Path,
) -> None:
    chance = random.Random()
    async with flock(tmp_path, 2) as workers:
        for number in range(MASSACRES):
            digest = workers.offer(1000 + number)
            for worker in workers.workers:
                worker.pull(digest)
            await wait_for(workers, digest)
            await asyncio.sleep(chance.uniform(0, 0.5))
            for worker in workers.workers:
                await worker.kill()
            workers.workers.clear()
            spoil = number % 2 == 1 and spoiled(tmp_path, digest)
            await workers.fill(2)
            for worker in workers.workers:
                worker.pull(digest)
            results = [json.loads(await worker.line()) for worker in workers.workers]
            if not spoil:
                assert results == [["ok"] * READERS] * 2
                assert sum(workers.sent) <= SIZE + LOSS
                continue
            # What a power loss spoiled is found out; then they ask again.
            assert "other bytes" not in str(results)
            for worker in workers.workers:
                worker.pull(digest)
            assert [json.loads(await each.line()) for each in workers.workers] == [
                ["ok"] * READERS
            ] * 2


async def wait_for(workers: Flock, digest: Digest) -> Worker:
    """The worker that fetches, once one does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (worker := workers.fetching(digest)) is None:  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.002)
    return worker


def spoiled(root: Path, digest: Digest) -> bool:
    """Put zeros into what is left of the blob, if anything is."""
    for path in (root / "ingest").glob(f"sha256-{digest.hex}.*.partial"):
        if path.stat().st_size > 4096:
            with path.open("r+b") as file:
                file.write(bytes(4096))
            return True
    return False


def counted(sent: list[int]) -> Misbehaviour:
    """Note how many bytes of the body went out."""
    return lambda seen, reply: replace(reply, content=_Counted(reply.content, sent))


def both(*changes: Misbehaviour) -> Misbehaviour:
    """All of them, in order."""

    def change(seen: Seen, reply: Reply) -> Reply:
        for each in changes:
            reply = each(seen, reply)
        return reply

    return change


@dataclass(frozen=True, slots=True)
class _Counted:
    inner: Content
    sent: list[int]

    @property
    def size(self) -> int:
        return self.inner.size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        for block in self.inner.blocks(start, stop):
            yield block
            self.sent.append(len(block))
