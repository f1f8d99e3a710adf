"""A basin that keeps everything, of a size and patience that a test chooses."""

from facade.serving.blobs.port import BlobBody

SPACE_BYTES = 64 * 1024


class KeepingBasin:
    """Implements `upstream.pour.Basin`.

    Arguments:
        space: bytes that it offers at once.
        every: it is full after so many bytes each time, until `make_space` was awaited.
    """

    def __init__(self, *, space: int = SPACE_BYTES, every: int = 0) -> None:
        self.data = bytearray()
        self.waited = 0
        """How often space was made."""
        self._buffer = memoryview(bytearray(space))
        self._every = every
        self._since = 0

    def space(self) -> memoryview:
        if not self._every:
            return self._buffer
        return self._buffer[: self._every - self._since]

    def filled(self, count: int) -> None:
        self.data += self._buffer[:count]
        self._since += count

    async def make_space(self) -> None:
        self.waited += 1
        self._since = 0


async def poured(body: BlobBody) -> bytes:
    """All that `body` brings."""
    basin = KeepingBasin()
    await body.pour(basin)
    return bytes(basin.data)
