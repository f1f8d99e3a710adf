"""Carried files: what is refused before anybody signs, and what signatures count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from facade.control.signing import changes
from facade.control.signing.changes import RoleKeys
from facade.control.signing.keys import new_key
from facade.control.signing.pending import Pending, read_proposal
from facade.control.signing.proposal import MAX_BYTES, Proposal
from facade.errors import Conflict, FacadeError, Integrity, Invalid, NotFound, Unavailable
from tests.support.clock import FakeClock

CLOCK = FakeClock()
OLD, NEW, TARGETS, FLEET = (CryptoSigner.generate_ed25519() for _ in range(4))


def base() -> tuple[Metadata[Root], Metadata[Targets]]:
    online = {role: RoleKeys([new_key("ed25519").public_key]) for role in ("snapshot", "timestamp")}
    offline = {"root": RoleKeys([OLD.public_key]), "targets": RoleKeys([TARGETS.public_key])}
    root = Metadata(changes.first_root({**offline, **online}, CLOCK))
    root.sign(OLD)
    body = changes.next_targets(None, CLOCK)
    changes.set_fleet(body, "dev", FLEET.public_key, ())
    targets = Metadata(body)
    targets.sign(TARGETS)
    return root, targets


def proposal() -> Proposal:
    """Root's key is replaced, and a fleet added."""
    root, targets = base()
    following = changes.next_root(root.signed, CLOCK)
    changes.set_keys(following, "root", RoleKeys([NEW.public_key]), ())
    body = changes.next_targets(targets.signed, CLOCK)
    changes.set_fleet(body, "kiosks", new_key("ed25519").public_key, ())
    return Proposal("try", Metadata(following), Metadata(body), root, targets)


def test_what_is_written_is_read_again() -> None:
    made = proposal().signed_with("root", [OLD])
    again = Proposal.from_bytes(made.to_bytes())
    assert again.to_bytes() == made.to_bytes()
    assert again.purpose == "try"
    assert again.needs() == made.needs()


def test_the_new_root_needs_both_and_says_whose() -> None:
    made = proposal()
    old, new, targets = made.needs()
    assert (old.by, new.by) == ("the keys of root 1", "the keys of root 2")
    assert str(new) == (
        f"root by the keys of root 2: 0 of 1; still to sign: {NEW.public_key.keyid}"
    )
    assert targets.unsigned == (TARGETS.public_key.keyid,)
    made = made.signed_with("root", [OLD, NEW, new_key("ed25519")])
    assert set(made.signatures()["root"]) == {OLD.public_key.keyid, NEW.public_key.keyid}
    assert not made.is_complete
    assert made.signed_with("targets", [TARGETS]).is_complete
    assert not made.is_complete, "a signature on one changes no other"


def test_it_is_described_from_its_content() -> None:
    lines = proposal().describe()
    assert f"root: adds the key {NEW.public_key.keyid}" in lines
    assert f"root: drops the key {OLD.public_key.keyid}" in lines
    assert any(line.startswith("fleet kiosks: delegated to the key") for line in lines)
    assert not any("dev" in line for line in lines), "what stays is not said"


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *way, last = path.split(".")
        for step in way:
            content = content[step]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("format", "facade-ceremony/2"), "another format"),
        (changed("root.signed.version", 5), "version 5, after version 1"),
        (changed("targets.signed.version", 1), "version 1, after version 1"),
        (changed("root.signed.consistent_snapshot", False), "consistent snapshots"),
        (changed("base.root", None), "half"),
        (changed("base.root.signatures", []), "not sound"),
        (changed("base.targets.signed.version", 1000), "not sound"),
        (changed("root.signed._type", "targets"), "carried"),
        (changed("base", {"root": None, "targets": None}), None),
        (
            changed(
                "targets.signed.targets", {"dev/x/1": {"length": 1, "hashes": {"sha256": "a"}}}
            ),
            "may only delegate",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], None], words: str | None
) -> None:
    content = json.loads(proposal().to_bytes())
    change(content)
    data = json.dumps(content).encode()
    if words is None:  # a first ceremony's file: complete in itself
        assert Proposal.from_bytes(data).base_root is None
        return
    with pytest.raises(FacadeError, match=words):
        Proposal.from_bytes(data)


def test_nothing_to_sign_is_refused() -> None:
    content = json.loads(proposal().to_bytes())
    content["root"] = content["targets"] = None
    with pytest.raises(Invalid, match="nothing"):
        Proposal.from_bytes(json.dumps(content).encode())
    content = json.loads(proposal().to_bytes())
    content.update(root=None, base={"root": None, "targets": None})
    with pytest.raises(Invalid, match="both"):
        Proposal.from_bytes(json.dumps(content).encode())


def test_a_base_signed_by_another_targets_key_is_refused() -> None:
    root, targets = base()
    targets.sign(new_key("ed25519"))
    following = Metadata(changes.next_root(root.signed, CLOCK))
    data = Proposal("try", following, None, root, targets).to_bytes()
    with pytest.raises(Integrity, match="not sound"):
        Proposal.from_bytes(data)


def test_only_signatures_of_the_same_content_are_merged() -> None:
    made = proposal()
    signed = made.signed_with("root", [OLD])
    assert made.merged(signed).signatures()["root"] == (OLD.public_key.keyid,)
    with pytest.raises(Conflict, match="another change"):
        made.merged(proposal().signed_with("root", [OLD]))


def test_bytes_that_are_no_root_are_not_what_it_follows_on() -> None:
    made = proposal()
    assert made.base_root is not None
    assert made.follows(made.base_root.to_bytes())
    assert made.root is not None
    assert not made.follows(made.root.to_bytes())
    assert not made.follows(b"{}")


def test_one_change_waits_at_a_time_and_can_be_given_up(tmp_path: Path) -> None:
    pending = Pending(tmp_path / "repository")
    assert pending.load() is None
    assert pending.discard() is False
    made = proposal()
    pending.save(made)
    loaded = pending.load()
    assert loaded is not None
    assert loaded.to_bytes() == made.to_bytes()
    assert pending.discard() is True
    assert pending.load() is None


def test_files_that_cannot_be_read_are_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read_proposal(tmp_path / "none")
    with pytest.raises(Unavailable, match="cannot be read"):
        read_proposal(tmp_path)
    (tmp_path / "huge").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(Invalid, match="larger"):
        read_proposal(tmp_path / "huge")


def test_keys_of_a_role_are_checked() -> None:
    root, targets = base()
    following = changes.next_root(root.signed, CLOCK)
    key = new_key("ed25519").public_key
    with pytest.raises(Invalid, match="threshold"):
        changes.set_keys(following, "root", RoleKeys([key], 2), ())
    with pytest.raises(Conflict, match="twice"):
        changes.set_keys(following, "root", RoleKeys([key, key], 1), ())
    with pytest.raises(Conflict, match="never comes back"):
        changes.set_keys(following, "root", RoleKeys([key]), [key.keyid])
    assert following.roles["root"].keyids == [OLD.public_key.keyid]
    body = changes.next_targets(targets.signed, CLOCK)
    with pytest.raises(Conflict, match="never comes back"):
        changes.set_fleet(body, "kiosks", FLEET.public_key, ())
    with pytest.raises(NotFound, match="no fleet"):
        changes.drop_fleet(body, "kiosks")
    with pytest.raises(Invalid):
        changes.set_fleet(body, "timestamp", key, ())
