"""Attacks on signed metadata, tried against the verifier (trust.md, "Attacks")."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tuf.api.metadata import Delegations, MetaFile, SuccinctRoles, TargetFile

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.trust.fetcher import MAX_FILE_BYTES
from facade.serving.trust.verifier import Verifier
from facade.serving.trust.view import SignedView
from tests.support.clock import FakeClock
from tests.support.tuf_repo import RepoSource, TufRepo, new_key, signed_target, target_file


class Client:
    """A verifier with its own folder, which can be restarted."""

    def __init__(self, repo: TufRepo, folder: Path, fleets: Sequence[str] = ("dev",)) -> None:
        self.source = RepoSource(repo)
        self.clock = FakeClock(time.time())
        self.folder = folder
        self.fleets = fleets
        self._root = repo.pinned
        self.view: SignedView | None = None
        self.restart()

    def restart(self) -> None:
        self.view = None
        self.verifier = Verifier(self._root, self.folder, self.source, self.clock)

    def refresh(self) -> SignedView:
        self.view = self.verifier.refresh(self.view, self.fleets)
        return self.view

    def refused(self, reason: Reason = Reason.METADATA_UNAVAILABLE) -> str:
        """The words of a refresh that must fail."""
        with pytest.raises(Unavailable) as caught:
            self.refresh()
        assert caught.value.reason is reason
        return caught.value.message


@pytest.fixture
def repo() -> TufRepo:
    repo = TufRepo(["dev", "prod"])
    repo.publish(signed_target("dev/app/v1", b"one"), signed_target("prod/app/v1", b"two"))
    return repo


@pytest.fixture
def client(repo: TufRepo, tmp_path: Path) -> Client:
    client = Client(repo, tmp_path / "metadata")
    assert set(client.refresh().fleets["dev"].by_path) == {"dev/app/v1"}
    return client


@pytest.mark.parametrize("restarted", [False, True])
def test_rollback_of_timestamp(repo: TufRepo, client: Client, restarted: bool) -> None:
    old = repo.files["timestamp.json"]
    repo.publish()
    client.refresh()
    repo.files["timestamp.json"] = old
    if restarted:
        client.restart()
    assert "version" in client.refused()


@pytest.mark.parametrize("restarted", [False, True])
def test_rollback_of_snapshot(repo: TufRepo, client: Client, restarted: bool) -> None:
    old = repo.timestamp.snapshot_meta
    repo.publish()
    client.refresh()
    repo.timestamp.snapshot_meta = old
    repo.bump("timestamp")
    if restarted:
        client.restart()
    assert "snapshot version" in client.refused()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("role", ["targets", "dev"])
def test_rollback_of_targets_and_of_a_fleet(
    repo: TufRepo, client: Client, role: str, restarted: bool
) -> None:
    old = repo.snapshot.meta[f"{role}.json"]
    repo.bump(role)
    repo.publish()
    client.refresh()
    repo.snapshot.meta[f"{role}.json"] = old
    repo.publish()
    if restarted:
        client.restart()
    assert f"{role}.json version" in client.refused()


def test_rollback_by_dropping_a_fleet_from_the_snapshot(repo: TufRepo, client: Client) -> None:
    del repo.snapshot.meta["prod.json"]
    repo.publish()
    assert "prod.json" in client.refused()


@pytest.mark.parametrize("restarted", [False, True])
def test_rollback_of_root(repo: TufRepo, client: Client, restarted: bool) -> None:
    old = dict(repo.files)
    repo.rotate_root(renew=["timestamp", "snapshot", "targets"])
    repo.bump("targets")
    repo.publish()
    assert client.refresh().versions["root"] == 2
    repo.files.clear()
    repo.files.update(old)
    if restarted:
        client.restart()
    client.refused()


def test_freeze_expired_timestamp(repo: TufRepo, client: Client) -> None:
    """By the machine's clock, which the updater asks, and by ours, which the view asks."""
    view = client.refresh()
    client.clock.advance(86_400)
    with pytest.raises(Unavailable) as caught:
        view.check_fresh("dev", client.clock.time())
    assert caught.value.reason is Reason.METADATA_EXPIRED
    client.refused(Reason.METADATA_EXPIRED)
    repo.lifetimes["timestamp"] *= -1
    repo.bump("timestamp")
    client.refused(Reason.METADATA_EXPIRED)


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_freeze_expired_top_level_role(repo: TufRepo, tmp_path: Path, role: str) -> None:
    repo.lifetimes[role] *= -1
    if role == "root":
        repo.rotate_root()
    else:
        repo.bump(role)
    repo.publish()
    Client(repo, tmp_path).refused(Reason.METADATA_EXPIRED)


