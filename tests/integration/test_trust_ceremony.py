"""Real ceremonies with several holders: keys made on different machines, changes carried between them."""

import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Targets

from facade.control.signing.keys import read_key
from facade.control.signing.proposal import Proposal
from facade.errors import Conflict
from tests.integration.test_signing_processes import killed_at, start
from tests.support.ceremony import Control, Holder, Machine
from tests.support.signing import make_target


@dataclass(frozen=True)
class Installation:
    control: Control
    alice: Holder
    bob: Holder
    carol: Holder
    dan: Holder  # targets

    @property
    def machine(self) -> Machine:
        return self.control.machine


@pytest.fixture
def unsigned(tmp_path: Path) -> Installation:
    """Keys are made, and the first ceremony waits for its signatures."""
    holders = [
        Holder(tmp_path / name, "targets" if name == "dan" else "root")
        for name in ("alice", "bob", "carol", "dan")
    ]
    control = Control(Machine(tmp_path / "control"), tmp_path / "change.json")
    alice, bob, carol, dan = holders
    made = control.machine.must(
        *("init", "--fleet", "dev", "--fleet", "prod", "--root-threshold", "2"),
        *(part for holder in (alice, bob, carol) for part in ("--root-key", holder.public)),
        *("--targets-key", dan.public),
    )
    assert made["published"] is False
    assert made["keys"]["root"] == [alice.key_id, bob.key_id, carol.key_id]
    return Installation(control, alice, bob, carol, dan)


@pytest.fixture
def it(unsigned: Installation) -> Installation:
    done = unsigned.control.carry(unsigned.alice, unsigned.bob, unsigned.dan)
    assert done["published"] is True
    return unsigned


def test_two_of_three_holders_make_the_first_repository(unsigned: Installation) -> None:
    it, control = unsigned, unsigned.control
    assert not control.metadata.exists() or not list(control.metadata.iterdir())
    control.machine.must("export", control.medium)
    after_alice = it.alice.sign(control.medium)
    assert after_alice["added"] == {"root": 1, "targets": 0}
    assert [need["missing"] for need in after_alice["missing"]] == [1, 1]
    assert control.machine.must("import", control.medium)["published"] is False, "short by one"
    it.carol.sign(control.medium)
    assert it.dan.sign(control.medium)["added"] == {"root": 0, "targets": 1}
    done = control.machine.must("import", control.medium)
    assert done["published"] is True
    pinned = Path(done["root"])
    assert pinned.read_bytes() == control.root(1).read_bytes()
    target = make_target()
    control.publisher().publish("dev", add=[target])
    assert control.client().target(target.path) == target
    roles = {role["role"]: role for role in control_status(control)["roles"]}
    assert (roles["root"]["threshold"], len(roles["root"]["keys"])) == (2, 3)


def control_status(control: Control) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = control.machine.must(
        "status", "--repository", control.repository
    )
    return found


def test_holders_may_sign_copies_at_the_same_time(unsigned: Installation, tmp_path: Path) -> None:
    control = unsigned.control
    published = []
    for holder in (unsigned.alice, unsigned.dan, unsigned.carol):
        copy = tmp_path / f"{holder.folder.name}.json"
        control.machine.must("export", copy)
        holder.sign(copy)
        published.append(control.machine.must("import", copy)["published"])
    assert published == [False, False, True]


def test_a_holder_sees_what_would_change_before_signing(unsigned: Installation) -> None:
    control = unsigned.control
    control.machine.must("export", control.medium)
    ran = unsigned.alice.trust("sign", control.medium)
    assert "root: 2 of 3 keys must sign" in ran.stderr
    assert f"root: adds the key {unsigned.bob.key_id}" in ran.stderr
    assert "fleet prod: delegated to the key" in ran.stderr
    assert "still to sign" in ran.stdout


def test_threshold_short_by_one_is_refused(it: Installation) -> None:
    it.machine.must("renew", "root")
    before = sorted(path.name for path in it.control.metadata.iterdir())
    done = it.control.carry(it.carol)
    assert done["published"] is False
    assert done["missing"][0]["unsigned"] == [it.alice.key_id, it.bob.key_id]
    assert sorted(path.name for path in it.control.metadata.iterdir()) == before
    assert (
        "waits for signatures"
        in it.machine.trust("status", "--repository", it.control.repository).stderr
    )
    again = it.machine.trust("renew")
    assert again.code == 1
    assert "waits for signatures already" in again.stderr
    assert it.control.carry(it.carol, it.bob)["published"] is True
    assert it.control.current.root.signed.version == 2


