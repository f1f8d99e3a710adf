"""What a worker is told at its start, over the pipe that is its standard input.

Guarantees: only what serving needs is in it: no database, no sealing key, no online keys, no Redis, no
cloud endpoints, nothing of the operator port; so neither its command line nor its environment nor
its memory holds any of those. One line of JSON, bounded; the pipe stays open as its lifeline.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from facade.config.clouds import CredentialsSettings
from facade.config.settings import (
    DatabaseSettings,
    MetricsSettings,
    OperatorSettings,
    RedisSettings,
    SealingSettings,
    Settings,
)
from facade.errors import Invalid
from facade.link.strict import Fields, Malformed, load
from facade.workers.user import WorkerUser

MAX_BYTES = 1_000_000
_MAX_ID = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Order:
    """One worker's task.

    Arguments:
        index: which worker it is, from 0.
        listen_fd: its listening socket, inherited.
        control_socket: where the control side answers.
        cache_socket: where it answers the control side.
        parent_uid: who may ask there.
        user: whom to become first; None = stay.
        others: where the other workers keep their verified metadata.
        settings: of the serving side, for this worker.
    """

    index: int
    listen_fd: int
    control_socket: Path
    cache_socket: Path
    parent_uid: int
    user: WorkerUser | None
    others: tuple[Path, ...]
    settings: Settings

    def encode(self) -> bytes:
        """One line."""
        user = self.user
        return (
            json.dumps(
                {
                    "index": self.index,
                    "listen_fd": self.listen_fd,
                    "control_socket": str(self.control_socket),
                    "cache_socket": str(self.cache_socket),
                    "parent_uid": self.parent_uid,
                    "user": None if user is None else [user.name, user.uid, user.gid],
                    "others": [str(folder) for folder in self.others],
                    "settings": self.settings.model_dump(mode="json"),
                }
            ).encode()
            + b"\n"
        )

    @classmethod
    def decode(cls, line: bytes) -> "Order":
        """What `encode` wrote. Raises Invalid for anything else, as when files of two versions mix."""
        try:
            fields = Fields(load(line), "order")
            order = cls(
                index=fields.integer("index"),
                listen_fd=fields.integer("listen_fd"),
                control_socket=Path(fields.text("control_socket")),
                cache_socket=Path(fields.text("cache_socket")),
                parent_uid=fields.integer("parent_uid"),
                user=_user(fields.any("user")),
                others=tuple(map(Path, fields.texts("others"))),
                settings=Settings.model_validate(fields.any("settings")),
            )
            fields.done()
        except ValueError as error:  # pydantic's is one too
            raise Invalid(f"A serving process cannot read its order ({error}).") from error
        return order


def _user(value: object) -> WorkerUser | None:
    """Raises Malformed."""
    if value is None:
        return None
    name, uid, gid = value if isinstance(value, list) and len(value) == 3 else (None, None, None)
    # To the kernel -1 says "as it is", and 0 is root: whoever shall become another must not stay one.
    if not isinstance(name, str) or not _is_id(uid) or not _is_id(gid) or not uid:
        raise Malformed("order: user is not of its kind")
    return WorkerUser(name, uid, gid)


def _is_id(number: object) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < _MAX_ID


def serving_settings(settings: Settings, metadata_dir: Path) -> Settings:
    """What a worker needs of `settings`, and its share of what the node may do.

    Arguments:
        metadata_dir: its own folder of verified metadata.
    """
    upstream = settings.upstream
    share = math.ceil(upstream.per_connection.transfers / settings.device.workers)
    return settings.model_copy(
        update={
            "operator": OperatorSettings(),
            "metrics": MetricsSettings(),
            "database": DatabaseSettings(),
            "redis": RedisSettings(),
            "sealing": SealingSettings(),
            "credentials": CredentialsSettings(),
            "trust": settings.trust.model_copy(
                update={"repository": None, "online_keys": None, "metadata_dir": metadata_dir}
            ),
            "upstream": upstream.model_copy(
                update={
                    "per_connection": upstream.per_connection.model_copy(
                        update={"transfers": share}
                    )
                }
            ),
        }
    )