def test_freeze_expired_fleet_role_stops_that_fleet_only(repo: TufRepo, tmp_path: Path) -> None:
    repo.lifetimes["dev"] = -repo.lifetimes["timestamp"]
    repo.publish(fleets=["dev"])
    view = Client(repo, tmp_path, ["dev", "prod"]).refresh()
    assert view.failed["dev"].reason is Reason.METADATA_EXPIRED
    assert set(view.fleets) == {"prod"}


def test_mix_and_match_of_snapshot_and_targets(repo: TufRepo, client: Client) -> None:
    """A fleet's file from one publication, the snapshot from another; both signed."""
    repo.publish(signed_target("dev/app/v2"))
    later = repo.files["3.dev.json"]
    repo.publish(signed_target("dev/app/v3"))
    repo.files["4.dev.json"] = later
    view = client.refresh()
    assert "dev" not in view.fleets
    assert view.failed["dev"].reason is Reason.METADATA_UNAVAILABLE


def test_mix_and_match_of_timestamp_and_snapshot(repo: TufRepo, client: Client) -> None:
    repo.publish()
    other = repo.files["3.snapshot.json"]
    repo.publish()
    repo.files["4.snapshot.json"] = other
    client.refused()


def test_mix_and_match_of_a_fleets_files_with_the_same_version_number(
    repo: TufRepo, client: Client
) -> None:
    """Both are signed by the fleet's key; the snapshot lists one of them."""
    client.refresh()
    repo.publish(signed_target("dev/app/v2"))
    listed = repo.snapshot.meta["dev.json"]
    repo.fleets["dev"].targets.clear()
    repo.put("dev", repo.fleets["dev"])
    repo.snapshot.meta["dev.json"] = listed
    assert "dev" in client.refresh().failed


def test_mix_and_match_with_the_same_version_number(repo: TufRepo, client: Client) -> None:
    """The updater trusts a snapshot it knows by its version alone; we compare its hash again."""
    repo.snapshot.meta["extra.json"] = MetaFile(1)
    repo.put("snapshot", repo.snapshot)
    repo.bump("timestamp")
    assert "does not match" in client.refused()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_wrong_key_for_a_top_level_role(repo: TufRepo, client: Client, role: str) -> None:
    repo.signers[role] = [new_key()]
    if role == "targets":
        repo.bump("targets")
    repo.publish()
    assert "0/1 keys" in client.refused()


def test_wrong_key_for_a_fleet(repo: TufRepo, client: Client) -> None:
    repo.signers["dev"] = repo.signers["prod"]
    repo.publish(signed_target("dev/app/v2"))
    client.fleets = ["dev", "prod"]
    view = client.refresh()
    assert set(view.fleets) == {"prod"}
    assert "0/1 keys" in view.failed["dev"].message


def test_wrong_key_for_the_next_root(repo: TufRepo, client: Client) -> None:
    signer = repo.signers["root"][0]
    repo.rotate_root()
    repo.put("root", repo.root, repo.signers["root"])  # without the old key
    assert signer.public_key.keyid not in repo.root.roles["root"].keyids
    client.refused()


def test_a_revoked_key_re_admitted_by_name(repo: TufRepo, client: Client) -> None:
    """The fleet's role is unchanged in the snapshot; only its delegation lost the key."""
    repo.rotate_key("dev")
    repo.bump("targets")
    repo.publish()
    view = client.refresh()
    assert "dev" not in view.fleets
    assert "dev" in view.failed
    repo.publish(fleets=["dev"])
    assert "dev" in client.refresh().fleets


