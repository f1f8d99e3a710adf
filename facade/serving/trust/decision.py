"""May this digest be served to that fleet? The walk over signed targets, memoised.

Guarantees: "yes" rests on a fresh view and on bytes that hash to what was signed; "no" is said
only when everything reachable was read, and in the same words whether the digest is signed for
another fleet or for nobody; what could not be decided is `CLOSURE_INCOMPLETE`, never "no". A
known answer costs a few dictionary look-ups. One walk per (fleet, registry, repository) serves
all who wait; one that leaves disturbs nobody. Does not know whether the host is connected.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from facade.clock import Clock
from facade.errors import Denied, FacadeError, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import Descriptor
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.trust.closure import Allowed
from facade.serving.trust.parsing import is_small
from facade.serving.trust.reading import Kept, ManifestSource, Reader
from facade.serving.trust.referrers import Referrers
from facade.serving.trust.view import RETRY_SECONDS, FleetView, SignedView
from facade.serving.trust.walk import HOLE_SECONDS, Key, Walk
from facade.target import SignedTarget

MAX_FETCHED = 64
"""Manifests that one request may make the walk fetch (trust.md, "The closure")."""
WALK_SECONDS = 20.0
"""How long one request may wait for the walk."""
_YIELD_EVERY = 16


class ViewSource(Protocol):
    """Who holds the view: `refresher.Refresher`."""

    def view(self) -> SignedView:
        """The view in use. Raises Unavailable."""
        ...

    async def fleet(self, fleet: str) -> None:
        """Return when the fleet's role was loaded, or could not be."""
        ...


@dataclass(slots=True)
class _Place:
    """One fleet's walk in one repository, and who waits for what."""

    host: RegistryHost
    repository: Repository
    walk: Walk
    task: asyncio.Task[None] | None = None
    waiting: dict[Key, "asyncio.Future[None]"] = field(default_factory=dict)
    waiters: dict[Key, int] = field(default_factory=dict)
    fetched: int = 0


