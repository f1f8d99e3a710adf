"""One refresh: tuf's client workflow, then a view of what it persisted.

Guarantees: versions never go back, across restarts too, because the updater's metadata folder
remembers them; a view is made only of files that the whole chain was re-checked for; a top-level
role that fails fails the refresh, a fleet's role that fails stops that fleet; a fleet whose
snapshot entry and delegation are unchanged is not read again. A fleet's role is not the updater's but
`chain`'s, which asks all of it that the updater would (TUF 1.0, 5.6): twice would take a quarter of
a second more for each 10,000 targets. Blocking: run it in a thread, one call at a time. The folder
belongs to one process (tuf shares it with nobody).
"""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.ngclient import Updater

from facade.clock import Clock
from facade.errors import FacadeError, Unavailable
from facade.serving.trust.chain import Chain, refusing, verified_chain, verified_roots
from facade.serving.trust.fetcher import BASE_URL, MAX_FILE_BYTES, MetadataFetcher, Source
from facade.serving.trust.served import ServedFiles
from facade.serving.trust.view import FleetView, SignedView
from facade.serving.trust.watermark import FILE_NAME, Watermark


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
            fetcher = MetadataFetcher(self._source, self._clock)
            Updater(
                metadata_dir=str(self._folder),
                metadata_base_url=BASE_URL,
                fetcher=fetcher,
                bootstrap=self._root,
            ).refresh()
        return self._view(previous, fleets, fetcher)

    def persisted(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        """A view of what earlier refreshes left, without asking the source.

        It is as good as a view that was kept while refreshes failed: each role still has to
        be fresh. Raises Unavailable.
        """
        self._watermark.check()
        return self._view(previous, fleets, None)

    def _view(
        self, previous: SignedView | None, fleets: Iterable[str], fetcher: MetadataFetcher | None
    ) -> SignedView:
        now = self._clock.time()
        chain = verified_chain(self._root, self._read, now)
        loaded: dict[str, FleetView] = {}
        failed: dict[str, FacadeError] = {}
        for fleet in sorted(set(fleets) & chain.fleets.keys()):
            try:
                loaded[fleet] = self._fleet(chain, fleet, now, previous, fetcher)
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
        fetcher: MetadataFetcher | None,
    ) -> FleetView:
        known = previous.fleets.get(fleet) if previous else None
        with refusing(f"The role of fleet {fleet}"):
            if known is not None and known.anchor == chain.anchor(fleet):
                return known
            with _collector_paused():
                if fetcher is None or self._has(chain, fleet):
                    return chain.fleet_view(fleet, self._read(f"{fleet}.json"), now, known)
                name, length = chain.fleet_file(fleet)
                data = fetcher.download_bytes(f"{BASE_URL}{name}", length or MAX_FILE_BYTES)
                view = chain.fleet_view(fleet, data, now, known)
                self._persist(f"{fleet}.json", data)
                return view

    def _has(self, chain: Chain, fleet: str) -> bool:
        """Whether the role's persisted file is the very one that the snapshot lists."""
        try:
            return chain.lists(fleet, self._read(f"{fleet}.json"))
        except OSError:
            return False

    def _persist(self, name: str, data: bytes) -> None:
        """As the updater does: whole or not at all, in a new file, for `served` links to the old one."""
        temporary = self._folder / f".{name}.new"
        temporary.unlink(missing_ok=True)  # of a time when the disk was full
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(self._folder / name)

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
