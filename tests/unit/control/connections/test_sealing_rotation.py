"""Changing the sealing key: online, and safe wherever it is interrupted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.connections.rotation import SealingRotation
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.model import Prepared
from facade.control.database.engine import Database
from facade.errors import Conflict, Unavailable
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.secret import Secret
from tests.support.clock import FakeClock
from tests.support.control import connect, fresh_database

HOSTS = [f"registry-{number}.example" for number in range(20)]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_database(tmp_path) as database:
        yield database


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "sealing.key"
    KeyRing.generate().save(path)
    return path


async def opened(database: Database, key_file: Path) -> ConnectionStore:
    """The store as after a restart."""
    store = ConnectionStore(database, Sealer(KeyRing.load(key_file), "connections"), FakeClock())
    await store.load()
    return store


def revealed(store: ConnectionStore) -> dict[str, str]:
    return {
        str(stored.host): store.secrets(stored.connection.id).fields["secret"].reveal()
        for stored in store.list()
    }


def database_files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("facade.db*")]


class Tokens:
    def __init__(self) -> None:
        self.retired: frozenset[str] = frozenset()

    async def reseal(self, sealer: Sealer, retired: frozenset[str]) -> None:
        self.retired = retired


async def test_the_old_key_opens_nothing_in_the_database_files(
    database: Database, key_file: Path, tmp_path: Path
) -> None:
    store, old, tokens = await opened(database, key_file), KeyRing.load(key_file), Tokens()
    for host in HOSTS:
        await connect(store, host, secret=f"canary of {host}")
    await store.change(
        RegistryHost.parse(HOSTS[0]), prepared=Prepared("robot", {"secret": Secret("second")})
    )
    await store.remove(RegistryHost.parse(HOSTS[1]))
    before = revealed(store)
    sealed = [stored.sealed for stored in store.list()]

    rotation = SealingRotation(key_file, old, rows=store, leftovers=database, tokens=tokens)
    done = await rotation.rotate()

    assert (done.resealed, done.retired) == (len(HOSTS) - 1, (old.primary,))
    assert tokens.retired == {old.primary}
    assert KeyRing.load(key_file).ids == {done.key}
    assert revealed(store) == revealed(await opened(database, key_file)) == before
    files = database_files(tmp_path)
    assert len(files) >= 2, "the write-ahead log is looked at too"
    for content in files:
        assert f"f1.{old.primary}.".encode() not in content
        assert not any(text and text.encode() in content for text in sealed)
    thief = ConnectionStore(database, Sealer(old, "connections"), FakeClock())
    await thief.load()
    with pytest.raises(Unavailable):
        revealed(thief)


async def test_secrets_are_handed_out_and_changed_all_the_while(
    database: Database, key_file: Path
) -> None:
    store = await opened(database, key_file)
    for host in HOSTS:
        await connect(store, host)
    rotation = SealingRotation(key_file, KeyRing.load(key_file), rows=store, leftovers=database)
    rotating = asyncio.create_task(rotation.rotate())
    reads = 0
    while not rotating.done():
        assert set(revealed(store).values()) <= {"hunter2", "changed"}
        reads += 1
        if reads == 3:
            await store.change(
                RegistryHost.parse(HOSTS[3]),
                prepared=Prepared("robot", {"secret": Secret("changed")}),
            )
            await connect(store, "new.example", secret="changed")
        await asyncio.sleep(0)
    await rotating
    assert reads > 3
    again = revealed(await opened(database, key_file))
    assert again == revealed(store)
    assert again[HOSTS[3]] == again["new.example"] == "changed"


class Power:
    """Cuts off at one of the steps of a rotation."""

    def __init__(self, store: ConnectionStore, database: Database, step: int) -> None:
        self._store, self._database = store, database
        self._step = step

    def _cut(self) -> None:
        self._step -= 1
        if self._step == 0:
            raise Unavailable("power cut", reason=Reason.INTERNAL)

    def save(self, ring: KeyRing, path: Path) -> None:
        self._cut()
        ring.save(path)
        self._cut()

    async def reseal(self, sealer: Sealer) -> int:
        self._cut()
        count = await self._store.reseal(sealer)
        self._cut()
        return count

    async def erase_leftovers(self) -> None:
        self._cut()
        await self._database.erase_leftovers()
        self._cut()


@pytest.mark.parametrize("step", range(1, 11))
async def test_interrupted_at_any_step_nothing_is_lost_and_the_next_one_finishes(
    database: Database, key_file: Path, step: int
) -> None:
    store, old = await opened(database, key_file), KeyRing.load(key_file)
    for host in HOSTS[:3]:
        await connect(store, host)
    power = Power(store, database, step)
    with pytest.raises(Unavailable, match="power cut"):
        await SealingRotation(key_file, old, rows=power, leftovers=power, save=power.save).rotate()

    restarted = await opened(database, key_file)
    assert set(revealed(restarted).values()) == {"hunter2"}
    assert set(revealed(store).values()) == {"hunter2"}, "the process that goes on has them too"
    done = await SealingRotation(
        key_file, KeyRing.load(key_file), rows=restarted, leftovers=database
    ).rotate()
    assert KeyRing.load(key_file).ids == {done.key}
    assert old.primary != done.key
    assert set(revealed(await opened(database, key_file)).values()) == {"hunter2"}


async def test_another_key_file_in_its_place_changes_nothing(
    database: Database, key_file: Path
) -> None:
    store, ring = await opened(database, key_file), KeyRing.load(key_file)
    await connect(store)
    stranger = KeyRing.generate()
    stranger.save(key_file)
    rotation = SealingRotation(key_file, ring, rows=store, leftovers=database)
    with pytest.raises(Conflict, match="not the one that this facade was started with"):
        await rotation.rotate()
    assert KeyRing.load(key_file).ids == stranger.ids
    ring.save(key_file)
    assert (await rotation.rotate()).resealed == 1


async def test_a_process_that_failed_once_rotates_again(database: Database, key_file: Path) -> None:
    store = await opened(database, key_file)
    await connect(store)
    power = Power(store, database, 5)
    rotation = SealingRotation(
        key_file, KeyRing.load(key_file), rows=power, leftovers=power, save=power.save
    )
    with pytest.raises(Unavailable):
        await rotation.rotate()
    done = await rotation.rotate()
    assert len(done.retired) == 2
    assert set(revealed(await opened(database, key_file)).values()) == {"hunter2"}


async def test_two_rotations_at_once_come_one_after_the_other(
    database: Database, key_file: Path
) -> None:
    store = await opened(database, key_file)
    await connect(store)
    rotation = SealingRotation(key_file, KeyRing.load(key_file), rows=store, leftovers=database)
    first, second = await asyncio.gather(rotation.rotate(), rotation.rotate())
    assert second.retired == (first.key,)
    assert set(revealed(await opened(database, key_file)).values()) == {"hunter2"}
