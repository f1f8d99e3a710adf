"""`facade doctor` beside a real `facade up`: running, degraded, stricken, hanging, stopped.

One installation, from what changes nothing to what ends it.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from facade.up.state import StateFolder
from tests.support.crew import workers_of
from tests.support.live import Live, live
from tests.support.misbehaviour import rate_limited
from tests.support.operator_server import CommandLine
from tests.support.redis_server import RedisServer, redis_server
from tests.support.small_disk import small_disk

MIB = 1024**2
PATIENCE_SECONDS = 60.0

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@dataclass(frozen=True)
class Patient:
    """A facade of two workers on a small disk, and its Redis."""

    it: Live
    redis: RedisServer

    async def checks(self, code: int) -> dict[str, list[tuple[str, str]]]:
        """What doctor finds by check: (status, message)."""
        # In a thread of this process: a new interpreter each time is most of what it would take.
        doctor = CommandLine({"FACADE_STATE": str(self.it.facade.state)})
        ran = await asyncio.to_thread(doctor, "doctor", "--json")
        report = json.loads(ran.stdout)
        found: dict[str, list[tuple[str, str]]] = {}
        for check in report["checks"]:
            found.setdefault(check["check"], []).append((check["status"], check["message"]))
        assert ran.code == code, found
        assert report["ok"] == (code == 0)
        return found

    async def until(self, check: str, verdict: str, words: str, code: int = 0) -> str:
        """Ask until `check` has a finding of that verdict with these words; its message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for found, message in (await self.checks(code)).get(check, []):
                    if found == verdict and words in message:
                        return message


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Patient]:
    folder = tmp_path_factory.mktemp("doctor")
    with small_disk(folder / "disk", 64 * MIB) as disk:
        async with redis_server(folder / "redis") as redis:
            env = {
                "FACADE_DEVICE__WORKERS": "2",
                "FACADE_REDIS__URL": redis.url,
                "FACADE_STORE__URL": f"file://{disk.folder}/cache",
            }
            async with live(folder, env=env) as it:
                await it.add()
                await it.import_all()
                assert (await it.pull("v1")).status == 200
                yield Patient(it, redis)


async def test_a_running_one(patient: Patient) -> None:
    found = await patient.checks(0)
    assert found["readiness"][0][0] == "warning"  # plain http to the registry
    assert "--insecure" in found["readiness"][0][1]
    assert found["workers"] == [("ok", "2 of 2 serve")]
    assert found["upstream"] == [("ok", "no registry is given up (1 spoken to)")]
    [(verdict, words)] = found["cache disk"]
    assert verdict == "warning"  # it is smaller than what should be left of it
    assert "facade cache prune" in words
    for check in ("metadata in use", "certificates in use", "disk", "operator API"):
        assert [verdict for verdict, _ in found[check]] == ["ok"], check


async def test_a_registry_that_is_given_up(patient: Patient) -> None:
    patient.it.registry.script("*", rate_limited("60"))
    refused = await patient.it.pull("v2")
    assert refused.status == 429
    message = await patient.until("upstream", "warning", "is given up")
    assert f"facade registry test {patient.it.host}" in message
    patient.it.registry.behave()


async def test_redis_gone(patient: Patient) -> None:
    await patient.redis.stop()
    await patient.it.facade.cli("registry", "test", patient.it.host)
    await patient.until("readiness", "warning", "bring Redis back")


async def test_a_worker_was_killed(patient: Patient) -> None:
    os.kill(workers_of(patient.it.facade.pid)[0], signal.SIGKILL)
    await patient.until("workers", "warning", "2 of 2 serve; 1 were replaced")


async def test_a_worker_hangs(patient: Patient) -> None:
    pid = workers_of(patient.it.facade.pid)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        await patient.until("readiness", "warning", "it does not answer (look for worker_ended")
    finally:
        with suppress(ProcessLookupError):  # it was replaced meanwhile
            os.kill(pid, signal.SIGCONT)


async def test_a_stopped_one(patient: Patient) -> None:
    """Last but one: it ends it."""
    facade = patient.it.facade
    await facade.kill()  # its lock file goes on naming it, and nobody has the lock
    found = await patient.checks(1)
    assert "Start one with: facade up" in found["operator API"][0][1]
    assert "process" not in found
    assert "readiness" not in found


async def test_one_that_has_the_folder_and_does_not_answer(patient: Patient) -> None:
    """As one does that starts, or hangs; here this process has the folder."""
    lock = StateFolder(patient.it.facade.state).lock()
    try:
        [(verdict, words)] = (await patient.checks(1))["process"]
    finally:
        lock.release()
    assert verdict == "failed"
    assert f"in use by PID {os.getpid()}" in words
