"""The published objects of a local store, as its threads see them: opened, or deleted.

Guarantees: what is opened has its tags; a truncated or untagged file is re-hashed or set aside, never
opened on trust; what any process reads (`opened`) is not deleted. Everything blocks on the disk, nothing on a lock.
"""

import contextlib
import fcntl
import os
from typing import NamedTuple

import structlog

from facade.errors import Integrity, Unavailable
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.serving.blobs.layout import Layout, write_durably
from facade.serving.blobs.partials import is_named, try_lock
from facade.serving.blobs.port import Busy
from facade.serving.blobs.quarantine import Quarantine
from facade.serving.blobs.rehash import rehash
from facade.serving.blobs.sidecars import Sidecars
from facade.serving.blobs.tags import BlockTags, TagKey

log = structlog.get_logger(__name__)


class Opened(NamedTuple):
    """An object's file, owned by whoever has this, and its tags."""

    fd: int
    tags: BlockTags


class Unfit(NamedTuple):
    """An object that was set aside on opening, and why."""

    detail: str


class Objects:
    """Those of one store.

    Arguments:
        key: the node's, for block tags.
        sidecars: where block tags lie.
        quarantine: where what is unfit goes.
    """

    def __init__(
        self, layout: Layout, key: TagKey, sidecars: Sidecars, quarantine: Quarantine
    ) -> None:
        self._layout = layout
        self._key = key
        self._sidecars = sidecars
        self._quarantine = quarantine

    def open(self, digest: Digest) -> Opened | Unfit | None:
        """It, unlocked; None when there is none. Raises Busy while it is locked."""
        try:
            fd = os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cached_object_unreadable", digest=str(digest), error=error.strerror)
            return None
        try:
            # Not while it is being published or removed.
            if not try_lock(fd, fcntl.LOCK_SH):
                raise Busy("Another process has it locked just now.", reason=Reason.INTERNAL)
            if not os.fstat(fd).st_nlink:
                os.close(fd)
                return None
            tags = self._read_tags(digest, fd)
            fcntl.flock(fd, fcntl.LOCK_UN)  # its readers take it
        except (Integrity, OSError) as error:
            log.error("cached_object_unfit", digest=str(digest), error=str(error))
            spoiled = os.fstat(fd)
            os.close(fd)
            self._quarantine.take(digest, spoiled)
            return Unfit(str(error))
        except BaseException:
            os.close(fd)
            raise
        return Opened(fd, tags)

    def remove(self, digest: Digest) -> int | None:
        """Delete it; its bytes, or None when it was absent or is in use. Raises Unavailable."""
        path = self._layout.blob(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not (try_lock(fd, fcntl.LOCK_EX) and is_named(fd, path)):
                    return None  # another process reads it
                size = os.fstat(fd).st_size
                path.unlink()
                self._layout.tags(digest).unlink(missing_ok=True)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"A cached object stays: {error.strerror}.") from error
        return size

    def _read_tags(self, digest: Digest, fd: int) -> BlockTags:
        size = os.fstat(fd).st_size
        path = self._layout.tags(digest)
        why = "there are none"
        for sidecar in self._sidecars.found(fd, path, size):
            try:
                tags = BlockTags.parse(self._key, digest, sidecar)
            except Integrity as error:
                why = error.message
                continue
            if tags.size == size:
                return tags
        # Another node key, or a damaged sidecar: the digest itself can still decide.
        log.warning("cached_object_rehashed", digest=str(digest), error=why)
        sidecar = rehash(fd, digest, size, self._key)
        if not self._sidecars.attach(fd, sidecar):
            draft = self._layout.ingest / f"{digest.algorithm}-{digest.hex}.{os.getpid()}.retag"
            with contextlib.suppress(OSError):  # a full disk is no reason to lose the object
                write_durably(path, sidecar, draft)
        return BlockTags.parse(self._key, digest, sidecar)
