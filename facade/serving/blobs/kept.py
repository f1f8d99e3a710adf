"""Bytes of a file that grows, with the tags of what was put or found there, in memory.

Guarantees: `read` gives out only bytes that were told to the tags: whole blocks are checked, those of
the last, unfinished block come from memory. Does not write, and does not know whose file it is.
"""

from facade.errors import Integrity
from facade.serving.blobs.diskread import FileReader, read_fully
from facade.serving.blobs.port import BLOCK_BYTES, Feed
from facade.serving.blobs.tags import TagWriter

PIECE_BYTES = 4 * BLOCK_BYTES
"""How much is read at once where everything is read."""


class KeptBytes:
    """One writer or one follower's view of a partial.

    Arguments:
        file: what is read, owned.
        tags: told of the bytes [0, `have`), in order.
    """

    def __init__(self, file: FileReader, tags: TagWriter) -> None:
        self.file = file
        self.tags = tags
        self.have = 0
        """Bytes that were added."""

    def add(self, data: memoryview) -> None:
        """The next bytes are in the file. In a thread."""
        self.tags.update(data)
        self.have += len(data)

    async def read(self, into: memoryview, offset: int) -> int:
        """As `Ingest.read` says."""
        index, inside = divmod(offset, BLOCK_BYTES)
        count = min(len(into), self.have - offset, BLOCK_BYTES - inside)
        if count <= 0:
            raise Integrity("Bytes kept a moment ago are gone.")
        latest = self.tags.latest(index, inside, inside + count)
        if latest is not None:
            into[:count] = latest
            return count
        # It may have gone to the disk and come back: only whole blocks can be checked.
        block = into[:count] if count == BLOCK_BYTES else memoryview(bytearray(BLOCK_BYTES))
        try:
            found = await self.file.fill(block, index * BLOCK_BYTES)
        except OSError as error:
            raise Integrity(f"Bytes kept a moment ago cannot be read: {error.strerror}.") from error
        if found != BLOCK_BYTES:
            raise Integrity("Bytes kept a moment ago are gone.")
        self.tags.check(index, block)
        if count < BLOCK_BYTES:
            into[:count] = block[inside : inside + count]
        return count

    def tell(self, feed: Feed, tags: TagWriter) -> None:
        """Tell `feed` the bytes [0, `have`) as they are in the file now, and `tags` likewise, which
        are empty. In a thread.

        Raises Integrity when they are no longer those that were added, OSError.
        """
        told = 0
        buffer = memoryview(bytearray(min(PIECE_BYTES, self.have)))
        while told < self.have:
            count = read_fully(self.file.fd, buffer[: self.have - told], told)
            if count == 0:
                break
            feed(buffer[:count])
            tags.update(buffer[:count])
            told += count
        if not tags.equal(self.tags):
            raise Integrity("Bytes kept a moment ago are others now.")