def test_the_same_holder_twice_counts_once(it: Installation) -> None:
    it.machine.must("renew", "root")
    assert it.control.carry(it.bob, it.bob)["published"] is False


def test_a_key_of_nobody_signs_nothing(it: Installation, tmp_path: Path) -> None:
    mallory = Holder(tmp_path / "mallory", "root")
    it.machine.must("renew", "root")
    it.machine.must("export", it.control.medium)
    ran = mallory.trust("sign", it.control.medium)
    assert ran.code == 1
    assert "No key" in ran.stderr


def test_a_signature_that_is_wrong_is_refused(it: Installation) -> None:
    it.machine.must("renew", "root")
    it.machine.must("export", it.control.medium)
    it.alice.sign(it.control.medium)
    content = json.loads(it.control.medium.read_text())
    content["root"]["signatures"][0]["sig"] = "00" * 64
    it.control.medium.write_text(json.dumps(content))
    ran = it.machine.trust("import", it.control.medium)
    assert ran.code == 1
    assert "is wrong" in ran.stderr


def test_a_change_that_was_altered_on_the_road_is_another_change(it: Installation) -> None:
    it.machine.must("renew", "root")
    it.machine.must("export", it.control.medium)
    content = json.loads(it.control.medium.read_text())
    content["root"]["signed"]["expires"] = "2099-01-01T00:00:00Z"
    it.control.medium.write_text(json.dumps(content))
    it.alice.sign(it.control.medium)
    it.bob.sign(it.control.medium)
    ran = it.machine.trust("import", it.control.medium)
    assert ran.code == 1
    assert "another change" in ran.stderr


def test_a_holder_refuses_what_does_not_follow_on_the_root_it_knows(
    it: Installation, tmp_path: Path
) -> None:
    """A control machine in wrong hands has a holder sign on top of a tree of its own."""
    known = tmp_path / "known-root.json"
    known.write_bytes(it.control.root(1).read_bytes())
    evil = Control(Machine(tmp_path / "evil"), tmp_path / "evil.json")
    evil.machine.must("init", "--root-key", it.alice.public, "--targets-key", it.dan.public)
    evil.carry(it.alice, it.dan)
    evil.machine.must("renew", "root")
    evil.machine.must("export", evil.medium)
    ran = it.alice.trust("sign", evil.medium, "--root", known)
    assert ran.code == 1
    assert "Do not sign" in ran.stderr
    it.machine.must("renew", "root")
    it.machine.must("export", it.control.medium)
    it.alice.sign(it.control.medium, "--root", known)


@pytest.mark.parametrize("paths", [["*/*/*"], ["dev/*/*", "prod/*/*"]])
def test_a_carried_delegation_to_more_than_the_fleets_names_is_not_signed(
    it: Installation, paths: list[str]
) -> None:
    it.machine.must("renew", "targets")
    it.machine.must("export", it.control.medium)
    content = json.loads(it.control.medium.read_text())
    content["targets"]["signed"]["delegations"]["roles"][0]["paths"] = paths
    it.control.medium.write_text(json.dumps(content))
    ran = it.dan.trust("sign", it.control.medium)
    assert ran.code == 1
    assert "alone, terminating" in ran.stderr


def test_a_device_that_slept_through_several_root_rotations(
    it: Installation, tmp_path: Path
) -> None:
    """Every holder is replaced, one by one, while a stock client is down."""
    client = it.control.client(tmp_path / "device")
    target = make_target()
    it.control.publisher().publish("dev", add=[target])
    assert client.target(target.path) == target
    holders = [it.alice, it.bob, it.carol]
    for number in range(3):
        new = Holder(tmp_path / f"new-{number}", "root")
        leaving = holders.pop(0)
        done = rotate_root(it, new, leaving, signers=[leaving, holders[0], new])
        assert done["published"] is True
        holders.append(new)
    it.machine.must("rotate", "timestamp", "snapshot")
    it.control.carry(*holders[:2])
    assert it.control.current.root.signed.version == 5
    second = make_target("v2")
    it.control.publisher().publish("dev", add=[second])
    assert client.updater().get_targetinfo(second.path) is not None
    assert it.control.client().target(target.path) == target  # and one that starts from root 1


