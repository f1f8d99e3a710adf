"""What a pull is answered with, before there is any HTTP in it.

Guarantees: an answer exists only for what may be served; it is lazy: nothing was fetched for it yet.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from facade.oci.request import PullRequest
from facade.serving.blobs.port import BlobStream
from facade.serving.trust.closure import Allowed


@dataclass(frozen=True, slots=True)
class Answer:
    """Content that may be served. Nothing has been fetched for it yet.

    Arguments:
        size: bytes.
    """

    request: PullRequest
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class ManifestAnswer(Answer):
    """A manifest; `read()`, called at once, gets its bytes, verified whole.

    Raises Integrity, Upstream, …
    """

    read: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ReadyManifest:
    """A manifest that may be served, in memory.

    Arguments:
        allowed: the decision that it may.
    """

    allowed: Allowed
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class BlobAnswer(Answer):
    """A blob; `open()` gets its content, verified while it streams. Raises Integrity, …"""

    open: Callable[[], Awaitable[BlobStream]]


@dataclass(frozen=True, slots=True)
class ReadyBlob:
    """A blob that may be served, open; its first bytes are in memory. Close its stream."""

    request: PullRequest
    media_type: str
    stream: BlobStream


@dataclass(frozen=True, slots=True)
class ReferrersAnswer:
    """An image index of referrers, made by us (OCI distribution-spec, "Listing Referrers")."""

    data: bytes
    media_type: str
    filtered: bool
