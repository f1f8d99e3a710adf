"""The closure of one repository's signed targets, found step by step. Pure.

Guarantees: whatever `find` gives was signed, or named by a manifest that was, inside this one
repository; it says "no" only when everything reachable was read. What is asked for is read first
(a runtime asks for the parent just before the child), then the newest target's closure, then the
next. Does not load anything: the caller feeds it verified bytes.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from facade.oci.digest import Digest
from facade.oci.platform import Platform
from facade.oci.request import Role
from facade.serving.trust.closure import Allowed, Edge, platforms_of
from facade.target import SignedTarget

MAX_DEPTH = 4
"""Levels of manifests below one another; what lies deeper stays undecided (trust.md)."""
HOLE_SECONDS = 30.0
"""How long a manifest that could not be had is left alone."""
EDGES_AT_ONCE = 1000
"""Edges that are followed in one go: a few milliseconds. A manifest of 4 MiB can name 35,000."""
_MAX_ASKED = 1024

Key = tuple[Role, Digest]
_Identity = tuple[Digest, int | None, str, tuple[Platform, ...], int]


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest to read.

    Arguments:
        size: the descriptor's, in bytes; None = nobody stated one (a signed referrer).
        media_type: the descriptor's; "" = nobody stated one.
        platforms: those that the target limits its indexes to; empty = all.
        depth: 1 for what the target names.
        target: the signed artifact on whose word it is read.
    """

    digest: Digest
    size: int | None
    media_type: str
    platforms: tuple[Platform, ...]
    depth: int
    target: SignedTarget


@dataclass(frozen=True, slots=True)
class Reading:
    """What a manifest's verified bytes said: their length, their type, what they name."""

    length: int
    media_type: str
    edges: tuple[Edge, ...]


