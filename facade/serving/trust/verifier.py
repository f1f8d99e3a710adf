"""One refresh: tuf's client workflow, then a view of what it persisted.

Guarantees: versions never go back, across restarts too, because the updater's metadata folder
remembers them; a view is made only of files that the whole chain was re-checked for; a top-level
role that fails fails the refresh, a fleet's role that fails stops that fleet; a fleet whose
snapshot entry and delegation are unchanged is not read again. Blocking: run it in a thread, one
call at a time. The folder belongs to one process (tuf shares it with nobody).
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.ngclient import Updater, UpdaterConfig

from facade.clock import Clock
from facade.errors import FacadeError, Unavailable
from facade.serving.trust.chain import Chain, refusing, verified_chain, verified_roots
from facade.serving.trust.fetcher import BASE_URL, MAX_FILE_BYTES, MetadataFetcher, Source
from facade.serving.trust.served import ServedFiles
from facade.serving.trust.view import FleetView, SignedView
from facade.serving.trust.watermark import FILE_NAME, Watermark

_CONFIG = UpdaterConfig(max_delegations=1)
"""targets and one fleet: a fleet's role that delegates further is not followed."""


class Verifier:
    """Makes views.

    Arguments:
        root: the pinned root.json.
        metadata_dir: this process's own folder; made when missing.
        source: where the metadata comes from.
        clock: judges expiry in the view. (The updater asks the machine's clock itself.)

    Raises Unavailable when the pinned root is none, OSError when the folder cannot be made.
    """

    def __init__(self, root: bytes, metadata_dir: Path, source: Source, clock: Clock) -> None:
        with refusing("The pinned root"):
            verified_roots(root, _nothing)
        metadata_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        self._folder = metadata_dir
        self._source = source
        self._clock = clock
        self._watermark = Watermark(metadata_dir / FILE_NAME, clock)
        self.served = ServedFiles(metadata_dir)

    def check_clock(self) -> float:
        """The present time, Unix seconds. Raises Unavailable (CLOCK_SET_BACK). Never blocks."""
        return self._watermark.check()

    def refresh(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        """Bring metadata up to date and verify it.

        Arguments:
            previous: the last view, whose unchanged fleets are taken over.
            fleets: which fleets' roles to load; unknown ones are passed over.

        Raises Unavailable (METADATA_UNAVAILABLE, METADATA_EXPIRED, CLOCK_SET_BACK).
        """
        self._watermark.check()
        with refusing("The signed metadata"):
            self._watermark.persist()
            updater = Updater(
                metadata_dir=str(self._folder),
                metadata_base_url=BASE_URL,
                fetcher=MetadataFetcher(self._source, self._clock),
                config=_CONFIG,
                bootstrap=self._root,
            )
            updater.refresh()
        return self._view(previous, fleets, updater)

    def persisted(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        """A view of what earlier refreshes left, without asking the source.

        It is as good as a view that was kept while refreshes failed: each role still has to
        be fresh. Raises Unavailable.
        """
        self._watermark.check()
        return self._view(previous, fleets, None)

    def _view(
        self, previous: SignedView | None, fleets: Iterable[str], updater: Updater | None
    ) -> SignedView:
        now = self._clock.time()
        chain = verified_chain(self._root, self._read, now)
        loaded: dict[str, FleetView] = {}
        failed: dict[str, FacadeError] = {}
        for fleet in sorted(set(fleets) & chain.fleets.keys()):
            try:
                loaded[fleet] = self._fleet(chain, fleet, now, previous, updater)
            except Unavailable as error:
                failed[fleet] = error
        view = SignedView(
            generation=previous.generation + 1 if previous else 1,
            versions={
                **{role: signed.version for role, signed in chain.roles.items()},
                **{fleet: role.version for fleet, role in loaded.items()},
            },
            expires={
                **{role: signed.expires.timestamp() for role, signed in chain.roles.items()},
                **{fleet: role.expires for fleet, role in loaded.items()},
            },
            known_fleets=frozenset(chain.fleets),
            fleets=loaded,
            failed=failed,
            problems=(
                *chain.problems,
                *(problem for fleet in loaded.values() for problem in fleet.problems),
                *(error.message for error in failed.values()),
            ),
        )
        with refusing("The folder of served metadata"):
            unread = {
                fleet
                for fleet, role in loaded.items()
                if previous and role is previous.fleets.get(fleet)
            }
            self.served.publish(view.versions, loaded.keys() - unread, now)
        return view

    def _fleet(
        self,
        chain: Chain,
        fleet: str,
        now: float,
        previous: SignedView | None,
        updater: Updater | None,
    ) -> FleetView:
        known = previous.fleets.get(fleet) if previous else None
        with refusing(f"The role of fleet {fleet}"):
            if known is not None and known.anchor == chain.anchor(fleet):
                return known
            with _collector_paused():
                if updater is not None:
                    # Any name inside the fleet makes the updater load and persist its role.
                    updater.get_targetinfo(f"{fleet}/-/-")
                return chain.fleet_view(fleet, self._read(f"{fleet}.json"), now, known)

    def _read(self, name: str) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(MAX_FILE_BYTES)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cyclic garbage collector still while a role is parsed.

    10,000 targets make half a million objects, which reference counts free again. One full
    collection among them would hold the interpreter, and so the event loop, for 100 ms.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _nothing(name: str) -> bytes:
    raise FileNotFoundError(name)
