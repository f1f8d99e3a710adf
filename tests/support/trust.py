"""What a decision stands on, without files or keys: a view that tests set, and a pile of manifests.

Guarantees: `ShownViews` checks nothing itself, like the real holder of views; `ManifestPile` gives
bytes only for the place they were put in, notes every request, and can fail, wait and lie.
"""

import asyncio
from collections.abc import Iterable

from facade.errors import FacadeError, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.trust.view import FleetView, SignedView
from facade.target import SignedTarget

FAR_AWAY = 1e12


def view_of(
    *targets: SignedTarget,
    fleets: Iterable[str] = (),
    previous: SignedView | None = None,
    expires: float = FAR_AWAY,
) -> SignedView:
    """A view in which these targets are signed.

    Arguments:
        fleets: loaded as well, without targets.
        previous: the view that it replaces, whose unchanged parts it shares.
        expires: of every top-level role, Unix seconds.
    """
    names = {target.fleet for target in targets} | set(fleets)
    generation = previous.generation + 1 if previous else 1
    return SignedView(
        generation=generation,
        versions={},
        expires=dict.fromkeys(("root", "targets", "snapshot", "timestamp"), expires),
        known_fleets=frozenset(names),
        fleets={
            name: FleetView.build(
                name,
                [target for target in targets if target.fleet == name],
                version=generation,
                expires=FAR_AWAY,
                previous=previous.fleets.get(name) if previous else None,
            )
            for name in names
        },
    )


def request_for(
    data: bytes | Digest, role: Role = Role.MANIFEST, place: str = "ghcr.io/org/app"
) -> PullRequest:
    """A request for `data` (or a digest) in `place` (host/repository)."""
    host, _, repository = place.partition("/")
    digest = data if isinstance(data, Digest) else Digest.of(data)
    return PullRequest(role, RegistryHost.parse(host), Repository.parse(repository), digest)


class ShownViews:
    """Implements `decision.ViewSource`.

    Arguments:
        shown: the view in use; tests assign another. `error` is raised instead, when set.
        loads: what `fleet()` makes of the view, by fleet.
    """

    def __init__(self, shown: SignedView) -> None:
        self.shown = shown
        self.error: FacadeError | None = None
        self.loads: dict[str, SignedView] = {}
        self.asked: list[str] = []

    def view(self) -> SignedView:
        if self.error is not None:
            raise self.error
        return self.shown

    async def fleet(self, fleet: str) -> None:
        self.asked.append(fleet)
        await asyncio.sleep(0)
        self.shown = self.loads.get(fleet, self.shown)


class ManifestPile:
    """Implements `reading.ManifestSource`; `kept` is its upstream-free side.

    Arguments:
        requests: digests asked for, in order.
        failing: raised for these digests.
        gate: when set, every answer waits for it.
    """

    def __init__(self) -> None:
        self.requests: list[Digest] = []
        self.failing: dict[Digest, FacadeError] = {}
        self.gate: asyncio.Event | None = None
        self._pile: dict[tuple[RegistryHost, Repository, Digest], bytes] = {}

    def put(self, *manifests: bytes, place: str = "ghcr.io/org/app") -> None:
        """Have these, there."""
        for data in manifests:
            self.lie(Digest.of(data), data, place=place)

    def lie(self, digest: Digest, data: bytes, *, place: str = "ghcr.io/org/app") -> None:
        """Give `data` for `digest`, whatever it hashes to."""
        request = request_for(digest, place=place)
        self._pile[request.host, request.repository, digest] = data

    async def manifest(
        self, host: RegistryHost, repository: Repository, digest: Digest, size: int, /
    ) -> bytes:
        data = await self.kept(host, repository, digest)
        if data is None:
            raise Upstream("No such manifest.", reason=Reason.UPSTREAM_NOT_FOUND, status=404)
        return data

    async def kept(
        self, host: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        """The bytes, or None."""
        self.requests.append(digest)
        await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
        if digest in self.failing:
            raise self.failing[digest]
        return self._pile.get((host, repository, digest))
