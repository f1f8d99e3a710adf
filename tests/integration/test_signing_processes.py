"""Several processes and one signed repository: no lost update, no half-published state, whenever a
writer dies. The writers are forked, so that each starts in milliseconds; the reader is a stock client.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.support.signing import SignedRepository, StockClient, make_repository, make_target

SYSCALLS = ("open", "os.rename", "os.remove", "os.utime", "os.listdir", "os.scandir", "fcntl.flock")
"""Audit events (PEP 578) at which a writer is killed: all that touches the disk."""


def start(work: Callable[[], object]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def add(repo: SignedRepository, *versions: str) -> None:
    publisher = repo.reopened()
    for version in versions:
        publisher.publish("dev", add=[make_target(version)])


def killed_at(number: int, work: Callable[[], object]) -> Callable[[], None]:
    """`work`, ended by SIGKILL at its `number`-th audited event."""

    def run() -> None:
        left = number

        def hook(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in SYSCALLS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return run


def test_processes_that_publish_at_once_lose_no_update(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    writers = [
        start(lambda w=writer: add(repo, *(f"w{w}-{n}" for n in range(5))))  # type: ignore[misc]
        for writer in range(4)
    ]
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    expected = {f"dev/app/w{writer}-{number}" for writer in range(4) for number in range(5)}
    assert set(repo.publisher.targets("dev")) == expected
    client = StockClient(repo.metadata, repo.initialised.root)
    assert client.updater().get_targetinfo("dev/app/w3-4") is not None
    assert (repo.metadata / "21.snapshot.json").exists()


def test_a_writer_killed_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    client = StockClient(repo.metadata, repo.initialised.root)
    published: set[bool] = set()
    for step in range(1, 200):
        version = f"v{step}"
        before = set(repo.publisher.targets("dev"))
        writer = start(killed_at(step, lambda v=version: add(repo, v)))  # type: ignore[misc]
        writer.join(60)
        after = set(repo.publisher.targets("dev"))
        assert after in (before, before | {f"dev/app/{version}"})
        assert (client.target(f"dev/app/{version}") is not None) == (after != before)
        published.add(after != before)
        if writer.exitcode == 0:
            break
        assert writer.exitcode == -signal.SIGKILL
    assert writer.exitcode == 0, "the writer has more steps than were tried"
    assert step > 10
    assert published == {False, True}
    assert not [path for path in repo.metadata.iterdir() if path.name.endswith(".writing")]


@pytest.mark.slow
def test_a_polling_reader_never_sees_a_half_published_state(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    client = StockClient(repo.metadata, repo.initialised.root, tmp_path / "state")
    chance = random.Random(7)
    kills = reads = seen = 0
    version = 0
    until = time.monotonic() + 8
    while time.monotonic() < until:
        versions = [f"v{version + number}" for number in range(1000)]
        writer = start(lambda names=versions: add(repo, *names))  # type: ignore[misc]
        stop_at = time.monotonic() + chance.uniform(0.02, 0.3)
        while time.monotonic() < stop_at:
            client.updater().get_targetinfo("dev/app/v0")
            reads += 1
        writer.kill()
        writer.join(60)
        kills += 1
        count = len(repo.publisher.targets("dev"))
        assert count >= seen
        seen = count
        version += 1000
    assert kills > 10
    assert reads > kills
    assert seen > kills
