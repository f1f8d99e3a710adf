"""Reading files without ever blocking the event loop, and without a thread when the page is warm.

Guarantees: `FileReader.fill` answers from the page cache on the loop (`preadv2`, RWF_NOWAIT) and
goes to a thread only for what is not there, or always on file systems that do not know the flag
(tmpfs). A descriptor is closed only when no thread reads it any more. Does not check content.
"""

import asyncio
import errno
import os
from concurrent.futures import Executor

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class ReadMode:
    """Whether one store's file system answers RWF_NOWAIT; shared by its readers.

    Arguments:
        executor: threads for reads that would block.
        nowait: False = do not even try.
    """

    def __init__(self, executor: Executor, *, nowait: bool = True) -> None:
        self.executor = executor
        self.nowait = nowait
        self.threaded = 0
        """How many reads went to a thread so far."""


class FileReader:
    """A descriptor that several readers share. Owns it; loop only.

    Arguments:
        fd: open for reading.
        mode: the store's.
    """

    def __init__(self, fd: int, mode: ReadMode) -> None:
        self._fd = fd
        self._mode = mode
        self._busy = 0
        self._closing = False

    @property
    def fd(self) -> int:
        """The descriptor, for calls that do not block."""
        return self._fd

    async def fill(self, view: memoryview, offset: int) -> int:
        """Fill `view` from `offset`; returns less than its length only at the end of the file.

        Raises OSError when the disk fails.
        """
        done = self.fill_now(view, offset)
        if done == len(view):
            return done
        return done + await self._fill_in_thread(view[done:], offset + done)

    def fill_now(self, view: memoryview, offset: int) -> int:
        """Fill `view` from `offset` with what is in memory; returns how many bytes that were.

        Raises OSError when the disk fails.
        """
        if self._mode.nowait:
            try:
                return os.preadv(self._fd, [view], offset, os.RWF_NOWAIT)
            except BlockingIOError:
                pass  # nothing of it is in memory
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._mode.nowait = False
        return 0

    def close(self) -> None:
        """Close once no read is under way."""
        self._closing = True
        self._close_if_idle()

    async def _fill_in_thread(self, view: memoryview, offset: int) -> int:
        loop = asyncio.get_running_loop()
        self._busy += 1
        self._mode.threaded += 1
        job = loop.run_in_executor(self._mode.executor, read_fully, self._fd, view, offset)
        job.add_done_callback(self._finished)
        # A reader that is cancelled leaves; the thread goes on reading into its buffer, which
        # therefore is never given to anybody else.
        return await asyncio.shield(job)

    def _finished(self, job: "asyncio.Future[int]") -> None:
        self._busy -= 1
        if not job.cancelled():
            job.exception()  # a reader that left does not ask for it
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closing and not self._busy and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_fully(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset`, blocking; less only at the end of the file. Raises OSError."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