def rotate_root(
    it: Installation, new: Holder, leaving: Holder, *, signers: list[Holder]
) -> dict[str, object]:
    it.machine.must("rotate", "root", "--add", new.public, "--drop", leaving.key_id[:8])
    done: dict[str, object] = it.control.carry(*signers)
    return done


def test_a_new_root_needs_the_old_keys_and_the_new(it: Installation, tmp_path: Path) -> None:
    """Old 2 of 3 alone is not enough when two keys are new; neither are the new ones alone."""
    erin, fred = Holder(tmp_path / "erin", "root"), Holder(tmp_path / "fred", "root")
    it.machine.must(
        *("rotate", "root", "--add", erin.public, "--add", fred.public),
        *("--drop", it.alice.key_id, "--drop", it.bob.key_id),
    )
    assert it.control.carry(erin, fred)["published"] is False
    it.machine.must("discard")
    it.machine.must(
        *("rotate", "root", "--add", erin.public, "--add", fred.public),
        *("--drop", it.alice.key_id, "--drop", it.bob.key_id),
    )
    assert it.control.carry(it.alice, it.bob)["published"] is False
    assert it.control.carry(erin)["published"] is False
    assert it.control.carry(fred)["published"] is True
    it.control.client().updater()


def test_a_rotated_root_key_is_not_let_in_again(it: Installation, tmp_path: Path) -> None:
    new = Holder(tmp_path / "erin", "root")
    rotate_root(it, new, it.alice, signers=[it.alice, it.bob, new])
    ran = it.machine.trust("rotate", "root", "--add", it.alice.public, "--drop", new.key_id)
    assert ran.code == 1
    assert "never comes back" in ran.stderr
    it.machine.must("renew", "root")
    it.machine.must("export", it.control.medium)
    assert it.alice.trust("sign", it.control.medium).code == 1


def test_a_key_of_one_role_is_not_another_roles(it: Installation) -> None:
    ran = it.machine.trust("rotate", "targets", "--add", it.alice.public)
    assert ran.code == 1
    assert "another role's" in ran.stderr


@pytest.mark.parametrize("threshold", ["3", "0"])
def test_an_impossible_threshold_is_refused(it: Installation, threshold: str) -> None:
    ran = it.machine.trust("rotate", "targets", "--threshold", threshold)
    assert ran.code in (1, 2)
    assert it.machine.trust("export", it.control.medium).code == 1, "nothing waits"


def test_the_targets_key_moves_to_another_holder(it: Installation, tmp_path: Path) -> None:
    client = it.control.client(tmp_path / "device")
    client.updater()
    erin = Holder(tmp_path / "erin", "targets")
    it.machine.must("rotate", "targets", "--add", erin.public, "--drop", it.dan.key_id)
    done = it.control.carry(it.alice, it.bob, it.dan, erin)
    assert done["versions"]["targets"] == 2
    client.updater()
    it.machine.must("delegate", "kiosks")
    assert it.control.carry(erin)["published"] is True
    assert "kiosks" in it.control.current.fleets
    it.machine.must("renew", "targets")
    it.machine.must("export", it.control.medium)
    assert it.dan.trust("sign", it.control.medium).code == 1


def test_a_lost_targets_key_is_replaced_without_it(it: Installation, tmp_path: Path) -> None:
    erin = Holder(tmp_path / "erin", "targets")
    it.machine.must("rotate", "targets", "--add", erin.public, "--drop", it.dan.key_id)
    assert it.control.carry(it.alice, it.carol, erin)["published"] is True
    it.control.client().updater()


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_an_online_key_is_replaced_and_the_old_one_signs_no_more(
    it: Installation, tmp_path: Path, role: str
) -> None:
    client = it.control.client(tmp_path / "device")
    client.updater()
    old = read_key(it.control.online / f"{role}.pem")
    it.machine.must("rotate", role)
    assert it.control.carry(it.alice, it.bob)["published"] is True
    (left,) = it.control.online.glob(f"{role}*")
    assert read_key(left).public_key.keyid == it.control.current.root.signed.roles[role].keyids[0]
    client.updater()
    it.control.publisher().publish("dev", add=[make_target()])
    client.updater()
    name = "timestamp.json" if role == "timestamp" else None
    if name is None:
        version = it.control.current.snapshot.signed.version
        name = f"{version}.snapshot.json"
    forged = Metadata.from_file(str(it.control.metadata / name))
    forged.sign(old)
    forged.to_file(str(it.control.metadata / name))
    with pytest.raises(RepositoryError):
        it.control.client().updater()


