"""What transfers work with, and how patient and careful they are: plain values with their units.

Guarantees nothing about the values: `config` checks what people set.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from facade.clock import Clock
from facade.serving.blobs.batch import Buffers
from facade.serving.blobs.observer import TransferObserver
from facade.serving.blobs.port import BlobKey, BlobStore, Possession
from facade.serving.blobs.sharing import Tails
from facade.upstream.retry import RetryPolicy

DEFAULT_HOLDBACK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Settings of all transfers of a process.

    Arguments:
        holdback_bytes: the end of every answer that waits for the verdict.
        strict: no byte goes out before the verdict (`[pull] verify = "strict"`).
        carry_on: a transfer that nobody reads any more is finished for the cache.
        grace_seconds: how long it is kept alive otherwise.
        lag_seconds: with a full disk, how long one slow reader may hold up the others.
        integrity_seconds: how long a failed verdict answers for further requests without a fetch.
        resume: pauses and attempts after a broken transfer; attempts count again from one
            whenever bytes came.
    """

    holdback_bytes: int = DEFAULT_HOLDBACK_BYTES
    strict: bool = False
    carry_on: bool = True
    grace_seconds: float = 10.0
    lag_seconds: float = 10.0
    integrity_seconds: float = 60.0
    resume: RetryPolicy = field(default_factory=RetryPolicy)

    def held(self, length: int) -> int:
        """How many of the last bytes of an answer of `length` bytes wait for the verdict."""
        return length if self.strict else min(self.holdback_bytes, length)


Published = Callable[[BlobKey, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TransferPorts:
    """What every transfer works with.

    Arguments:
        executor: threads for hashing and writing.
        possession: told what another process proved.
        tails: where other processes' transfers are found; None = there are no others.
        published: awaited when an object was published, before the transfer is over.
        buffers: memory that transfers use in turn.
    """

    store: BlobStore
    possession: Possession
    tails: Tails | None
    clock: Clock
    executor: Executor
    observer: TransferObserver
    limits: TransferLimits
    published: Published
    buffers: Buffers = field(default_factory=Buffers)
