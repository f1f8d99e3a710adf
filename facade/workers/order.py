"""What a worker is told at its start, over the pipe that is its standard input.

Guarantees: only what is listed as needed for serving is in it: no database, no sealing key, no online keys, no Redis, no
cloud endpoints, nothing of the operator port; so neither its command line nor its environment nor
its memory holds any of those. One line of JSON, bounded; the pipe stays open as its lifeline.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, TypeVar

from pydantic import Field, StrictInt

from facade.config.section import Section
from facade.config.settings import Settings
from facade.errors import Invalid
from facade.workers.user import WorkerUser

MAX_BYTES = 1_000_000

S = TypeVar("S", bound=Section)
PASSED: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "device": (
            *("listen", "server_cert", "server_key", "trust_domain", "identity", "ca", "limits"),
            *("default_registry", "proxy_protocol_from", "deny_list_max_age"),
        ),
        "trust": ("root", "source", "refresh_seconds"),
        "store": ("url", "max_bytes", "high_watermark", "low_watermark"),
        "upstream": ("allow_cidrs", "timeouts", "per_connection"),
        "pull": ("verify", "holdback_bytes"),
        "log": ("level", "format"),
        "tracing": ("endpoint", "sample_ratio", "accept_from_devices"),
    }
)
"""By section, the settings that a worker is told. One that is not listed stays at its default there: a
new one may be a secret."""


_Id = Annotated[int, Field(strict=True, ge=0, lt=2**32 - 1)]
"""Of a user or group; to the kernel the one beyond, -1, says "as it is"."""
_Other = Annotated[_Id, Field(gt=0)]
"""Whoever shall become another user must not stay root."""


class _Given(Section):
    """An order as it is written."""

    index: StrictInt
    listen_fd: StrictInt
    control_socket: str
    cache_socket: str
    parent_uid: _Id
    user: tuple[str, _Other, _Id] | None
    others: tuple[str, ...]
    settings: Settings


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
            given = _Given.model_validate_json(line)
        except ValueError as error:
            raise Invalid(f"A serving process cannot read its order ({error}).") from error
        return cls(
            index=given.index,
            listen_fd=given.listen_fd,
            control_socket=Path(given.control_socket),
            cache_socket=Path(given.cache_socket),
            parent_uid=given.parent_uid,
            user=None if given.user is None else WorkerUser(*given.user),
            others=tuple(map(Path, given.others)),
            settings=given.settings,
        )


def serving_settings(settings: Settings, metadata_dir: Path) -> Settings:
    """What a worker needs of `settings`, and its share of what the node may do at once.

    Rates are not shared out: a device may have all its connections at one worker, and would get a part
    of its rate for as long as it pulls. What it may have at once it only waits for.

    Arguments:
        metadata_dir: its own folder of verified metadata.
    """
    workers = settings.device.workers
    told = Settings(
        **{
            section: type(getattr(settings, section))(
                **{name: getattr(getattr(settings, section), name) for name in names}
            )
            for section, names in PASSED.items()
        }
    )
    limits, registry = told.device.limits, told.upstream.per_connection

    def shared(section: S, **bounds: int) -> S:
        """With each worker's part, rounded up, so that all together keep the node's bound."""
        return section.model_copy(
            update={name: math.ceil(bound / workers) for name, bound in bounds.items()}
        )

    return told.model_copy(
        update={
            "device": told.device.model_copy(
                update={"limits": shared(limits, requests=limits.requests, streams=limits.streams)}
            ),
            "trust": told.trust.model_copy(update={"metadata_dir": metadata_dir}),
            "upstream": told.upstream.model_copy(
                update={"per_connection": shared(registry, transfers=registry.transfers)}
            ),
        }
    )