def test_a_lost_online_key_needs_a_word(it: Installation) -> None:
    (it.control.online / "timestamp.pem").unlink()
    it.machine.must("rotate", "timestamp")
    it.machine.must("export", it.control.medium)
    it.alice.sign(it.control.medium)
    it.bob.sign(it.control.medium)
    ran = it.machine.trust("import", it.control.medium)
    assert ran.code == 1
    assert "--old-key-lost" in ran.stderr
    assert it.machine.must("import", it.control.medium, "--old-key-lost")["published"] is True
    it.control.client().updater()
    it.control.publisher().publish("dev", add=[make_target()])


def test_a_fleets_publisher_key_is_replaced_and_its_role_signed_anew(
    it: Installation, tmp_path: Path
) -> None:
    target = make_target()
    it.control.publisher().publish("dev", add=[target])
    client = it.control.client(tmp_path / "device")
    assert client.target(target.path) == target
    old = read_key(it.control.online / "dev.pem")
    it.machine.must("rotate", "dev")
    done = it.control.carry(it.dan)
    assert set(done["versions"]) == {"targets", "dev", "snapshot", "timestamp"}
    assert client.target(target.path) == target
    current = it.control.current
    version = current.snapshot.signed.meta["dev.json"].version
    role = Metadata[Targets].from_file(str(it.control.metadata / f"{version}.dev.json"))
    role.sign(old)
    with pytest.raises(RepositoryError):
        current.targets.signed.verify_delegate("dev", role.signed_bytes, role.signatures)
    it.control.publisher().publish("dev", add=[make_target("v2")])
    assert client.updater().get_targetinfo("dev/app/v2") is not None


def test_a_revoked_publisher_key_is_not_let_in_again(it: Installation) -> None:
    """Its PEM is put back under the role's name, and named by its URI: neither helps."""
    old = (it.control.online / "dev.pem").read_bytes()
    old_id = read_key(it.control.online / "dev.pem").public_key.keyid
    it.machine.must("rotate", "dev")
    it.control.carry(it.dan)
    put_back = it.control.online / "dev.pem"
    put_back.write_bytes(old)
    put_back.chmod(0o600)
    it.control.publisher().publish("dev", add=[make_target()])
    assert it.control.client().target("dev/app/v1") == make_target()
    revoked = it.control.current.targets.signed.unrecognized_fields["x-facade-revoked-keys"]
    assert revoked == [old_id]
    it.machine.must("remove", "dev")
    it.control.carry(it.dan)
    put_back.write_bytes(old)
    put_back.chmod(0o600)
    it.machine.must("delegate", "dev")
    it.control.carry(it.dan)
    role = it.control.current.targets.signed.get_delegated_role("dev")
    assert old_id not in role.keyids


def test_a_removed_fleet_keeps_its_last_line_and_can_come_back(
    it: Installation, tmp_path: Path
) -> None:
    it.control.publisher().publish("prod", add=[make_target(fleet="prod")])
    client = it.control.client(tmp_path / "device")
    assert client.target("prod/app/v1") is not None
    it.machine.must("remove", "prod")
    assert it.control.carry(it.dan)["published"] is True
    assert it.control.current.fleets == ("dev",)
    assert it.control.current.snapshot.signed.meta["prod.json"].version == 2
    assert client.target("prod/app/v1") is None
    assert not list(it.control.online.glob("prod*"))
    assert it.machine.trust("remove", "prod").code == 1
    it.machine.must("delegate", "prod")
    it.control.carry(it.dan)
    assert client.target("prod/app/v1") is None
    assert it.control.current.snapshot.signed.meta["prod.json"].version == 3
    with pytest.raises(Conflict, match="before it was withdrawn"):
        it.control.publisher().publish("prod", add=[make_target(fleet="prod", content=b"other")])


def test_renewing_gives_another_year(it: Installation) -> None:
    before = it.control.current
    it.machine.must("renew")
    it.control.carry(it.bob, it.carol, it.dan)
    after = it.control.current
    assert after.root.signed.version == before.root.signed.version + 1
    assert after.targets.signed.version == before.targets.signed.version + 1
    assert after.root.signed.expires >= before.root.signed.expires
    assert it.machine.trust("renew", "snapshot").code == 1
    it.control.client().updater()


