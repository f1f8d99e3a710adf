"""What threads do with a transfer's bytes: hash them, put them into the store, and publish them.

Guarantees: nothing is published whose length and digest did not match. Where nothing can follow the last
byte it is published by the thread that worked on that, once its readers were told: a way to the loop and
back less, and for a small blob the only one. Does not decide when to give the store up.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor

from facade.errors import Unavailable
from facade.serving.blobs.port import Ingest
from facade.serving.blobs.threads import run_to_end
from facade.serving.blobs.verify import StreamVerifier


class Intake:
    """One transfer's.

    Arguments:
        matched: called on the loop when length and digest match, before anything is published.
    """

    def __init__(self, verifier: StreamVerifier, matched: Callable[[], None]) -> None:
        self._verifier = verifier
        self._matched = matched
        self._loop = asyncio.get_running_loop()
        self._trouble: Unavailable | None = None
        self.ingest: Ingest | None = None
        """Where the bytes go; None = nowhere."""
        self.published = False
        """Whether it was, or was tried to be."""
        self.exact = False
        """Whether nothing can follow the last byte: the registry's own length says so."""

    def work(self, data: memoryview) -> Unavailable | None:
        """Take the next bytes, in a thread; why they cannot be kept, if so."""
        self._verifier.update(data)
        ingest = self.ingest
        if ingest is None:
            return None
        try:
            ingest.write(data)
        except Unavailable as error:
            return error
        if self.exact and self._verifier.matches():
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                self._loop.call_soon_threadsafe(self._matched)
            self._publish(ingest)
        return None

    async def publish(self, executor: Executor) -> bool:
        """After the verdict: publish it if that was not done yet; whether there is anything to.

        Raises Unavailable when the store could not.
        """
        ingest = self.ingest
        if ingest is None:
            return False
        if not self.published:
            await run_to_end(executor, lambda: self._publish(ingest))
        if self._trouble is not None:
            raise self._trouble
        return True

    def _publish(self, ingest: Ingest) -> None:
        self.published = True
        try:
            ingest.publish()
        except Unavailable as error:
            self._trouble = error
