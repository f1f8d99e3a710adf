"""The schedule keeps every online role fresh, and survives failures."""

import asyncio
import functools
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from facade.config import Settings
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.schedule import RETRY_SECONDS, ResignSchedule
from facade.control.signing.status import trust_status
from facade.errors import FacadeError
from tests.support.signing import SignedRepository, make_repository

DAY = 86_400.0


CHECK_SECONDS = Settings().trust.resign_check_seconds


class Observed:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.left: dict[str, float] = {}

    def resigned(self) -> None:
        self.events.append("resigned")

    def resign_failed(self) -> None:
        self.events.append("failed")

    def role_expires(self, role: str, seconds_left: float) -> None:
        self.left[role] = seconds_left


def make(repo: SignedRepository, observed: Observed | None = None) -> ResignSchedule:
    read = functools.partial(
        trust_status, repo.folder, OnlineKeys(repo.online), offline=None, clock=repo.clock
    )
    return ResignSchedule(
        repo.publisher, read, repo.clock, observer=observed, check_seconds=CHECK_SECONDS
    )


async def wait_until_asleep(repo: SignedRepository) -> None:
    await repo.clock.wait_for_sleepers(1)


async def test_start_signs_what_expired_while_everything_was_down(tmp_path: Path) -> None:
    repo, observed = make_repository(tmp_path), Observed()
    repo.clock.advance(10 * DAY)
    schedule = make(repo, observed)
    await schedule.start()
    assert observed.events == ["resigned"]
    assert observed.left["timestamp"] == pytest.approx(DAY, abs=1)
    assert observed.left["root"] == pytest.approx(355 * DAY, abs=1)
    await schedule.stop()
    assert repo.clock.sleepers == 0


async def test_no_online_role_ever_expires_while_it_runs(tmp_path: Path) -> None:
    repo, observed = make_repository(tmp_path), Observed()
    schedule = make(repo, observed)
    await schedule.start()
    shortest = DAY
    for _ in range(3 * 96):  # three days of looks
        await wait_until_asleep(repo)
        repo.clock.advance(CHECK_SECONDS)
        await wait_until_asleep(repo)
        shortest = min(shortest, observed.left["timestamp"])
    assert observed.events.count("resigned") == 6
    assert shortest > DAY / 2 - 2 * CHECK_SECONDS
    await schedule.stop()


async def test_a_failure_is_reported_and_tried_again(tmp_path: Path) -> None:
    repo, observed = make_repository(tmp_path), Observed()
    schedule = make(repo, observed)
    await schedule.start()
    await wait_until_asleep(repo)
    key = (repo.online / "timestamp.pem").rename(tmp_path / "kept.pem")
    repo.clock.advance(DAY)
    with capture_logs() as logs:
        await wait_until_asleep(repo)
    assert observed.events == ["failed"]
    assert [entry["event"] for entry in logs] == ["metadata_resign_failed"]
    key.rename(repo.online / "timestamp.pem")
    repo.clock.advance(RETRY_SECONDS)
    await wait_until_asleep(repo)
    assert observed.events == ["failed", "resigned"]
    await schedule.stop()


async def test_start_says_when_it_cannot_sign(tmp_path: Path) -> None:
    repo, observed = make_repository(tmp_path), Observed()
    repo.clock.advance(2 * DAY)
    (repo.online / "timestamp.pem").unlink()
    with pytest.raises(FacadeError, match="timestamp"):
        await make(repo, observed).start()
    assert observed.events == ["failed"]


async def test_a_warning_is_logged_once_a_day(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    repo.clock.advance(330 * DAY)
    schedule = make(repo)
    with capture_logs() as logs:
        for _ in range(3):
            await schedule.check()
            repo.clock.advance(3600)
    warned = [entry["detail"] for entry in logs if entry["event"] == "metadata_needs_attention"]
    assert len(warned) == 2  # root and targets, not three times each
    with capture_logs() as logs:
        repo.clock.advance(DAY)
        await schedule.check()
    assert len([entry for entry in logs if entry["event"] == "metadata_needs_attention"]) == 2


async def test_stopping_what_never_started_is_fine(tmp_path: Path) -> None:
    schedule = make(make_repository(tmp_path))
    await asyncio.wait_for(schedule.stop(), 1)
