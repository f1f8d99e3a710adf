"""The floor gets what arrives in pieces: it must not wait for more than will ever come."""

import socket
import threading
import time
from collections.abc import Callable

from tests.bench.floor import _receive

_MORE_SECONDS = 0.2
_LONG_SECONDS = 10.0


def test_a_piece_of_which_a_part_is_there_is_filled_when_the_rest_comes() -> None:
    """With large windows: a nearly full small one would wake the reader anyway."""
    content = bytes(range(256)) * 4096
    last = len(content) - 256 * 1024
    got = bytearray(len(content))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = socket.create_connection(listener.getsockname())
        sender, _ = listener.accept()
    with source, sender:
        _ended(
            lambda: sender.sendall(content[:last]), lambda: _receive(source, memoryview(got)[:last])
        )
        sender.sendall(content[last : last + 1000])
        time.sleep(_MORE_SECONDS)

        def more() -> None:
            time.sleep(_MORE_SECONDS)
            sender.sendall(content[last + 1000 :])

        _ended(more, lambda: _receive(source, memoryview(got)[last:]))
    assert got == content


def _ended(*jobs: Callable[[], object]) -> None:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LONG_SECONDS)
        assert not thread.is_alive()
