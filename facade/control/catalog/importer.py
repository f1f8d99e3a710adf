"""Import: freeze tags as signed artifacts.

Guarantees: each tag is resolved once, its image walked and checked whole, and signed as what it was
then; one bad tag fails by itself; what is good is signed in one publication, so that devices see
all of a batch or nothing of it; running a batch again, after a kill too, finishes it and changes
nothing that is signed. Two imports at once lose nothing: whoever finds its plan overtaken plans
anew. Parallel work is bounded per import and per registry.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from facade.control.catalog.batch import Batch, TagOutcome, Walked
from facade.control.catalog.closure import Closure, Wanted
from facade.control.catalog.history import Records
from facade.control.catalog.order import ImportOrder, check_order
from facade.control.catalog.planning import Candidate, Status
from facade.control.catalog.ports import ConnectionLookup, ManifestStore, Publisher, Registry
from facade.control.catalog.walk import PARALLEL, Walk
from facade.control.catalog.warming import warm
from facade.errors import FacadeError, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.upstream.connection import Connection
from facade.wings import CachePort

log = structlog.get_logger(__name__)

PARALLEL_TAGS = 8
"""Tags of one import that are worked on at once."""

Progress = Callable[[Mapping[str, Any]], None]


class Importer:
    """See the module.

    Arguments:
        cache: warms the cache when asked to; None = there is none to warm.
    """

    def __init__(
        self,
        *,
        connections: ConnectionLookup,
        registry: Registry,
        publisher: Publisher,
        manifests: ManifestStore,
        records: Records,
        cache: CachePort | None = None,
    ) -> None:
        self._connections = connections
        self._registry = registry
        self._publisher = publisher
        self._manifests = manifests
        self._batch = Batch(publisher, records)
        self._cache = cache
        self._gates: dict[RegistryHost, asyncio.Semaphore] = {}

    async def run(
        self, order: ImportOrder, *, actor: str, progress: Progress
    ) -> Sequence[TagOutcome]:
        """Import every reference of `order`; one outcome each, in order, repetitions once.

        Arguments:
            progress: is called with `{"tag", "step"}` while a tag is worked on (warming: with
                "done" and "total" blobs too), and with `{"tag", "status", "error"?}` at its end.

        Raises Invalid or NotFound when the order as a whole cannot be done, Unavailable.
        """
        name = check_order(order)
        await self._check_fleet(order.fleet)
        connection = self._connections.get(order.host).connection
        references = tuple(dict.fromkeys(order.references))
        slots = asyncio.Semaphore(PARALLEL_TAGS)

        checked: dict[Digest, int] = {}  # tags of one repository share most of their layers

        async def one(reference: Tag | Digest) -> Walked | TagOutcome:
            async with slots:
                result = await self._walk(connection, order, name, reference, progress, checked)
            if isinstance(result, TagOutcome):
                _tell(progress, result)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(reference)) for reference in references]
        results = [task.result() for task in tasks]
        walked = [result for result in results if isinstance(result, Walked)]
        signed = await self._batch.sign(order.fleet, name, walked, actor=actor)
        outcomes = [
            signed[result.reference] if isinstance(result, Walked) else result for result in results
        ]
        if order.warm:
            warmed = await self._warm(connection, order.repository, walked, signed, progress)
            outcomes = [
                replace(each, warmed=warmed.get(each.reference, each.warmed)) for each in outcomes
            ]
        for result in walked:
            _tell(progress, signed[result.reference])
        return outcomes

    async def _check_fleet(self, fleet: str) -> None:
        if fleet not in await asyncio.to_thread(self._publisher.fleets):
            raise NotFound(f"There is no fleet {fleet}. Add it with: facade fleet add {fleet}")

    async def _walk(
        self,
        connection: Connection,
        order: ImportOrder,
        name: str,
        reference: Tag | Digest,
        progress: Progress,
        checked: dict[Digest, int],
    ) -> Walked | TagOutcome:
        text = str(reference)
        progress({"tag": text, "step": "checking"})
        # Parsed and in one order, so that the same choice is always signed alike.
        platforms = tuple(sorted({Platform.parse(platform) for platform in order.platforms}))
        gate = self._gates.setdefault(connection.host, asyncio.Semaphore(PARALLEL))
        walk = Walk(self._registry, connection, order.repository, gate, checked=checked)
        try:
            closure = await walk.run(reference, Wanted(platforms, order.with_referrers))
            progress({"tag": text, "step": "keeping"})
            await self._manifests.keep(order.host, order.repository, closure.manifests)
        except FacadeError as error:
            return TagOutcome(text, Status.FAILED, error=error.message)
        except Exception:
            # A defect that one image brings out must not cost the rest of the batch.
            log.exception("import_failed", host=str(order.host), repository=str(order.repository))
            return TagOutcome(text, Status.FAILED, error="Internal error; see the log.")
        return Walked(
            reference=text,
            candidate=_candidate(order, name, reference, closure, platforms),
            blobs=closure.blobs,
            manifests=len(closure.manifests),
            bytes=closure.bytes,
        )

    async def _warm(
        self,
        connection: Connection,
        repository: Repository,
        walked: Sequence[Walked],
        signed: Mapping[str, TagOutcome],
        progress: Progress,
    ) -> Mapping[str, bool]:
        """Whether all of each tag that was signed is in the cache now; it may cost speed only."""
        if self._cache is None:
            return {}
        known: dict[Digest, bool] = {}  # tags of one repository share most of their layers
        whole: dict[str, bool] = {}
        for each in walked:
            if signed[each.reference].status is Status.FAILED:
                continue
            new = [blob for blob in each.blobs.items() if blob[0] not in known]
            results = await warm(
                *(self._cache, connection, repository, new), tag=each.reference, progress=progress
            )
            known |= {result.digest: result.cached for result in results}
            whole[each.reference] = all(known[digest] for digest in each.blobs)
        return whole


def _candidate(
    order: ImportOrder,
    name: str,
    reference: Tag | Digest,
    closure: Closure,
    platforms: tuple[Platform, ...],
) -> Candidate:
    return Candidate(
        fleet=order.fleet,
        name=name,
        version=order.version,
        registry=order.host,
        repository=order.repository,
        tag=str(reference) if isinstance(reference, Tag) else None,
        digest=closure.digest,
        length=closure.length,
        media_type=closure.media_type,
        platforms=tuple(map(str, platforms)),
        referrers=closure.referrers,
    )


def _tell(progress: Progress, outcome: TagOutcome) -> None:
    event: dict[str, Any] = {"tag": outcome.reference, "status": str(outcome.status)}
    if outcome.error is not None:
        event["error"] = outcome.error
    progress(event)
