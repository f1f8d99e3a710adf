"""Schemas of the sealing key."""

from pydantic import Field

from facade.control.api.schemas.base import Answer


class SealingRotated(Answer):
    """The key that seals secrets at rest was changed; the retired ones open nothing any more."""

    key_id: str = Field(description="of the key that seals now")
    resealed: int = Field(description="connections whose secrets were sealed again")
    retired: list[str] = Field(description="ids of the keys that were dropped")
