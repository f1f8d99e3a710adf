"""Listening sockets, and what a server shares with whoever starts it.

Guarantees: a port that cannot be had is an `Invalid` that names it and says what to do. Imports no server:
`facade up` has its sockets, and workers waiting on them, before it loads one.
"""

import errno
import socket
from contextlib import suppress

from facade.errors import Invalid

BACKLOG = 1024
DRAIN_SECONDS = 30.0
"""How long what runs may go on once a server was told to end."""
_ANY_V6 = "::"
_ANY_V4 = "0.0.0.0"  # noqa: S104 - where IPv6 is switched off, [::] means this


def bind(name: str, host: str, port: int) -> socket.socket:
    """A bound TCP socket. `::` takes IPv4 too, and `0.0.0.0` where there is no IPv6.

    Raises Invalid, naming the port and what to do.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if host == _ANY_V6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return bind(name, _ANY_V4, port)
        where = f"{f'[{host}]' if ':' in host else host}:{port}"
        variable = f"FACADE_{name.upper()}__LISTEN"
        if error.errno == errno.EADDRINUSE:
            what = "is in use: another program listens there"
        elif error.errno in (errno.EACCES, errno.EPERM):
            what = "needs a permission this user does not have"
        else:
            what = f"cannot be listened on ({error.strerror or error})"
        raise Invalid(f"The {name} port {where} {what}. Set {variable}=HOST:PORT.") from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or _ANY_V6, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != _ANY_V6)
        sock.bind(address)
        sock.listen(BACKLOG)  # a port in use may only show here
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def url_of(bound: socket.socket, scheme: str) -> str:
    """`scheme://HOST:PORT` of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
