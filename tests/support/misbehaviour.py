"""What a registry may do wrong, one function each, for `Registry.script`.

Guarantees: each returns a change of the reply that the registry would have given; changes compose in
the order in which they are scripted together.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.support.raw_http import Content, Data, Reply, Seen

_BLOCK = 64 * 1024
Misbehaviour = Callable[[Seen, Reply], Reply]


def truncate(after: int) -> Misbehaviour:
    """Close the connection after so many bytes of the body; Content-Length stays."""
    return lambda seen, reply: replace(reply, cut_after=after)


def stall(after: int = 0) -> Misbehaviour:
    """Send so many bytes of the body, then nothing more, ever."""
    return lambda seen, reply: replace(reply, stall_after=after)


def trickle(piece: int, pause: float) -> Misbehaviour:
    """Send the body in small pieces with pauses (seconds) between them."""
    return lambda seen, reply: replace(reply, piece=piece, pause=pause)


def slow_head(seconds: float) -> Misbehaviour:
    """Wait before answering at all."""
    return lambda seen, reply: replace(reply, delay=seconds)


def held(until: asyncio.Event) -> Misbehaviour:
    """Answer when that is set."""
    return lambda seen, reply: replace(reply, until=until)


def corrupt(at: int = 0) -> Misbehaviour:
    """Flip one bit of the content at offset `at`."""
    return lambda seen, reply: replace(reply, content=_Flipped(reply.content, at))


def wrong_bytes(data: bytes) -> Misbehaviour:
    """Send another body, with its own right length, under the same headers."""
    return lambda seen, reply: replace(reply, content=Data(data), start=0, stop=None)


def longer_by(count: int) -> Misbehaviour:
    """Append bytes to the body and count them in Content-Length."""

    def change(seen: Seen, reply: Reply) -> Reply:
        return replace(reply, content=_Padded(reply.content, count), stop=None)

    return change


def wrong_length(difference: int) -> Misbehaviour:
    """State a Content-Length that is off by `difference`, and close after the body."""

    def change(seen: Seen, reply: Reply) -> Reply:
        stop = reply.content.size if reply.stop is None else reply.stop
        true = stop - reply.start
        return replace(reply, length=true + difference, cut_after=true)

    return change


def without_length() -> Misbehaviour:
    """Send no Content-Length: the body ends with the connection."""
    return lambda seen, reply: replace(reply, length=-1)


def status(code: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> Misbehaviour:
    """Answer with another status."""
    return lambda seen, reply: Reply(code, headers, Data(body))


def rate_limited(retry_after: str | None = None) -> Misbehaviour:
    """Answer 429, with Retry-After when given."""
    headers = () if retry_after is None else (("Retry-After", retry_after),)
    return status(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}', headers)


def header(name: str, value: str | None) -> Misbehaviour:
    """Set a field, or leave it out: a wrong Content-Type, no Docker-Content-Digest…"""
    return lambda seen, reply: reply.with_header(name, value)


def redirect(location: str, code: int = 307) -> Misbehaviour:
    """Redirect to `location`."""
    return status(code, headers=(("Location", location),))


def drop() -> Misbehaviour:
    """Close the connection without an answer."""
    return lambda seen, reply: replace(reply, raw=b"")


def garbage(data: bytes = b"SSH-2.0-OpenSSH_9.2\r\n") -> Misbehaviour:
    """Answer with something that is no HTTP."""
    return lambda seen, reply: replace(reply, raw=data)


def ignore_range() -> Misbehaviour:
    """Answer a Range request with the whole (200)."""

    def change(seen: Seen, reply: Reply) -> Reply:
        if reply.status != 206:
            return reply
        whole = reply.with_header("Content-Range", None)
        return replace(whole, status=200, start=0, stop=None)

    return change


def chain(*changes: Misbehaviour) -> Misbehaviour:
    """Several at once, in this order."""

    def change(seen: Seen, reply: Reply) -> Reply:
        for each in changes:
            reply = each(seen, reply)
        return reply

    return change


@dataclass(frozen=True, slots=True)
class _Flipped:
    inner: Content
    at: int

    @property
    def size(self) -> int:
        return self.inner.size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        for block in self.inner.blocks(start, stop):
            if start <= self.at < start + len(block):
                changed = bytearray(block)
                changed[self.at - start] ^= 1
                yield bytes(changed)
            else:
                yield block
            start += len(block)


@dataclass(frozen=True, slots=True)
class _Padded:
    inner: Content
    extra: int

    @property
    def size(self) -> int:
        return self.inner.size + self.extra

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        end = self.inner.size
        yield from self.inner.blocks(min(start, end), min(stop, end))
        left = stop - max(start, end)
        while left > 0:
            yield bytes(min(left, _BLOCK))
            left -= _BLOCK
