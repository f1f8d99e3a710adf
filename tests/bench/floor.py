"""The floor: a loop that does with a blob's bytes what must be done, and nothing else.

It receives, hashes, tags, spools and flushes what it does not have, reads and checks what it has, encrypts
and sends: in the pieces, with the libraries and with the system calls that the facade uses, in one
thread. It asks nobody who may have what, resumes nothing, holds back nothing, serves one client after
another, and counts and logs nothing. So it is no server, but shows what of a figure is the bytes'.

    python -m tests.bench.floor FOLDER UPSTREAM_PORT CERTIFICATE KEY DEVICE_CA
"""

import functools
import hashlib
import os
import re
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facade.serving.blobs.layout import reserve
from facade.serving.identity.openssl import TlsContext

_PIECE_BYTES = 256 * 1024
_TAG_BYTES = 16
_CIPHER = AESGCM(bytes(32))
_BUFFER = memoryview(bytearray(_PIECE_BYTES))
_RECEIVED = memoryview(bytearray(64 * 1024))
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
Write = Callable[[bytes | memoryview], None]


def main() -> None:
    """Listen, say on which port, and serve until killed."""
    folder, upstream, certificate, key, device_ca = sys.argv[1:]
    context = TlsContext(Path(certificate), Path(key), [Path(device_ca)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            with client:
                _serve(client, context, Path(folder), int(upstream))


def _serve(client: socket.socket, context: TlsContext, folder: Path, upstream: int) -> None:
    """One connection, until the client leaves."""
    tls = context.session()

    def flush() -> None:
        if said := tls.outgoing():
            client.sendall(said)

    def more() -> None:
        flush()
        count = client.recv_into(_RECEIVED)
        if not count:
            raise ConnectionError("The client left.")
        tls.receive(_RECEIVED, count)

    def write(data: bytes | memoryview) -> None:
        tls.write(data)
        flush()

    try:
        while not tls.handshake():
            more()
        while (request := tls.read()) != b"":
            if request is None:
                more()
                continue
            path = request.split(b" ", 2)[1].decode()
            kept = folder / path.rpartition(":")[2]
            if kept.exists():
                _hit(kept, write)
            else:
                _miss(path, kept, write, upstream)
    except OSError:  # it left; TLS's errors are among them
        return


def _head(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def _hit(kept: Path, write: Write) -> None:
    """Read, check, encrypt, send."""
    fd, size, tags = _opened(kept, kept.stat().st_ino)
    write(_head(size))
    for index, at in enumerate(range(0, size, _PIECE_BYTES)):
        piece = _BUFFER[: os.preadv(fd, [_BUFFER], at)]
        tag = tags[index * _TAG_BYTES : (index + 1) * _TAG_BYTES]
        _CIPHER.decrypt(index.to_bytes(12, "big"), tag, piece)
        write(piece)


@functools.cache
def _opened(kept: Path, inode: int) -> tuple[int, int, bytes]:
    """Its descriptor, size in bytes, and tags; `inode` tells it from a former one."""
    fd = os.open(kept, os.O_RDONLY)
    return fd, os.fstat(fd).st_size, kept.with_suffix(".tags").read_bytes()


def _miss(path: str, kept: Path, write: Write, upstream: int) -> None:
    """Receive, hash, tag, spool, encrypt, send; flush."""
    hashed, tags = hashlib.sha256(), bytearray()
    with socket.create_connection(("127.0.0.1", upstream)) as source, kept.open("wb", 0) as file:
        source.sendall(f"GET {path} HTTP/1.1\r\nHost: floor\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += source.recv(1)
        found = _LENGTH.search(answer)
        assert found is not None
        left = int(found[1])
        write(_head(left))
        reserve(file.fileno(), left)
        while left:
            piece = _BUFFER[:left]
            _receive(source, piece)
            left -= len(piece)
            hashed.update(piece)
            tags += _CIPHER.encrypt((len(tags) // _TAG_BYTES).to_bytes(12, "big"), b"", piece)
            file.write(piece)
            write(piece)
        os.fsync(file.fileno())
    assert path.endswith(hashed.hexdigest())
    kept.with_suffix(".tags").write_bytes(tags)


def _receive(source: socket.socket, piece: memoryview) -> None:
    """Fill it, asleep until all of it is there."""
    while piece:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(piece))
        # Not in `recv`, which takes what is there and then sleeps until as much again arrives: for ever, at the end.
        select.select([source], [], [])
        count = source.recv_into(piece, 0, socket.MSG_DONTWAIT)
        if not count:
            raise ConnectionError("The upstream left.")
        piece = piece[count:]


if __name__ == "__main__":
    main()
