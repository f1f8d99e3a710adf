"""Requests that the HTTP server has read, remembered with what they mean.

Guarantees: there is no second parser: what the bytes of a request mean was said by the HTTP server, of
these very bytes. Only what is plain is remembered: one whole head, GET or HEAD, whose answer depends on
nothing but what is asked for. Memory is bounded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from facade.clock import Clock
from facade.errors import FacadeError
from facade.oci.request import PullRequest, Role
from facade.serving.pulls.answers import ReadyManifest

MAX_WORDS_BYTES = 2048
MAX_KNOWN = 1024
"""Requests of each kind remembered with what they mean. A fleet's devices ask in the same few words."""
_END = b"\r\n\r\n"
_CONDITIONS = (hdrs.IF_NONE_MATCH, hdrs.IF_RANGE, hdrs.RANGE, hdrs.UPGRADE)
"""With one of these the answer depends on more than what is asked for."""

Parse = Callable[[web.BaseRequest], PullRequest | FacadeError]


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

    def head(self, headers: dict[str, str]) -> bytes:
        """Of the answer, 200, up to the value of its Date, which `rest` follows."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"{self.version} 200 OK\r\n{lines}Date: ".encode()


class Understood:
    """The requests of one port.

    Arguments:
        parse: what a path asks for.
    """

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        # By themselves: an image has many blobs, which must not push the manifests out.
        self._manifests: dict[bytes, Words] = {}
        self._blobs: dict[bytes, Words] = {}

    def find(self, asked: bytes) -> Words | None:
        """What `asked` means, if that was learnt."""
        return self._manifests.get(asked) or self._blobs.get(asked)

    def learn(self, asked: bytes, http: web.BaseRequest, status: int) -> None:
        """The HTTP server read `asked` as `http`, and its answer had `status`."""
        if status != 200 or http.body_exists or any(name in http.headers for name in _CONDITIONS):
            return
        pull = self._parse(http)
        if not isinstance(pull, PullRequest) or not _is_plain(http.method, pull.role):
            return
        known = self._blobs if pull.role is Role.BLOB else self._manifests
        if len(known) >= MAX_KNOWN:
            del known[next(iter(known))]
        version = f"HTTP/{http.version.major}.{http.version.minor}"
        rest = b"\r\n%b\r\n" % _connection(http)
        known[asked] = Words(http.method, pull, version, rest, not http.keep_alive)


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


def _is_plain(method: str, role: Role) -> bool:
    return role is Role.MANIFEST or (role is Role.BLOB and method == hdrs.METH_GET)


def _connection(http: web.BaseRequest) -> bytes:
    """The header that says what the version does not (RFC 9112, 9.3), or none."""
    if http.version == HttpVersion11 and not http.keep_alive:
        return b"Connection: close\r\n"
    if http.version == HttpVersion10 and http.keep_alive:
        return b"Connection: keep-alive\r\n"
    return b""
