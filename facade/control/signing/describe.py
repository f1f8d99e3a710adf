"""What a change of root and targets means, in sentences: what a holder reads before signing.

Pure; worked out from the metadata alone. Guarantees: every difference in keys, thresholds, lifetimes and
delegations is named, by full key id, so that it can be compared with what was agreed.
"""

from collections.abc import Iterator, Sequence

from tuf.api.metadata import Root, Signed, Targets

from facade.control.signing import layout


def describe(
    old_root: Root | None, root: Root | None, old_targets: Targets | None, targets: Targets | None
) -> Sequence[str]:
    """The differences, top down."""
    lines: list[str] = []
    if root is not None:
        lines += [_version("root", old_root, root), *_roles(old_root, root)]
    if targets is not None:
        lines += [_version("targets", old_targets, targets), *_fleets(old_targets, targets)]
    return lines


def _version(role: str, old: Signed | None, new: Signed) -> str:
    before = f"after version {old.version}" if old is not None else "the first"
    return f"{role} version {new.version}, {before}, valid until {new.expires:%Y-%m-%d}"


def _roles(old: Root | None, new: Root) -> Iterator[str]:
    for name in layout.TOP_LEVEL:
        role, former = new.roles[name], old.roles[name] if old is not None else None
        before = former.keyids if former is not None else []
        yield from (f"{name}: adds the key {key}" for key in role.keyids if key not in before)
        yield from (f"{name}: drops the key {key}" for key in before if key not in role.keyids)
        if former is None or former.threshold != role.threshold:
            was = f" (was {former.threshold})" if former is not None else ""
            yield f"{name}: {role.threshold} of {len(role.keyids)} keys must sign{was}"


def _fleets(old: Targets | None, new: Targets) -> Iterator[str]:
    before = layout.delegated_fleets(old) if old is not None else ()
    after = layout.delegated_fleets(new)
    for fleet in after:
        keys = ", ".join(sorted(layout.delegated_keys(new, fleet)))
        if fleet not in before:
            yield f"fleet {fleet}: delegated to the key {keys}"
        elif old is not None and layout.delegated_keys(old, fleet) != layout.delegated_keys(
            new, fleet
        ):
            former = ", ".join(sorted(layout.delegated_keys(old, fleet)))
            yield f"fleet {fleet}: delegated to the key {keys} instead of {former}"
    yield from (f"fleet {fleet}: removed" for fleet in before if fleet not in after)
