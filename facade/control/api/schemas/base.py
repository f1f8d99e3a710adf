"""What all schemas share: bounded texts, the two base classes, pages, the error shape."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

MAX_LIMIT = 200
DEFAULT_LIMIT = 50

Text = Annotated[str, Field(min_length=1, max_length=255)]
Host = Annotated[str, Field(min_length=1, max_length=2048, examples=["ghcr.io"])]
Long = Annotated[str, Field(min_length=1, max_length=65_536)]
HiddenText = Annotated[SecretStr, Field(min_length=1, max_length=65_536)]
Moment = Annotated[str, Field(description="RFC 3339, UTC", examples=["2026-01-31T12:00:00Z"])]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Nothing(Request):
    """No parameters, no body."""


class Failure(Answer):
    """Every answer that is no success."""

    error: str = Field(description="one sentence that says what to do")


class Changed(Answer):
    """A change was made."""

    pending: bool | None = Field(
        None, description="true: some serving process does not use it yet (after 5 s)"
    )


class Page(Request):
    """Which part of a list."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=2**31)


class RecordPage(Page):
    """Which part of a record that grows while it is read."""

    before: int | None = Field(
        None,
        ge=1,
        le=2**63 - 1,
        description="an item's id: older ones only; pages go on with the last item's",
    )


class Listing(Answer):
    """Part of a list; `items` is added by each noun."""

    total: int
    limit: int
    offset: int
