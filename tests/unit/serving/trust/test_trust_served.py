"""Devices get verified files, of their own fleet, and one answer for everything else."""

import time
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from facade.errors import NotFound, Unavailable
from facade.serving.trust.fetcher import BASE_URL, FolderSource, MetadataFetcher
from facade.serving.trust.served import MetadataFiles, ServedFiles
from facade.serving.trust.shared import NodeFiles
from facade.serving.trust.verifier import Verifier
from tests.support.clock import FakeClock
from tests.support.tuf_repo import RepoSource, TufRepo, signed_target


class _Loads:
    """Loads a fleet by refreshing."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.asked: list[str] = []

    async def fleet(self, fleet: str) -> None:
        self.asked.append(fleet)
        self.verifier.refresh(None, [fleet])

    async def refresh(self) -> None:
        self.asked.append("refresh")
        self.verifier.refresh(None, ["dev"])


class _Setup:
    def __init__(self, folder: Path) -> None:
        self.repo = TufRepo(["dev", "prod"])
        self.repo.lifetimes["timestamp"] *= 3
        self.repo.publish(signed_target("dev/app/v1"))
        self.clock = FakeClock(time.time())
        self.folder = folder
        self.source = RepoSource(self.repo)
        self.verifier = Verifier(self.repo.pinned, folder, self.source, self.clock)
        self.loads = _Loads(self.verifier)
        self.files = MetadataFiles(self.verifier.served, self.loads)


@pytest.fixture
def setup(tmp_path: Path) -> _Setup:
    return _Setup(tmp_path / "m")


async def test_a_device_gets_what_the_chain_needs(setup: _Setup) -> None:
    setup.repo.rotate_root(renew=["root", "timestamp"])
    setup.repo.publish()
    setup.verifier.refresh(None, ["dev", "prod"])
    names = ["timestamp.json", "1.root.json", "2.root.json", "3.snapshot.json", "1.targets.json"]
    for name in [*names, "2.dev.json"]:
        assert await setup.files.read(name, "dev") == setup.repo.files[name]


async def test_its_fleet_is_loaded_when_it_asks(setup: _Setup) -> None:
    setup.verifier.refresh(None, [])
    assert await setup.files.read("2.dev.json", "dev") == setup.repo.files["2.dev.json"]
    assert setup.loads.asked == ["dev"]


async def test_everything_else_is_the_same_not_found(setup: _Setup) -> None:
    setup.verifier.refresh(None, ["dev", "prod"])
    answers = set()
    for name in [
        *("1.prod.json", "9.prod.json", "1.nobody.json", "9.dev.json", "9.root.json", "root.json"),
        *("snapshot.json", "dev.json", "../timestamp.json", "1.root.json/", "01.root.json", ""),
        *(
            "0.root.json",
            "1.timestamp.json",
            "highest-time",
            ".timestamp.json.new",
            "timestamp.json\n",
        ),
        *("1..json", "1.root.json\x00", "1.%64ev.json", "served", "99999999999.root.json"),
    ]:
        with pytest.raises(NotFound) as caught:
            await setup.files.read(name, "dev")
        answers.add((caught.value.message, caught.value.reason))
    assert len(answers) == 1


async def test_nothing_unverified_is_offered(setup: _Setup) -> None:
    """The updater persists a timestamp before it has the snapshot that it names."""
    setup.verifier.refresh(None, ["dev"])
    good = setup.repo.files["timestamp.json"]
    setup.repo.publish()
    del setup.repo.files["3.snapshot.json"]
    with pytest.raises(Unavailable):
        setup.verifier.refresh(None, ["dev"])
    assert setup.folder.joinpath("timestamp.json").read_bytes() != good
    assert await setup.files.read("timestamp.json", "dev") == good
    assert await setup.files.read("2.snapshot.json", "dev")


async def test_a_persisted_file_that_was_not_read_again_is_not_offered(setup: _Setup) -> None:
    view = setup.verifier.refresh(None, ["dev"])
    setup.folder.joinpath("dev.json").unlink()
    setup.folder.joinpath("dev.json").write_bytes(b"forged")
    setup.verifier.refresh(view, ["dev"])
    assert await setup.files.read("2.dev.json", "dev") == setup.repo.files["2.dev.json"]


async def test_what_was_replaced_stays_for_a_day(setup: _Setup) -> None:
    setup.verifier.refresh(None, ["dev"])
    setup.clock.advance(40_000)
    view = setup.verifier.refresh(None, ["dev"])
    setup.repo.publish(signed_target("dev/app/v2"))
    setup.verifier.refresh(view, ["dev"])
    setup.clock.advance(80_000)
    setup.verifier.refresh(None, ["dev"])
    assert await setup.files.read("2.dev.json", "dev")
    assert await setup.files.read("2.snapshot.json", "dev")


async def test_what_was_replaced_goes_after_a_day(setup: _Setup) -> None:
    setup.repo.publish(signed_target("dev/app/v2"))
    setup.verifier.refresh(None, ["dev"])
    setup.repo.publish(signed_target("dev/app/v3"))
    setup.clock.advance(86_401)
    view = setup.verifier.refresh(None, ["dev"])
    for name in ("3.dev.json", "3.snapshot.json"):
        with pytest.raises(NotFound):
            await setup.files.read(name, "dev")
    assert await setup.files.read("4.dev.json", "dev")
    setup.clock.advance(86_401)
    setup.verifier.refresh(view, ["dev"])
    assert await setup.files.read("4.dev.json", "dev"), "in use, however old"


def test_a_stock_client_is_content_with_the_served_folder(setup: _Setup, tmp_path: Path) -> None:
    setup.repo.rotate_root()
    setup.repo.publish()
    setup.verifier.refresh(None, ["dev"])
    (tmp_path / "client").mkdir()
    updater = Updater(
        str(tmp_path / "client"),
        BASE_URL,
        fetcher=MetadataFetcher(FolderSource(setup.folder / "served"), setup.clock),
        bootstrap=setup.repo.pinned,
    )
    assert updater.get_targetinfo("dev/app/v1") is not None


class _Two:
    """Two processes of one node, each with its own folder."""

    def __init__(self, first: _Setup, folder: Path) -> None:
        self.first = first
        self.folders = (first.folder, folder)
        verifier = Verifier(first.repo.pinned, folder, first.source, first.clock)
        self.verifiers = (first.verifier, verifier)
        self.loads = tuple(map(_Loads, self.verifiers))
        for each in self.verifiers:
            each.refresh(None, ["dev"])

    def files(self, index: int) -> MetadataFiles:
        own, other = ServedFiles(self.folders[index]), ServedFiles(self.folders[1 - index])
        return MetadataFiles(NodeFiles(own, [other]), self.loads[index])


async def test_a_device_that_meets_another_process_sees_no_version_go_back(
    setup: _Setup, tmp_path: Path
) -> None:
    two = _Two(setup, tmp_path / "other")
    setup.repo.publish(signed_target("dev/app/v2"))
    two.verifiers[0].refresh(None, ["dev"])  # the other one has not looked yet
    newest = setup.repo.files["timestamp.json"]
    for index in (0, 1):
        assert await two.files(index).read("timestamp.json", "dev") == newest
        for name in ("3.snapshot.json", "3.dev.json"):
            assert await two.files(index).read(name, "dev") == setup.repo.files[name]
    assert two.loads[0].asked.count("refresh") == 0
    assert two.loads[1].asked.count("refresh") == 1
    # Both are level now.
    await two.files(1).read("timestamp.json", "dev")
    assert two.loads[1].asked.count("refresh") == 1


async def test_one_that_cannot_refresh_still_hands_out_what_the_other_verified(
    setup: _Setup, tmp_path: Path
) -> None:
    two = _Two(setup, tmp_path / "other")

    class Broken(_Loads):
        async def refresh(self) -> None:
            raise Unavailable("The source is away.")

        async def fleet(self, fleet: str) -> None:
            pass

    setup.repo.publish(signed_target("dev/app/v2"))
    two.verifiers[0].refresh(None, ["dev"])
    own, other = ServedFiles(two.folders[1]), ServedFiles(two.folders[0])
    files = MetadataFiles(NodeFiles(own, [other]), Broken(two.verifiers[1]))
    for name in ("timestamp.json", "3.snapshot.json", "3.dev.json"):
        assert await files.read(name, "dev") == setup.repo.files[name]
    with pytest.raises(NotFound):
        await files.read("3.prod.json", "dev")