def test_importing_twice_changes_nothing(it: Installation) -> None:
    it.machine.must("renew", "root")
    it.control.carry(it.alice, it.bob)
    before = (it.control.metadata / "timestamp.json").read_bytes()
    assert it.machine.must("import", it.control.medium)["published"] is True
    assert (it.control.metadata / "timestamp.json").read_bytes() == before


def test_a_change_for_another_state_is_refused(it: Installation, tmp_path: Path) -> None:
    it.machine.must("delegate", "kiosks")
    stale = tmp_path / "stale.json"
    it.machine.must("export", stale)
    it.dan.sign(stale)
    it.machine.must("discard")
    it.machine.must("renew", "targets")
    it.control.carry(it.dan)
    ran = it.machine.trust("import", stale)
    assert ran.code == 1
    assert "another state" in ran.stderr


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "facade-ceremony/1"}', "\x00"])
def test_a_damaged_file_is_refused_in_words(it: Installation, content: str) -> None:
    it.control.medium.write_text(content)
    for ran in (it.alice.trust("sign", it.control.medium),):
        assert ran.code == 1
        assert "no carried file" in ran.stderr


def test_no_holders_secret_reaches_the_medium_or_the_control_machine(it: Installation) -> None:
    for path in (*it.machine.folder.rglob("*"), it.control.medium):
        if path.is_file():
            assert b"ENCRYPTED PRIVATE KEY" not in path.read_bytes()
    (key,) = it.alice.folder.glob("offline/*.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in key.read_bytes()


def step_by_step(
    it: Installation, prepared: Proposal, check: Callable[[], None], *options: str
) -> int:
    """Import `prepared` again and again, killed one step later each time; gives the steps."""
    it.control.medium.write_bytes(prepared.to_bytes())
    step = 0
    while True:
        step += 1
        work = lambda: os._exit(  # noqa: E731
            it.machine.trust("import", it.control.medium, *options).code
        )
        writer = start(killed_at(step, work))
        writer.join(60)
        check()
        if writer.exitcode != -signal.SIGKILL:
            assert writer.exitcode == 0
            return step


@pytest.mark.slow
@pytest.mark.parametrize("role", ["root", "targets", "timestamp", "dev"])
def test_interrupted_at_each_disk_step_clients_see_all_or_nothing(
    it: Installation, tmp_path: Path, role: str
) -> None:
    """A stock client refreshes after every kill: before, in between and after, it is content."""
    signers = [it.alice, it.bob, it.dan]
    options: list[str] = []
    if role in {"root", "targets"}:
        new = Holder(tmp_path / "erin", role)
        leaving = it.alice if role == "root" else it.dan
        options = ["--add", str(new.public), "--drop", leaving.key_id]
        signers.append(new)
    it.control.publisher().publish("dev", add=[make_target()])
    it.machine.must("rotate", role, *options)
    it.machine.must("export", it.control.medium)
    for holder in signers:
        holder.trust("sign", it.control.medium)
    prepared = Proposal.from_bytes(it.control.medium.read_bytes())
    assert prepared.is_complete
    waking = it.control.client(tmp_path / "device")

    def check() -> None:
        assert waking.target("dev/app/v1") == make_target()
        assert it.control.client().target("dev/app/v1") == make_target()

    steps = step_by_step(it, prepared, check)
    assert steps > 20
    assert it.control.current.root.signed.version == (1 if role == "dev" else 2)
    it.control.publisher().publish("dev", add=[make_target("v2")])
    assert waking.target("dev/app/v2") == make_target("v2")


@pytest.mark.slow
def test_a_lost_keys_rotation_is_finished_by_whoever_comes_next(
    it: Installation, tmp_path: Path
) -> None:
    """Without the old key there is an instant without a valid timestamp; the next writer ends it."""
    (it.control.online / "timestamp.pem").unlink()
    it.machine.must("rotate", "timestamp")
    it.machine.must("export", it.control.medium)
    it.alice.sign(it.control.medium)
    it.bob.sign(it.control.medium)
    prepared = Proposal.from_bytes(it.control.medium.read_bytes())

    def check() -> None:
        if (it.control.repository / "publishing.json").exists():
            assert it.control.publisher().resign() is False
            it.control.client().updater()

    step_by_step(it, prepared, check, "--old-key-lost")
    it.control.client().updater()
