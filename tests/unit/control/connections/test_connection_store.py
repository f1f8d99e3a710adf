"""The connection store: restarts, revisions, removal, no secret in any file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.connections.model import Listed
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.model import Prepared
from facade.control.database.engine import Database
from facade.errors import Conflict, Denied, Integrity, NotFound, Unavailable
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import ConnectionSettings
from facade.wings import ConnectionUsed
from tests.support.clock import FakeClock
from tests.support.control import connect, fresh_database

HOST = RegistryHost.parse("registry.example")
RING = KeyRing.generate()
CANARY = "canary-3f9a"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_database(tmp_path) as database:
        yield database


async def _loaded(database: Database, ring: KeyRing = RING) -> ConnectionStore:
    store = ConnectionStore(database, Sealer(ring, "connections"), FakeClock())
    await store.load()
    return store


async def test_a_connection_survives_a_restart_with_everything(database: Database) -> None:
    settings = ConnectionSettings(
        insecure=True, ca_pem="PEM", auth_hosts=("a.example",), proxy="http://p.example:3128"
    )
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY, settings=settings)
    again = await _loaded(database)
    assert again.get(HOST) == store.get(HOST)
    assert again.snapshot().by_host == {HOST: connection}
    assert again.secrets(connection.id).fields["secret"].reveal() == CANARY


async def test_a_host_is_connected_once(database: Database) -> None:
    store = await _loaded(database)
    await connect(store)
    with pytest.raises(Conflict, match="facade registry rotate"):
        await connect(store)


async def test_what_is_not_connected_is_not_found_and_says_how(database: Database) -> None:
    store = await _loaded(database)
    with pytest.raises(NotFound, match="facade registry add"):
        store.get(HOST)


async def test_a_listing_shows_host_username_and_provider_only(database: Database) -> None:
    store = await _loaded(database)
    await connect(store)
    [stored] = store.list()
    assert stored.listed == Listed(HOST, "robot", "static")


async def test_new_credentials_count_the_revision_up_and_are_forgotten_elsewhere(
    database: Database,
) -> None:
    forgotten: list[str] = []
    store = ConnectionStore(
        database, Sealer(RING, "connections"), FakeClock(), forget=forgotten.append
    )
    store.on_forget(forgotten.append)
    connection = await connect(store)
    before = store.snapshot()
    prepared = Prepared("robot2", {"secret": Secret("new")})
    stored = await store.change(HOST, prepared=prepared)
    assert stored.connection.id == connection.id
    assert stored.connection.revision == 2
    assert stored.username == "robot2"
    assert store.secrets(connection.id).fields["secret"].reveal() == "new"
    assert store.snapshot().generation > before.generation
    assert before.by_host[HOST].revision == 1, "an old snapshot is never changed"
    assert forgotten == [connection.id] * 2


async def test_every_change_of_the_snapshot_is_told_and_it_is_there_by_then(
    database: Database,
) -> None:
    store = await _loaded(database)
    told: list[int] = []
    store.on_change = lambda: told.append(store.snapshot().generation)
    connection = await connect(store)
    await store.change(HOST, settings=ConnectionSettings(insecure=True))
    await store.used([ConnectionUsed(connection.id, at=1.0)])
    await store.remove(HOST)
    first = told[0]
    assert told == [first, first + 1, first + 2]
    assert store.snapshot().generation == first + 2


async def test_changing_settings_keeps_the_secret(database: Database) -> None:
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY)
    await store.change(HOST, settings=ConnectionSettings(insecure=True))
    assert store.secrets(connection.id).fields["secret"].reveal() == CANARY
    assert store.snapshot().by_host[HOST].settings.insecure


async def test_a_removed_connection_is_gone_and_its_id_is_never_used_again(
    database: Database,
) -> None:
    store = await _loaded(database)
    first = await connect(store)
    await store.remove(HOST)
    assert store.current(first.id) is None
    assert store.snapshot().by_host == {}
    with pytest.raises(Denied):
        store.secrets(first.id)
    with pytest.raises(NotFound):
        await store.remove(HOST)
    second = await connect(store)
    assert second.id != first.id


async def test_a_sealed_value_moved_to_another_row_does_not_open(
    database: Database, tmp_path: Path
) -> None:
    store = await _loaded(database)
    await connect(store, "good.example", secret=CANARY)
    evil = await connect(store, "evil.example", secret="own")
    with sqlite3.connect(tmp_path / "facade.db") as file:
        file.execute(
            "UPDATE connections SET sealed = "
            "(SELECT sealed FROM connections WHERE host = 'good.example') "
            "WHERE host = 'evil.example'"
        )
    file.close()
    again = await _loaded(database)
    with pytest.raises(Integrity):
        again.secrets(evil.id)


@pytest.mark.parametrize(
    "change",
    [
        "host = 'evil.example'",
        "provider = 'anonymous'",
        """settings = json_set(settings, '$.auth_hosts', json('["evil.example"]'))""",
        "settings = json_set(settings, '$.proxy', 'http://evil.example:3128')",
        "settings = json_set(settings, '$.insecure', json('true'))",
        "settings = json_set(settings, '$.ca_pem', 'evil')",
    ],
)
async def test_a_row_that_says_to_send_the_secret_elsewhere_does_not_open(
    database: Database, tmp_path: Path, change: str
) -> None:
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY)
    with sqlite3.connect(tmp_path / "facade.db") as file:
        assert file.execute(f"UPDATE connections SET {change}").rowcount == 1
    file.close()
    again = await _loaded(database)
    with pytest.raises(Integrity):
        again.secrets(connection.id)


async def test_settings_may_change_often_and_the_secret_stays(database: Database) -> None:
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY)
    for settings in (ConnectionSettings(auth_hosts=("a.example",)), ConnectionSettings()):
        await store.change(HOST, settings=settings)
        again = await _loaded(database)
        assert again.secrets(connection.id).fields["secret"].reveal() == CANARY


async def test_uses_are_noted_the_latest_wins_and_success_clears_the_error(
    database: Database,
) -> None:
    store = await _loaded(database)
    connection = await connect(store)
    generation = store.snapshot().generation
    await store.used(
        [
            ConnectionUsed(connection.id, at=20.0, error="refused " + "x" * 9999),
            ConnectionUsed(connection.id, at=10.0),
            ConnectionUsed("gone", at=10.0),
        ]
    )
    failed = store.get(HOST)
    assert failed.last_error is not None
    assert failed.last_error.startswith("refused")
    assert len(failed.last_error) == 500
    assert failed.last_error_at == 20.0
    await store.used([ConnectionUsed(connection.id, at=30.0)])
    assert (store.get(HOST).last_ok, store.get(HOST).last_error) == (30.0, None)
    assert (await _loaded(database)).get(HOST).last_ok == 30.0
    assert store.snapshot().generation == generation, "a use is no change"


async def test_resealing_makes_the_old_key_useless_and_loses_nothing(database: Database) -> None:
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY)
    await connect(store, "public.example", provider="anonymous", secret="")
    both = RING.with_fresh_primary()
    assert await store.reseal(Sealer(both, "connections")) == 1
    assert await store.reseal(Sealer(both, "connections")) == 0
    again = await _loaded(database, both.only_primary())
    assert again.secrets(connection.id).fields["secret"].reveal() == CANARY
    with pytest.raises(Unavailable):
        (await _loaded(database, RING)).secrets(connection.id)


async def test_two_additions_of_one_host_at_once_give_one_connection(database: Database) -> None:
    store = await _loaded(database)
    results = await asyncio.gather(connect(store), connect(store), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [Conflict]
    assert len(store.list()) == 1


async def test_the_canary_is_in_no_file_repr_or_error(database: Database, tmp_path: Path) -> None:
    store = await _loaded(database)
    connection = await connect(store, secret=CANARY)
    await store.change(HOST, prepared=Prepared("robot", {"secret": Secret(CANARY)}))
    shown = [
        repr(store.get(HOST)),
        repr(store.snapshot()),
        repr(store.secrets(connection.id)),
        repr(Prepared("robot", {"secret": Secret(CANARY)})),
        str(vars(store)),
    ]
    assert not any(CANARY in text for text in shown)
    for path in tmp_path.iterdir():  # noqa: ASYNC240 - a test may look at files
        assert CANARY.encode() not in path.read_bytes()


async def test_a_success_and_a_failure_in_one_batch_are_both_noted(database: Database) -> None:
    store = await _loaded(database)
    connection = await connect(store)
    await store.used(
        [ConnectionUsed(connection.id, at=20.0, error="no"), ConnectionUsed(connection.id, at=10.0)]
    )
    noted = store.get(HOST)
    assert (noted.last_ok, noted.last_error, noted.last_error_at) == (10.0, "no", 20.0)