def test_a_revoked_key_under_the_keyid_of_the_new_one(repo: TufRepo, client: Client) -> None:
    """A signature of the old key, filed under the new key's id, is no signature of the new."""
    old = repo.rotate_key("dev")
    (new,) = repo.signers["dev"]
    repo.bump("targets")
    repo.fleets["dev"].version += 1
    data = json.loads(repo.put("dev", repo.fleets["dev"], [old]))
    data["signatures"][0]["keyid"] = new.public_key.keyid
    forged = json.dumps(data).encode()
    repo.files[f"{repo.fleets['dev'].version}.dev.json"] = forged
    repo.snapshot.meta["dev.json"] = MetaFile.from_data(
        repo.fleets["dev"].version, forged, ["sha256"]
    )
    repo.publish()
    assert "dev" in client.refresh().failed


def test_threshold_short_by_one(tmp_path: Path) -> None:
    repo = TufRepo(root_keys=3, root_threshold=2)
    client = Client(repo, tmp_path)
    client.refresh()
    old = repo.signers["root"]
    repo.rotate_root()
    repo.put("root", repo.root, [old[0], *repo.signers["root"]])
    assert "1/2 keys" in client.refused()
    repo.put("root", repo.root, [*old, repo.signers["root"][0]])
    assert "1/2 keys" in client.refused()
    repo.put("root", repo.root, [*old[:2], *repo.signers["root"][:2]])
    assert client.refresh().versions["root"] == 2


def test_threshold_short_by_one_counted_twice(tmp_path: Path) -> None:
    """The same signature twice counts once."""
    repo = TufRepo(root_keys=2, root_threshold=2)
    client = Client(repo, tmp_path)
    repo.root.version = 2
    data = json.loads(repo.put("root", repo.root, [repo.signers["root"][0]]))
    data["signatures"] *= 2
    repo.files["2.root.json"] = json.dumps(data).encode()
    client.refused()


@pytest.mark.parametrize("paths", [["*/*/*"], ["prod/*/*"], ["dev/*/*", "prod/*/*"], ["dev/*"]])
def test_delegation_stepping_outside_its_fleets_paths(
    repo: TufRepo, client: Client, paths: list[str]
) -> None:
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.delegations.roles["dev"].paths = paths
    repo.bump("targets")
    repo.publish()
    view = client.refresh()
    assert "dev" not in view.known_fleets
    assert "dev" not in view.fleets
    assert any("dev/*/*" in problem for problem in view.problems)


@pytest.mark.parametrize("terminating", [True, False])
@pytest.mark.parametrize("paths", [["dev/*/*"], ["*/*/*"], ["x/*/*", "d?v/app/v1"], None], ids=str)
def test_delegation_that_comes_before_a_fleets_and_has_the_say_there(
    tmp_path: Path, paths: list[str] | None, terminating: bool
) -> None:
    """A stock client asks it first: it would not take what we serve for signed, or something else."""
    repo = TufRepo(["other", "aside", "dev"])
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    first = repo.targets.delegations.roles["other"]
    first.paths, first.terminating = paths, terminating
    if paths is None:
        first.path_hash_prefixes = [f"{digit:x}" for digit in range(16)]
    aside = repo.targets.delegations.roles["aside"]
    aside.paths = ["dev/*", "*", "dev/*/*/*", "aside/*/*", "prod/*/*"]
    repo.bump("targets")
    repo.publish(signed_target("dev/app/v1"))
    view = Client(repo, tmp_path).refresh()
    assert not view.known_fleets
    assert not view.fleets
    assert "'dev' is ignored: 'other' comes before it" in " ".join(view.problems)
    del repo.targets.delegations.roles["other"]
    repo.bump("targets")
    repo.publish()
    assert set(Client(repo, tmp_path).refresh().fleets) == {"dev"}


def test_delegation_that_does_not_terminate(repo: TufRepo, client: Client) -> None:
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.delegations.roles["dev"].terminating = False
    repo.bump("targets")
    repo.publish()
    assert client.refresh().known_fleets == {"prod"}


@pytest.mark.parametrize(
    "path",
    [
        *("prod/app/v9", "dev/../v9", "dev/./v9", "dev//v9", "/dev/app/v9", "dev/app/", "dev/app"),
        *(
            "dev/app/v9/x",
            "dev/app/..",
            "dev/App/v9",
            "dev/app/v 9",
            "dev/%2e%2e/v9",
            "dev\\app/v9/x",
        ),
    ],
)
def test_target_paths_with_empty_or_dotted_segments(
    repo: TufRepo, client: Client, path: str
) -> None:
    """One such path is no accident: the whole role is refused, and the fleet stops."""
    file = target_file(signed_target("dev/app/v9"))
    repo.fleets["dev"].targets[path] = TargetFile(
        file.length, file.hashes, path, {"custom": file.custom}
    )
    repo.publish(fleets=["dev"])
    view = client.refresh()
    assert "dev" not in view.fleets
    assert "dev" in view.failed


