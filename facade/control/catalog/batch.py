"""Signing a batch of images that were walked: one plan, one publication.

Guarantees: all that is new in a batch becomes visible in one publication, or none of it does; a batch
that another import overtook is planned anew on what is signed now, so neither loses anything and
no path changes its digest. Signs nothing that was not walked before.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from facade.control.catalog.history import Imported, ImportRecord, Records
from facade.control.catalog.planning import Candidate, Plan, Status, plan
from facade.control.catalog.ports import Publisher
from facade.errors import Conflict, FacadeError
from facade.oci.digest import Digest
from facade.target import SignedTarget

PLANS = 5
"""How often a batch is planned anew when another import got in between."""


@dataclass(frozen=True, slots=True)
class TagOutcome:
    """What became of one tag.

    Arguments:
        target: the path that it is signed under.
        warmed: whether all of it is in the cache now; None = nobody asked for that.
    """

    reference: str
    status: Status
    digest: Digest | None = None
    target: str | None = None
    error: str | None = None
    warmed: bool | None = None


@dataclass(frozen=True, slots=True)
class Walked:
    """A tag's image, without its manifests' bytes: those are kept already."""

    reference: str
    candidate: Candidate
    blobs: Mapping[Digest, int]
    manifests: int
    bytes: int


class Batch:
    """Signs batches."""

    def __init__(self, publisher: Publisher, records: Records) -> None:
        self._publisher = publisher
        self._records = records

    async def sign(
        self, fleet: str, name: str, walked: Sequence[Walked], *, actor: str
    ) -> Mapping[str, TagOutcome]:
        """Plan and publish all at once; the outcome by reference. Raises Unavailable."""
        if not walked:
            return {}
        for attempt in range(1, PLANS + 1):
            signed = dict(await asyncio.to_thread(self._publisher.targets, fleet))
            history = await self._records.of_name(fleet, name)
            plans, outcomes = _plan_all(walked, signed, history)
            add = [made.target for made in plans.values() if made.add]
            if not add:
                break
            try:
                await asyncio.to_thread(self._publisher.publish, fleet, add=add)
                break
            except Conflict as error:
                # Another import signed one of these paths meanwhile: it is there to be seen now.
                if attempt == PLANS or not await self._overtaken(fleet, add):
                    outcomes = _all_failed(outcomes, error)
                    plans = {}
                    break
            except FacadeError as error:
                outcomes = _all_failed(outcomes, error)
                plans = {}
                break
        await self._remember(walked, plans, history, actor=actor)
        return outcomes

    async def _overtaken(self, fleet: str, add: Sequence[SignedTarget]) -> bool:
        signed = await asyncio.to_thread(self._publisher.targets, fleet)
        return any(target.path in signed for target in add)

    async def _remember(
        self,
        walked: Sequence[Walked],
        plans: Mapping[str, Plan],
        history: Sequence[ImportRecord],
        *,
        actor: str,
    ) -> None:
        """Note what was signed, and what an import that was killed signed without noting it."""
        noted = {record.path for record in history if record.withdrawn_at is None}
        imports = {
            made.target.path: Imported(
                target=made.target,
                reference=each.candidate.tag or each.reference,
                manifests=each.manifests,
                blobs=len(each.blobs),
                bytes=each.bytes,
            )
            for each in walked
            if (made := plans.get(each.reference)) is not None
            and (made.add or made.target.path not in noted)
        }
        await self._records.remember(tuple(imports.values()), actor=actor)


def _plan_all(
    walked: Sequence[Walked], signed: dict[str, SignedTarget], history: Sequence[ImportRecord]
) -> tuple[dict[str, Plan], dict[str, TagOutcome]]:
    """Plan each in turn, on top of the plans before it. Changes `signed`."""
    plans: dict[str, Plan] = {}
    outcomes: dict[str, TagOutcome] = {}
    for each in walked:
        digest = each.candidate.digest
        try:
            made = plan(each.candidate, signed, history)
        except FacadeError as error:
            outcomes[each.reference] = TagOutcome(
                each.reference, Status.FAILED, digest, error=error.message
            )
            continue
        if made.add:
            signed[made.target.path] = made.target
        plans[each.reference] = made
        outcomes[each.reference] = TagOutcome(each.reference, made.status, digest, made.target.path)
    return plans, outcomes


def _all_failed(outcomes: Mapping[str, TagOutcome], error: FacadeError) -> dict[str, TagOutcome]:
    """Nothing new was signed: what was to be has failed, what was there already is unchanged."""
    return {
        reference: replace(outcome, status=Status.FAILED, target=None, error=error.message)
        if outcome.status in (Status.IMPORTED, Status.MOVED)
        else outcome
        for reference, outcome in outcomes.items()
    }
