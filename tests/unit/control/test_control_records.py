"""The audit trail, API keys, and records of pulls."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.apikeys import ApiKeys
from facade.control.audit import AuditTrail
from facade.control.database.engine import Database
from facade.control.pulls import PullRecords, PullRow
from facade.errors import Invalid, NotFound
from facade.reasons import Reason
from facade.secret import Secret
from facade.wings import IntegrityFailed, Pulled
from tests.support.clock import FakeClock
from tests.support.control import fresh_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_database(tmp_path) as database:
        yield database


async def _note(audit: AuditTrail, actor: str, action: str) -> None:
    await audit.record(
        actor=actor, action=action, subject="ghcr.io", outcome="ok", detail={"key": "k1"}
    )


async def test_the_audit_is_read_newest_first_filtered_and_in_pages(database: Database) -> None:
    clock = FakeClock()
    audit = AuditTrail(database, clock)
    for actor, action in (("ann", "connection.add"), ("bob", "connection.remove"), ("ann", "x")):
        await _note(audit, actor, action)
        clock.advance(1)
    rows, total = await audit.list(limit=2)
    assert ([row.action for row in rows], total) == (["x", "connection.remove"], 3)
    assert rows[0].at == clock.time() - 1
    assert rows[0].detail == {"key": "k1"}
    assert [row.actor for row in (await audit.list(action="connection"))[0]] == ["bob", "ann"]
    assert (await audit.list(action="conn"))[1] == 0
    assert (await audit.list(actor="ann", action="connection.add"))[1] == 1
    assert (await audit.list(limit=1, offset=2))[0][0].action == "connection.add"


async def test_pages_that_go_on_from_the_last_row_miss_none_and_repeat_none(
    database: Database,
) -> None:
    """While rows are added at the front, and the oldest go at the end."""
    audit, pulls = AuditTrail(database, FakeClock()), PullRecords(database, keep=12)
    for number in range(10):
        await _note(audit, "ann", f"x.{number}")
        await pulls.add([_pull(float(number))], [])
    seen: list[str] = []
    times: list[float] = []
    before = older = None
    for page in range(4):
        rows, total = await audit.list(before=before, limit=3)
        assert total == 10 + page, "all of them, not the older ones only"
        seen += [row.action for row in rows]
        before = rows[-1].id
        kept, _ = await pulls.list(before=older, limit=3)
        times += [row.pull.at for row in kept]
        older = kept[-1].id if kept else older
        await _note(audit, "bob", "x.later")
        await pulls.add([_pull(99.0)], [])
    assert seen == [f"x.{number}" for number in reversed(range(10))]
    # Of the four oldest that were seen last, one or two had been trimmed by then.
    assert times == sorted(set(times), reverse=True)
    assert times[:9] == [float(number) for number in range(9, 0, -1)]


async def test_a_key_is_shown_once_and_stored_hashed(database: Database, tmp_path: Path) -> None:
    clock = FakeClock()
    keys = ApiKeys(database, clock)
    made, secret = await keys.create(
        "ci", frozenset({"artifacts.write"}), frozenset({"dev"}), actor="ann"
    )
    found = await keys.authenticate(secret)
    assert found is not None
    assert (found.id, found.name, found.fleets) == (made.id, "ci", frozenset({"dev"}))
    assert found.permissions == frozenset({"artifacts.write"})
    assert secret.reveal().startswith("facade_")
    for path in tmp_path.iterdir():  # noqa: ASYNC240 - a test may look at files
        assert secret.reveal().encode() not in path.read_bytes()
    assert secret.reveal() not in repr(await keys.list())


async def test_what_is_no_key_is_nobody(database: Database) -> None:
    keys = ApiKeys(database, FakeClock())
    _, secret = await keys.create("ci", frozenset(), None, actor="ann")
    for text in ("", "facade_", secret.reveal()[:-1], secret.reveal() + "x", "é"):
        assert await keys.authenticate(Secret(text)) is None


async def test_a_revoked_key_is_refused_at_once(database: Database) -> None:
    keys = ApiKeys(database, FakeClock())
    made, secret = await keys.create("ci", frozenset(), None, actor="ann")
    assert (await keys.revoke(made.id)).name == "ci"
    assert await keys.authenticate(secret) is None
    with pytest.raises(NotFound):
        await keys.revoke(made.id)


async def test_last_used_is_noted_once_a_minute(database: Database) -> None:
    clock = FakeClock()
    keys = ApiKeys(database, clock)
    _, secret = await keys.create("ci", frozenset(), None, actor="ann")
    first = clock.time()
    for seconds in (0, 59, 1):
        clock.advance(seconds)
        await keys.authenticate(secret)
        noted = (await keys.list())[0].last_used
        assert noted == (first if seconds != 1 else first + 60)


async def test_a_key_opens_also_when_its_use_cannot_be_noted(
    database: Database, tmp_path: Path
) -> None:
    """On a full disk somebody must still be able to revoke a device."""
    clock = FakeClock()
    keys = ApiKeys(database, clock)
    made, secret = await keys.create("ci", frozenset(), None, actor="ann")
    other = sqlite3.connect(tmp_path / "facade.db", isolation_level=None)
    other.execute(
        "CREATE TRIGGER full BEFORE UPDATE ON api_keys BEGIN INSERT INTO nowhere VALUES (1); END"
    )
    other.close()
    found = await keys.authenticate(secret)
    assert found is not None
    assert found.id == made.id
    assert (await keys.list())[0].last_used is None


async def test_which_keys_there_are_is_known_without_a_look_into_the_database(
    database: Database,
) -> None:
    keys = ApiKeys(database, FakeClock())
    made, secret = await keys.create("ci", frozenset(), None, actor="ann")
    again = ApiKeys(database, FakeClock())
    assert not again.known(secret)
    await again.load()
    for each in (keys, again):
        assert each.known(secret)
        assert not each.known(Secret("facade_" + "x" * 43))
    await again.revoke(made.id)
    assert not again.known(secret)


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "a\nb"])
async def test_a_key_needs_a_name(database: Database, name: str) -> None:
    with pytest.raises(Invalid):
        await ApiKeys(database, FakeClock()).create(name, frozenset(), None, actor="ann")


def _pull(at: float, device: str = "dev/kiosk", **more: object) -> Pulled:
    values: dict[str, object] = {
        "host": "ghcr.io",
        "repository": "org/app",
        "digest": "sha256:" + "0" * 64,
        "role": "blob",
        "outcome": "served",
        **more,
    }
    return Pulled(at, device, **values)  # type: ignore[arg-type]


async def test_pulls_are_read_back_as_they_were(database: Database) -> None:
    records = PullRecords(database)
    refused = _pull(2.0, reason=Reason.NOT_SIGNED, bytes_sent=7, cache="hit")
    await records.add([_pull(1.0), refused], [])
    assert await records.list() == ((PullRow(2, refused), PullRow(1, _pull(1.0))), 2)


async def test_pulls_by_fleet_and_device(database: Database) -> None:
    records = PullRecords(database)
    await records.add([_pull(1.0), _pull(2.0, "dev/till"), _pull(3.0, "d_v/kiosk")], [])
    assert (await records.list(fleet="d_v"))[1] == 1, "_ is no wildcard"
    assert (await records.list(fleet="dev"))[1] == 2
    assert (await records.list(device="kiosk"))[1] == 2
    assert (await records.list(device="dev/kiosk"))[1] == 1


async def test_old_pulls_go_and_failures_are_kept_apart(database: Database) -> None:
    records = PullRecords(database, keep=3)
    for at in range(5):
        await records.add([_pull(float(at))], [])
    rows, total = await records.list()
    assert ([row.pull.at for row in rows], total) == ([4.0, 3.0, 2.0], 3)
    failure = IntegrityFailed(1.0, "ghcr.io", "org/app", "sha256:x", "short")
    await records.add([], [failure])
    assert await records.failures() == (failure,)