def test_targets_signed_by_the_top_level_role(repo: TufRepo, client: Client) -> None:
    target = signed_target("dev/app/v9")
    repo.targets.targets[target.path] = target_file(target)
    repo.bump("targets")
    repo.publish()
    assert "may only delegate" in client.refused()


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", "3.snapshot.json", "3.dev.json"])
def test_endless_data(repo: TufRepo, client: Client, name: str) -> None:
    repo.publish(signed_target("dev/app/v2"))
    client.source.endless.add(name)
    client.source.sent = 0
    if name == "3.dev.json":
        assert "dev" in client.refresh().failed
    else:
        client.refused()
    assert client.source.sent <= MAX_FILE_BYTES + 256 * 1024


def test_endless_data_that_the_snapshot_announces(repo: TufRepo, client: Client) -> None:
    """A length in metadata is a promise of the signer's, not a limit of ours."""
    repo.snapshot.meta["dev.json"] = MetaFile(version=3, length=10**12)
    repo.publish()
    client.source.endless.add("3.dev.json")
    client.source.sent = 0
    assert "dev" in client.refresh().failed
    assert client.source.sent <= MAX_FILE_BYTES + 256 * 1024


def test_slow_data(repo: TufRepo, client: Client) -> None:
    """However little comes at a time, the whole refresh has a deadline."""
    repo.publish()
    client.source.pace = lambda: client.clock.advance(61)
    assert "took over" in client.refused()


def test_huge_metadata(repo: TufRepo, client: Client) -> None:
    repo.fleets["dev"].unrecognized_fields["x"] = "x" * MAX_FILE_BYTES
    repo.publish(fleets=["dev"])
    view = client.refresh()
    assert "dev" in view.failed
    assert not list(client.folder.glob("tmp*"))


def test_deeply_nested_metadata(repo: TufRepo, client: Client) -> None:
    deep = b'{"signed":' + b"[" * 200_000 + b"]" * 200_000 + b',"signatures":[]}'
    repo.files["timestamp.json"] = deep[:16_000]
    client.refused()
    repo.publish(signed_target("dev/app/v2"))
    repo.files["3.dev.json"] = deep
    repo.snapshot.meta["dev.json"] = MetaFile.from_data(3, deep, ["sha256"])
    repo.publish()
    assert "dev" in client.refresh().failed


def test_traversal_in_role_names(repo: TufRepo, client: Client, tmp_path: Path) -> None:
    repo.delegate("../../evil", paths=["../../evil/*/*"])
    repo.delegate("dev/../prod", paths=["dev/*/*"])
    repo.bump("targets")
    repo.publish()
    before = {path.name for path in tmp_path.iterdir()}
    client.fleets = ["dev", "../../evil", "..", "served/x"]
    view = client.refresh()
    assert view.known_fleets == {"dev", "prod"}
    assert set(view.fleets) == {"dev"}
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_fleet_role_that_delegates_onwards_to_another_fleets_name(
    repo: TufRepo, client: Client
) -> None:
    """The key of dev cannot make the updater write over the role of prod."""
    dev = repo.fleets["dev"]
    inner = TufRepo(["prod"])
    dev.delegations = inner.targets.delegations
    assert dev.delegations is not None
    assert dev.delegations.roles is not None
    dev.delegations.roles["prod"].paths = ["dev/*/*"]
    repo.publish(fleets=["dev"])
    client.source.requests.clear()
    view = client.refresh()
    assert "2.prod.json" not in client.source.requests
    assert any("delegates further" in problem for problem in view.problems)
    client.fleets = ["dev", "prod"]
    assert set(client.refresh().fleets) == {"dev", "prod"}


