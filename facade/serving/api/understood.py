"""Requests that the HTTP server has read, remembered with what they mean.

Guarantees: there is no second parser: what the bytes of a request mean was said by the HTTP server, of
these very bytes, or of bytes that differ in nothing but a blob's digest. Only what is plain is
remembered: one whole head, GET or HEAD, whose answer depends on nothing but what is asked for. Memory
is bounded.

Why the digest may differ. A device asks for each blob once, so a blob's own bytes are new whenever it
has to be fetched; but they are those of the blob before, with another digest. Of a request that the HTTP
server has read, its target as the server gives it (`BaseRequest.path`, percent-decoded) was found byte
for byte behind `GET `, so nothing in it was encoded; it ended in `/blobs/sha256:` and 64 lower-case hex
digits, and a blank or the query came next. These 64 are cut out, the rest is kept. Who asks in the same
rest, byte for byte, with 64 lower-case hex digits at the same place, differs from what the server read in
these digits alone. A hex digit is like any other to whoever reads a request: it ends no token, begins no
escape (there is no `%` before it), and is part of no header, since all of them stand in the target's path.
So the server would read the same method, version, headers, query and framing, and the same path but for
the digits; and what that path asks for is said by the parser that says it on the long way. No header whose
meaning a digest may touch (`_CONDITIONS`) is in the rest, and the digest it was learnt with is nowhere
else in it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeVar

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from facade.clock import Clock
from facade.errors import FacadeError
from facade.oci.request import PullRequest, Role
from facade.serving.api.exchange import place
from facade.serving.pulls.answers import ReadyManifest

MAX_WORDS_BYTES = 2048
MAX_KNOWN = 1024
"""Requests of each kind remembered with what they mean. A fleet's devices ask in the same few words."""
_END = b"\r\n\r\n"
_CONDITIONS = (hdrs.IF_NONE_MATCH, hdrs.IF_RANGE, hdrs.RANGE, hdrs.UPGRADE)
"""With one of these the answer depends on more than what is asked for."""
_BEFORE_DIGEST = b"/blobs/sha256:"
_DIGEST_BYTES = 64
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_GET = b"GET "

_Known = TypeVar("_Known")
Read = Callable[[str, str | None], PullRequest | FacadeError]
"""What a path, with its `?ns=`, asks for."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the bytes of a request mean.

    Arguments:
        version: of its answer, as the status line has it.
        rest: of the head of its answer, after the Date.
        closing: the connection ends with the answer.
        manifests: by fleet: what was at hand, and the head of its answer.
    """

    method: str
    pull: PullRequest
    version: str
    rest: bytes
    closing: bool
    manifests: dict[str, tuple[ReadyManifest, bytes]] = field(default_factory=dict)

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        """Of the answer, up to the value of its Date, which `rest` follows."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"{self.version} {status} {HTTPStatus(status).phrase}\r\n{lines}Date: ".encode()


@dataclass(frozen=True, slots=True)
class _Blank:
    """A request for a blob, without its digest.

    Arguments:
        at: where that was.
        path: up to it.
        words: of the one with the digest that it was learnt with.
    """

    at: int
    path: str
    ns: str | None
    words: Words


class Understood:
    """The requests of one port.

    Arguments:
        read: the one parser of paths.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._manifests: dict[bytes, Words] = {}
        self._blobs: dict[bytes, _Blank] = {}

    def find(self, asked: bytes) -> Words | None:
        """What `asked` means, if that was learnt."""
        return self._manifests.get(asked) or self._blob(asked)

    def learn(self, asked: bytes, http: web.BaseRequest, status: int) -> None:
        """The HTTP server read `asked` as `http`, and its answer had `status`."""
        if status != 200 or http.body_exists or any(name in http.headers for name in _CONDITIONS):
            return
        path, ns = place(http)
        pull = self._read(path, ns)
        if not isinstance(pull, PullRequest):
            return
        version = f"HTTP/{http.version.major}.{http.version.minor}"
        rest = b"\r\n%b\r\n" % _connection(http)
        words = Words(http.method, pull, version, rest, not http.keep_alive)
        if pull.role is Role.MANIFEST:
            _remember(self._manifests, asked, words)
        elif pull.role is Role.BLOB and _is_plain(asked, path, pull.digest.hex):
            at = len(_GET) + len(path) - _DIGEST_BYTES
            blank = _Blank(at, path[:-_DIGEST_BYTES], ns, words)
            _remember(self._blobs, _without(asked, at), blank)

    def _blob(self, asked: bytes) -> Words | None:
        # Where to cut is a guess, which nothing rests on: what is left must be what was learnt, cut
        # at the same place.
        at = asked.find(_BEFORE_DIGEST) + len(_BEFORE_DIGEST)
        blank = self._blobs.get(_without(asked, at))
        if blank is None or blank.at != at:
            return None
        digest = asked[at : at + _DIGEST_BYTES]
        if not _DIGEST.fullmatch(digest):
            return None
        pull = self._read(blank.path + digest.decode(), blank.ns)
        if not isinstance(pull, PullRequest):
            return None
        like = blank.words
        return Words(like.method, pull, like.version, like.rest, like.closing)


class Date:
    """The Date of an answer (RFC 9110, 6.6.1), made once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """As of now."""
        second = int(self._clock.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text


def is_one_head(data: bytes) -> bool:
    """Whether `data` is one request's head, whole, and nothing else, in whatever way it is read."""
    return (
        len(data) <= MAX_WORDS_BYTES
        and data.find(_END) == len(data) - len(_END)
        and data.count(b"\n") == data.count(b"\r\n")
        and data.startswith((b"GET ", b"HEAD "))
    )


def _remember(known: dict[bytes, _Known], asked: bytes, what: _Known) -> None:
    if asked not in known and len(known) >= MAX_KNOWN:
        del known[next(iter(known))]
    known[asked] = what


def _without(asked: bytes, at: int) -> bytes:
    return asked[:at] + asked[at + _DIGEST_BYTES :]


def _is_plain(asked: bytes, path: str, digest: str) -> bool:
    """Whether `asked` is a GET that has `path` as it stands, ending in `digest`, and that nowhere else."""
    stop = len(_GET) + len(path)
    text = digest.encode()
    return (
        path.isascii()
        and asked.startswith(_GET + path.encode())
        and asked[stop : stop + 1] in (b" ", b"?")
        and _DIGEST.fullmatch(text) is not None
        and asked.count(text) == 1
    )


def _connection(http: web.BaseRequest) -> bytes:
    """The header that says what the version does not (RFC 9112, 9.3), or none."""
    if http.version == HttpVersion11 and not http.keep_alive:
        return b"Connection: close\r\n"
    if http.version == HttpVersion10 and http.keep_alive:
        return b"Connection: keep-alive\r\n"
    return b""
