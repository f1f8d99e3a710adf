"""A worker's tie to its parent: the pipe that its order came through.

Guarantees: once tied, the kernel ends this process as soon as the parent is gone, however it went and
whatever this process is doing: the parent holds the pipe's only writing end, and the reading
end asks for SIGIO, which is not handled and therefore ends the process. (`prctl(PR_SET_PDEATHSIG)`
would need ctypes, which a hardened unit's MemoryDenyWriteExecute forbids, and is forgotten when
the user changes.) Nothing may be written to the pipe afterwards.
"""

import fcntl
import os
import select

READ_BYTES = 65536


def read_order(fd: int, limit: int) -> bytes:
    """The first line from `fd`, byte by block; b"" when the parent is gone or it is too long."""
    data = b""
    while not data.endswith(b"\n"):
        block = os.read(fd, READ_BYTES)
        data += block
        if not block or len(data) > limit:
            return b""
    return data


def tie(fd: int) -> bool:
    """Tie this process's life to the pipe `fd`; False when its writer is gone already."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(0)