class Walk:
    """The state of one walk.

    Arguments:
        targets: the repository's signed targets, newest first.
        asked: digests that devices asked for lately; their manifests are read first.
    """

    def __init__(self, targets: tuple[SignedTarget, ...], asked: Iterable[Digest] = ()) -> None:
        self.targets = targets
        self._position = 0  # of the next target that nobody has asked for
        self._first: deque[Node] = deque()
        self._next: deque[Node] = deque()
        self._pending: dict[Digest, list[Node]] = {}
        self._taken: set[_Identity] = set()
        self._reading: set[_Identity] = set()  # taken, and not given back yet
        self._holes: list[tuple[float, Node]] = []
        self._cut = False
        self._spoilt: set[tuple[Digest, int | None, str]] = set()
        self._reached: dict[Key, tuple[Allowed, ...]] = {}
        self._tops: dict[Digest, list[SignedTarget]] = {}
        self._referrers: dict[Digest, list[SignedTarget]] = {}
        for target in targets:
            self._tops.setdefault(target.digest, []).append(target)
            for digest in target.referrers:
                self._referrers.setdefault(digest, []).append(target)
        self._asked: dict[Digest, None] = dict.fromkeys(asked)
        for digest in self._asked:
            self._first.extendleft(self._roots(digest))

    @property
    def asked(self) -> tuple[Digest, ...]:
        """What devices asked for lately, latest last."""
        return tuple(self._asked)

    @property
    def reached(self) -> Iterator[Digest]:
        """Everything that was found to be signed, or named by what is, so far."""
        yield from self._tops
        yield from (digest for _, digest in self._reached)

    def tops(self, digest: Digest) -> tuple[SignedTarget, ...]:
        """The targets whose top manifest this is."""
        return tuple(self._tops.get(digest, ()))

    def find(self, role: Role, digest: Digest) -> Allowed | None:
        """The decision as far as it is known; None is "no" only when `complete`."""
        hit = self._reached.get((role, digest))
        if hit is not None:
            return hit[0]
        if role is not Role.MANIFEST or digest not in self._tops:
            return None
        for target in self._tops[digest]:
            self._grant(Role.MANIFEST, digest, target.length, target.media_type, target)
        return self._reached[role, digest][0]

    def ask(self, digest: Digest) -> None:
        """A device wants this manifest, and what it names next: read it first."""
        if digest in self._asked:
            return
        nodes = self.unread(digest)
        if nodes:
            self._asked[digest] = None
            if len(self._asked) > _MAX_ASKED:
                del self._asked[next(iter(self._asked))]
            self._first.extendleft(nodes)

    def unread(self, digest: Digest) -> list[Node]:
        """The nodes for this manifest that were not read yet, as far as they are known."""
        nodes = [*self._pending.get(digest, ()), *self._roots(digest)]
        return [node for node in nodes if _identity(node) not in self._taken]

    def take(self, now: float) -> Node | None:
        """The next manifest to read; give it to `expand`, `spoil`, `hole` or `put_back`.

        Arguments:
            now: monotonic seconds.
        """
        self._retry_holes(now)
        while True:
            if self._first:
                node = self._first.popleft()
            elif self._next:
                node = self._next.popleft()
            elif self._position < len(self.targets):
                target = self.targets[self._position]
                self._position += 1
                self._next.append(_root(target))
                self._next.extend(_referrer(digest, target) for digest in target.referrers)
                continue
            else:
                return None
            if self.claim(node):
                return node

    def claim(self, node: Node) -> bool:
        """Take this very node, if nobody has yet."""
        identity = _identity(node)
        if identity in self._taken:
            return False
        self._taken.add(identity)
        self._reading.add(identity)
        waiting = self._pending.get(node.digest, [])
        if node in waiting:
            waiting.remove(node)
            if not waiting:
                del self._pending[node.digest]
        return True

    def put_back(self, node: Node) -> None:
        """It was not read after all."""
        self._reading.discard(_identity(node))
        self._taken.discard(_identity(node))
        self._first.appendleft(node)

    def hole(self, node: Node, now: float) -> None:
        """It could not be had. The walk goes on, but is not complete without it."""
        self._reading.discard(_identity(node))
        self._holes.append((now + HOLE_SECONDS, node))

    def spoil(self, node: Node) -> None:
        """Its bytes are not what the descriptor promised, or may not be served as it."""
        self._reading.discard(_identity(node))
        self._spoilt.add((node.digest, node.size, node.media_type))
        key = (Role.MANIFEST, node.digest)
        if node.digest not in self._tops:
            kept = [each for each in self._reached.get(key, ()) if not self._is_spoilt(each)]
            self._reached.pop(key, None)
            for each in kept:
                self._grant(each.role, each.digest, each.size, each.media_type, each.target)

    def expand(self, node: Node, reading: Reading) -> None:
        """Follow its edges. A wrong size spoils the edge that stated it, and no other."""
        for _ in self.expanding(node, reading):
            pass

    def expanding(self, node: Node, reading: Reading) -> Iterator[None]:
        """`expand` in steps, with a pause after every `EDGES_AT_ONCE` edges.

        Until the last one the manifest counts as being read, so that nothing is denied meanwhile;
        what is given up half way is put back and followed again.
        """
        if node.size is None:
            self._grant(Role.MANIFEST, node.digest, reading.length, reading.media_type, node.target)
        elif node.size != reading.length:
            self.spoil(node)
            return
        children = []
        for count, edge in enumerate(reading.edges, 1):
            if count % EDGES_AT_ONCE == 0:
                yield
            if edge.role is Role.MANIFEST:
                if node.depth >= MAX_DEPTH:
                    self._cut = True
                    continue
                child = Node(
                    *(edge.digest, edge.size, edge.media_type),
                    *(node.platforms, node.depth + 1, node.target),
                )
                if _identity(child) not in self._taken:
                    children.append(child)
            self._grant(edge.role, edge.digest, edge.size, edge.media_type, node.target)
        for child in reversed(children):
            self._pending.setdefault(child.digest, []).append(child)
            (self._first if child.digest in self._asked else self._next).appendleft(child)
        self._reading.discard(_identity(node))

    def exhausted(self, now: float) -> bool:
        """Whether nothing is left to read just now, nor being read: that may still say "yes"."""
        return not (
            self._reading
            or self._first
            or self._next
            or self._position < len(self.targets)
            or any(at <= now for at, _ in self._holes)
        )

    @property
    def complete(self) -> bool:
        """Of an exhausted walk: whether everything reachable was read."""
        return not self._holes and not self._cut

    def _grant(
        self, role: Role, digest: Digest, size: int, media_type: str, target: SignedTarget
    ) -> None:
        allowed = Allowed(digest, size, media_type, role, target, (size,))
        if role is Role.MANIFEST and digest not in self._tops and self._is_spoilt(allowed):
            return
        known = self._reached.get((role, digest), ())
        if any(each.size == size and each.media_type == media_type for each in known):
            return
        every = (*known, allowed)
        if known:
            sizes = tuple(dict.fromkeys(each.size for each in every))
            every = tuple(
                replace(each, sizes=tuple(dict.fromkeys((each.size, *sizes)))) for each in every
            )
        self._reached[role, digest] = every

    def _is_spoilt(self, allowed: Allowed) -> bool:
        return (allowed.digest, allowed.size, allowed.media_type) in self._spoilt

    def _roots(self, digest: Digest) -> list[Node]:
        return [
            *(_root(target) for target in self._tops.get(digest, ())),
            *(_referrer(digest, target) for target in self._referrers.get(digest, ())),
        ]

    def _retry_holes(self, now: float) -> None:
        for at, node in [hole for hole in self._holes if hole[0] <= now]:
            self._holes.remove((at, node))
            self._taken.discard(_identity(node))
            self._next.append(node)


def _root(target: SignedTarget) -> Node:
    return Node(target.digest, target.length, target.media_type, platforms_of(target), 1, target)


def _referrer(digest: Digest, target: SignedTarget) -> Node:
    return Node(digest, None, "", (), 1, target)


def _identity(node: Node) -> _Identity:
    """What makes two nodes the same reading, whichever target led there."""
    return node.digest, node.size, node.media_type, node.platforms, node.depth
