"""Pages of lists, and times as text. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypedDict, TypeVar

from facade.control.api.schemas.base import Page

T = TypeVar("T")


class PageFields(TypedDict):
    """The fields that every list answer has besides its items."""

    total: int
    limit: int
    offset: int


def cut(values: Sequence[T], page: Page) -> Sequence[T]:
    """The page's part of a list that is in memory."""
    return values[page.offset : page.offset + page.limit]


def fields(page: Page, total: int) -> PageFields:
    """What goes beside `items`."""
    return {"total": total, "limit": page.limit, "offset": page.offset}


def moment(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def maybe_moment(seconds: float | None) -> str | None:
    """`moment`, or None for None."""
    return None if seconds is None else moment(seconds)