class Authorisation:
    """Decides.

    Arguments:
        manifests: the source of last resort, counted against `MAX_FETCHED`.
        kept: asked first, uncounted; None = every manifest is counted.
    """

    def __init__(
        self,
        *,
        views: ViewSource,
        manifests: ManifestSource,
        clock: Clock,
        kept: Kept | None = None,
    ) -> None:
        self._views = views
        self._clock = clock
        self._reader = Reader(manifests, kept, clock)
        self._referrers = Referrers(self._reader)
        self._places: dict[tuple[str, RegistryHost, Repository], _Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def decide_now(self, fleet: str, request: PullRequest) -> Allowed | None:
        """The decision, if it is known without waiting; None = `await decide`.

        A referrers request is decided as one for the manifest. Raises Denied (NOT_SIGNED) and
        Unavailable (METADATA_EXPIRED, METADATA_UNAVAILABLE, CLOCK_SET_BACK,
        CLOSURE_INCOMPLETE).
        """
        role = self._role(fleet)
        if role is None:
            return None
        place = self._place(role, request)
        if place is None:
            raise _denied()
        walk, wanted = place.walk, _wanted(request)
        if wanted is Role.MANIFEST:
            walk.ask(request.digest)
        allowed = walk.find(wanted, request.digest)
        if allowed is not None:
            return allowed
        if not walk.exhausted(self._clock.monotonic()):
            return None
        raise _denied() if walk.complete else _incomplete()

    def reached(self) -> frozenset[Digest]:
        """What the current views are known to reach: the cache evicts it last.

        Repositories that no device asked about since the start are not walked, and not in it.
        """
        return frozenset(digest for place in self._places.values() for digest in place.walk.reached)

    async def decide(self, fleet: str, request: PullRequest) -> Allowed:
        """The decision. Raises like `decide_now`."""
        deadline = self._clock.monotonic() + WALK_SECONDS
        spent = 0
        while True:
            allowed = self.decide_now(fleet, request)
            if allowed is not None:
                return allowed
            role = self._role(fleet)
            if role is None:
                await self._loaded(fleet)
                continue
            if spent >= MAX_FETCHED or self._clock.monotonic() >= deadline:
                raise _incomplete()
            place = self._place(role, request)
            if place is not None:
                before = place.fetched
                await self._join(place, (_wanted(request), request.digest))
                spent += place.fetched - before

    async def referrers(self, fleet: str, request: PullRequest) -> tuple[Descriptor, ...]:
        """What was signed along with the manifest and names it as its subject.

        Raises like `decide`; CLOSURE_INCOMPLETE when a signed referrer cannot be had (a list
        that leaves out a signature would be a lie).
        """
        allowed = await self.decide(fleet, request)
        role = self._role(fleet)
        place = None if role is None else self._place(role, request)
        targets = (place.walk.tops(request.digest) if place else ()) or (allowed.target,)
        signed = dict.fromkeys(each for target in targets for each in target.referrers)
        try:
            return await self._referrers.of(request, signed)
        except FacadeError as error:
            raise _incomplete() from error

    async def target(self, fleet: str, path: str) -> SignedTarget | None:
        """The fleet's signed target at this TUF path, or None.

        Raises Unavailable like `decide`, and Denied for a fleet that nobody delegated to.
        """
        role = self._role(fleet) or await self._loaded(fleet)
        return role.by_path.get(path)

    def learn(self, fleet: str, request: PullRequest, data: bytes) -> None:
        """Take the edges of a small manifest that is being served, so that nobody loads it again."""
        place = self._places.get((fleet, request.host, request.repository))
        if place is not None and request.role is Role.MANIFEST and is_small(data):
            for node in place.walk.unread(request.digest):
                if place.walk.claim(node):
                    self._reader.absorb(place.walk, node, data)
            _wake(place)

    async def close(self) -> None:
        """End the walks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _role(self, fleet: str) -> FleetView | None:
        """The fleet's role if it is loaded and everything is fresh."""
        view = self._views.view()
        view.check_fresh(fleet, self._clock.time())
        role = view.fleets.get(fleet)
        if role is None:
            if fleet not in view.known_fleets:
                raise _denied()
            if fleet in view.failed:
                raise _unavailable(view.failed[fleet].reason or Reason.METADATA_UNAVAILABLE)
        return role

    async def _loaded(self, fleet: str) -> FleetView:
        await self._views.fleet(fleet)
        role = self._role(fleet)
        if role is None:
            raise _unavailable(Reason.METADATA_UNAVAILABLE)
        return role

    def _place(self, role: FleetView, request: PullRequest) -> _Place | None:
        """The walk there; a new one when the targets there have changed."""
        key = (role.fleet, request.host, request.repository)
        targets = role.by_place.get((request.host, request.repository))
        place = self._places.get(key)
        if place is not None and place.walk.targets is targets:
            return place
        if targets is None:
            self._places.pop(key, None)
            return None
        walk = Walk(targets, place.walk.asked if place else ())
        self._places[key] = place = _Place(request.host, request.repository, walk)
        return place

    async def _join(self, place: _Place, key: Key) -> None:
        """Wait until the walk has found `key`, or ends its present batch."""
        found = place.waiting.setdefault(key, asyncio.get_running_loop().create_future())
        place.waiters[key] = place.waiters.get(key, 0) + 1
        if place.task is None or place.task.done():
            place.task = asyncio.create_task(self._advance(place))
            self._tasks.add(place.task)
            place.task.add_done_callback(self._tasks.discard)
        task = place.task
        try:
            # Unlike an await on the task itself, this passes no cancellation on to it.
            await asyncio.wait({found, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            place.waiters[key] -= 1
            if not place.waiters[key]:
                del place.waiters[key]
                place.waiting.pop(key, None)
        if task.done():
            task.result()

    async def _advance(self, place: _Place) -> None:
        """One batch of the walk: while somebody waits, within its bounds."""
        walk = place.walk
        deadline = self._clock.monotonic() + WALK_SECONDS
        fetched = steps = 0
        while place.waiting and fetched < MAX_FETCHED:
            now = self._clock.monotonic()
            node = walk.take(now) if now < deadline else None
            if node is None:
                return
            steps += 1
            if steps % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            try:
                used = await self._reader.read(walk, node, place.host, place.repository)
            except BaseException:
                walk.put_back(node)  # taken and not read: forgetting it would turn into a "no"
                raise
            fetched += used
            place.fetched += used
            _wake(place)


def _wake(place: _Place) -> None:
    for key in [key for key in place.waiting if place.walk.find(*key) is not None]:
        found = place.waiting.pop(key)
        if not found.done():
            found.set_result(None)


def _wanted(request: PullRequest) -> Role:
    return Role.MANIFEST if request.role is Role.REFERRERS else request.role


def _denied() -> Denied:
    return Denied(
        "This digest is not signed for this device's fleet in this repository. An operator can "
        "import it.",
        reason=Reason.NOT_SIGNED,
    )


def _incomplete() -> Unavailable:
    return Unavailable(
        "It cannot be decided just now whether this digest is signed: not every manifest that "
        "could name it is at hand.",
        reason=Reason.CLOSURE_INCOMPLETE,
        retry_after=HOLE_SECONDS,
    )


def _unavailable(reason: Reason) -> Unavailable:
    return Unavailable(
        "The signed metadata of this device's fleet cannot be verified just now.",
        reason=reason,
        retry_after=RETRY_SECONDS,
    )
