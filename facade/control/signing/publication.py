"""From a proposal that its holders have signed to published metadata.

Guarantees: nothing is published whose thresholds are not met, that does not follow on what is published
now, or on top of what our online keys did not sign; fleets whose key changed are signed anew in the
same step; online keys that are no longer named are removed once the change is on disk. An
interruption leaves the old state or the new one (`MetadataRepository.publish_root`).
"""

from collections.abc import Mapping
from typing import Any

import structlog
from tuf.api.metadata import Metadata, Root, Targets

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.draft import Draft, check_own
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.proposal import Proposal
from facade.control.signing.repository import Current, MetadataRepository
from facade.control.signing.withdrawn import WithdrawnPaths
from facade.errors import Conflict, FacadeError

log = structlog.get_logger(__name__)


def publish(
    files: MetadataRepository,
    keys: OnlineKeys,
    clock: Clock,
    proposal: Proposal,
    *,
    old_key_lost: bool = False,
) -> Mapping[str, int]:
    """Publish; the caller holds the repository's lock. Gives the new versions by role.

    Arguments:
        old_key_lost: go on although the former online key of a role is gone, whose signature
            would show that what is published now is ours.

    Raises Conflict, saying what is missing, Integrity, Unavailable.
    """
    current = files.current() if files.exists else None
    if is_published(proposal, current):
        return {}
    _check_base(proposal, current)
    missing = [str(need) for need in proposal.needs() if need.missing]
    if missing:
        raise Conflict(f"Signatures are missing: {'; '.join(missing)}.")
    root, top = proposal.top, proposal.targets
    _check_former_keys(keys, current, root, old_key_lost=old_key_lost)
    draft = Draft(files, keys, clock, root=root, current=current, lost=old_key_lost)
    if proposal.root is not None:
        draft.add_root(proposal.root)
    if top is not None:
        draft.add_top(top)
        for fleet in layout.delegated_fleets(top.signed):
            named = layout.delegated_keys(top.signed, fleet)
            if named != _fleet_keys(current, fleet):
                body = _body(files, keys, current, fleet, old_key_lost=old_key_lost)
                draft.add_targets(body, fleet, [keys.signer(fleet, named)], top.signed)
        _note_withdrawn(files, current, top.signed)
    draft.publish()
    _retire(keys, current, root, top.signed if top else None)
    return draft.versions


def is_published(proposal: Proposal, current: Current | None) -> bool:
    """Whether `proposal` is what `current` says, as after a run that was interrupted later on."""
    pairs: tuple[tuple[Metadata[Any] | None, Metadata[Any] | None], ...] = (
        (proposal.root, current.root if current else None),
        (proposal.targets, current.targets if current else None),
    )
    return all(
        want is None or (have is not None and have.signed_bytes == want.signed_bytes)
        for want, have in pairs
    )


def _check_base(proposal: Proposal, current: Current | None) -> None:
    pairs: tuple[tuple[Metadata[Any] | None, Metadata[Any] | None], ...] = (
        (proposal.base_root, current.root if current else None),
        (proposal.base_targets, current.targets if current else None),
    )
    for want, have in pairs:
        if (want is None) != (have is None) or (
            want is not None and have is not None and want.signed_bytes != have.signed_bytes
        ):
            raise Conflict(
                "The change was prepared for another state of the repository than the present "
                "one. Discard it and prepare it anew: facade trust discard"
            )


def _check_former_keys(
    keys: OnlineKeys, current: Current | None, root: Root, *, old_key_lost: bool
) -> None:
    """A former online key is wanted once more, so that no client meets a gap."""
    if current is None or old_key_lost:
        return
    for role in (layout.SNAPSHOT, layout.TIMESTAMP):
        former = current.root.signed.roles[role].keyids
        if former != root.roles[role].keyids and not keys.has(role, former):
            raise Conflict(_LOST.format(role=role, folder=keys.folder))


_LOST = (
    "The former key of the role {role} is not in {folder}. Put it back; if it is lost, add "
    "--old-key-lost, after making sure that nobody else has written to the repository."
)


def _body(
    files: MetadataRepository,
    keys: OnlineKeys,
    current: Current | None,
    fleet: str,
    *,
    old_key_lost: bool,
) -> Targets:
    """What a fleet whose key is new signs: what it signed before."""
    former = _fleet_keys(current, fleet)
    if current is None or not former:
        return Targets()
    published = files.fleet(current, fleet)
    if keys.has(fleet, former):
        check_own(fleet, published, keys.signers(fleet))
    elif not old_key_lost:
        raise Conflict(_LOST.format(role=fleet, folder=keys.folder))
    return published.signed


def _note_withdrawn(files: MetadataRepository, current: Current | None, top: Targets) -> None:
    """A removed fleet's artifacts are withdrawn: should it come back, its paths never change."""
    for fleet in set(current.fleets if current else ()) - set(layout.delegated_fleets(top)):
        assert current is not None
        signed = files.fleet(current, fleet).signed
        WithdrawnPaths(files.folder).note(layout.digests(signed, signed.targets))


def _fleet_keys(current: Current | None, fleet: str) -> frozenset[str]:
    return layout.delegated_keys(current.targets.signed, fleet) if current else frozenset()


def _retire(keys: OnlineKeys, current: Current | None, root: Root, top: Targets | None) -> None:
    """Remove the online keys that this publication took out of use."""
    if current is None:
        return
    named: dict[str, frozenset[str]] = {
        role: frozenset(root.roles[role].keyids)
        for role in (layout.SNAPSHOT, layout.TIMESTAMP)
        if current.root.signed.roles[role].keyids != root.roles[role].keyids
    }
    if top is not None:
        for fleet in {*current.fleets, *layout.delegated_fleets(top)}:
            now = layout.delegated_keys(top, fleet)
            if now != _fleet_keys(current, fleet):
                named[fleet] = now
    for role, keep in named.items():
        try:
            keys.retire(role, keep)
        except FacadeError as error:  # it signs for nothing any more: no reason to fail
            log.warning("online_key_not_removed", role=role, error=error.message)
