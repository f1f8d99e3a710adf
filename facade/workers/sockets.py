"""One listening socket per worker, all on the device port.

Guarantees: the kernel spreads new connections over them (SO_REUSEPORT), and a port that another program
has is still refused with its name: the first is bound as if it were alone. They belong to the
parent, which hands each to its worker: what waits in a crashed worker's queue is not reset but
answered by the next one.
"""

import socket
from contextlib import suppress

from facade.listening import BACKLOG, bind


def bind_for_workers(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` bound, listening sockets; `port` 0 = any free one.

    Raises Invalid, naming the port and what to do.
    """
    sockets = [bind("device", host, port)]
    try:
        if count > 1:
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(sockets) < count:
            sockets.append(_another(sockets[0]))
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _another(first: socket.socket) -> socket.socket:
    sock = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(first.getsockname())
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def withdraw(sock: socket.socket) -> None:
    """Take no more connections on `sock`: the other workers get them, or nobody and they are refused.

    What waits in its queue is reset. A worker that starts on it listens again. Not while somebody
    else accepts from it.
    """
    with suppress(OSError):  # withdrawn already
        sock.shutdown(socket.SHUT_RD)