@pytest.mark.parametrize("restarted", [False, True])
def test_clock_set_back(client: Client, restarted: bool) -> None:
    """Expired metadata does not come back to life."""
    client.clock.advance(2 * 86_400)
    client.refused(Reason.METADATA_EXPIRED)
    client.clock.shift(-2 * 86_400)
    if restarted:
        client.restart()
    assert "clock" in client.refused(Reason.CLOCK_SET_BACK)
    with pytest.raises(Unavailable):
        client.verifier.check_clock()
    client.clock.shift(2 * 86_400 - 299)
    client.refused(Reason.METADATA_EXPIRED)


@pytest.mark.parametrize("restarted", [False, True])
def test_root_rotated_twice_while_the_facade_was_down(
    repo: TufRepo, client: Client, restarted: bool
) -> None:
    repo.rotate_root(renew=["root", "timestamp"])
    repo.rotate_root(renew=["root", "snapshot", "targets"])
    repo.bump("targets")
    repo.publish(signed_target("dev/app/v2"))
    if restarted:
        client.restart()
    view = client.refresh()
    assert view.versions["root"] == 3
    assert set(view.fleets["dev"].by_path) == {"dev/app/v1", "dev/app/v2"}
    client.restart()
    assert client.verifier.persisted(None, ["dev"]).versions == view.versions


def test_root_rotated_with_one_link_missing(repo: TufRepo, client: Client) -> None:
    repo.rotate_root(renew=["root", "timestamp"])
    repo.rotate_root(renew=["root", "timestamp"])
    repo.publish()
    del repo.files["2.root.json"]
    client.refused()


@pytest.mark.parametrize(
    "name",
    ["timestamp.json", "snapshot.json", "targets.json", "dev.json", "root_history/2.root.json"],
)
def test_tampering_with_the_persisted_files(repo: TufRepo, client: Client, name: str) -> None:
    """They are re-checked on every start, and replaced from the source where it can be had."""
    repo.rotate_root(renew=["root", "timestamp"])
    repo.publish()
    client.refresh()
    client.folder.joinpath(name).write_bytes(b'{"signed": {}, "signatures": []}')
    client.restart()
    if name == "dev.json":
        assert "dev" in client.verifier.persisted(None, ["dev"]).failed
    else:
        with pytest.raises(Unavailable):
            client.verifier.persisted(None, ["dev"])
    assert "dev" in client.refresh().fleets


def test_a_role_in_another_roles_place(repo: TufRepo, client: Client) -> None:
    """Every file says what it is; a snapshot is no timestamp, whoever signed it."""
    client.folder.joinpath("timestamp.json").unlink()
    client.folder.joinpath("timestamp.json").write_bytes(repo.files["2.snapshot.json"])
    with pytest.raises(Unavailable, match="of type snapshot"):
        client.verifier.persisted(None, ["dev"])


def test_an_older_file_behind_an_entry_without_hashes(repo: TufRepo, client: Client) -> None:
    """A snapshot need not list lengths and hashes; versions are compared all the same."""
    old = repo.files["2.dev.json"]
    repo.publish(signed_target("dev/app/v2"))
    repo.snapshot.meta["dev.json"] = MetaFile(version=3)
    repo.publish()
    client.refresh()
    client.folder.joinpath("dev.json").write_bytes(old)
    client.restart()
    assert "has version 2, not 3" in client.verifier.persisted(None, ["dev"]).failed["dev"].message


def test_delegation_to_hash_bins(repo: TufRepo, client: Client) -> None:
    """They would give one key the names of every fleet."""
    key = repo.signers["prod"][0].public_key
    repo.targets.delegations = Delegations(
        {key.keyid: key}, succinct_roles=SuccinctRoles([key.keyid], 1, 1, "dev")
    )
    repo.bump("targets")
    repo.publish()
    assert "by name" in client.refused()


def test_freeze_expired_fleet_role_by_our_clock(repo: TufRepo, client: Client) -> None:
    """Also when it was fresh at the last refresh: the view looks at every decision."""
    repo.lifetimes["dev"] = repo.lifetimes["timestamp"] / 2
    repo.publish(fleets=["dev"])
    view = client.refresh()
    client.clock.advance(50_000)
    view.check_fresh("prod", client.clock.time())
    with pytest.raises(Unavailable):
        view.check_fresh("dev", client.clock.time())
    client.view = None
    assert client.refresh().failed["dev"].reason is Reason.METADATA_EXPIRED
