"""Descriptors of signed referrers, as the referrers API lists them.

Guarantees: each comes from bytes whose digest was checked here, and is read once for many requests (it is
a function of the bytes alone, so it outlives views); what is remembered is bounded, in number and in
text. Does not decide who may ask, nor what was signed: the caller has.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import Descriptor, ImageManifest
from facade.oci.reference import Repository
from facade.oci.request import PullRequest
from facade.serving.trust.closure import verified_manifest
from facade.serving.trust.parsing import parsed
from facade.serving.trust.reading import Reader

MAX_ANNOTATION_CHARS = 16 * 1024
"""Of one referrer's annotations, keys included; those that do not fit are not listed (they are in its
manifest)."""
MAX_REFERRERS = 4096
MAX_CHARS = 8 * 1024 * 1024
"""Annotations of all remembered referrers together."""

_Place = tuple[RegistryHost, Repository, Digest]


@dataclass(frozen=True, slots=True)
class _Referrer:
    """What a referrer's bytes said.

    Arguments:
        subject: what it refers to, if anything.
        chars: length of its annotations.
    """

    descriptor: Descriptor
    subject: Digest | None
    chars: int


class Referrers:
    """Reads and remembers.

    Arguments:
        reader: where their bytes come from.
        max_referrers, max_chars: bounds on what is remembered.
    """

    def __init__(
        self, reader: Reader, *, max_referrers: int = MAX_REFERRERS, max_chars: int = MAX_CHARS
    ) -> None:
        self._reader = reader
        self._max_referrers = max_referrers
        self._max_chars = max_chars
        self._known: OrderedDict[_Place, _Referrer | str] = OrderedDict()
        self._chars = 0

    async def of(self, request: PullRequest, signed: Iterable[Digest]) -> tuple[Descriptor, ...]:
        """Those of `signed` that name the requested manifest as their subject.

        Raises any FacadeError when one of them cannot be had or is no manifest.
        """
        found = []
        for digest in signed:
            place = (request.host, request.repository, digest)
            known = self._known.get(place)
            if known is None:
                known = await self._read(place)
            else:
                self._known.move_to_end(place)
            if isinstance(known, str):
                raise Invalid(known)
            if known.subject == request.digest:
                found.append(known.descriptor)
        return tuple(found)

    async def _read(self, place: _Place) -> _Referrer | str:
        """What it says, or in words why it is no manifest."""
        host, repository, digest = place
        data, _ = await self._reader.load(host, repository, digest, None)
        known: _Referrer | str
        try:
            known = await parsed(data, lambda: _referrer(digest, data))
        except Invalid as error:  # for good: other bytes have another digest
            known = error.message
        self._chars += _chars(known) - _chars(self._known.pop(place, None))
        self._known[place] = known
        while len(self._known) > self._max_referrers or self._chars > self._max_chars:
            self._chars -= _chars(self._known.popitem(last=False)[1])
        return known


def _referrer(digest: Digest, data: bytes) -> _Referrer:
    """Raises Integrity, Invalid."""
    manifest = verified_manifest(data, digest, None, "")
    kind = manifest.artifact_type
    if not kind and isinstance(manifest, ImageManifest):
        kind = manifest.config.media_type  # distribution-spec, "Listing Referrers"
    annotations = _bounded(manifest.annotations)
    descriptor = Descriptor(
        manifest.media_type, digest, len(data), annotations=annotations, artifact_type=kind
    )
    subject = manifest.subject.digest if manifest.subject else None
    return _Referrer(descriptor, subject, sum(map(_length, annotations.items())))


def _bounded(annotations: Mapping[str, str]) -> dict[str, str]:
    """As many of them, in order, as may be listed."""
    kept, room = {}, MAX_ANNOTATION_CHARS
    for item in annotations.items():
        if _length(item) <= room:
            room -= _length(item)
            kept[item[0]] = item[1]
    return kept


def _length(item: tuple[str, str]) -> int:
    return len(item[0]) + len(item[1])


def _chars(known: _Referrer | str | None) -> int:
    return known.chars if isinstance(known, _Referrer) else 0
