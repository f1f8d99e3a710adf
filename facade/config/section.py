"""What every section of the settings has in common."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from facade.device import identity_fields
from facade.errors import Invalid


def _cidr(text: str) -> str:
    ipaddress.ip_network(text)  # its ValueError says what is wrong
    return text


def _identity(text: str) -> str:
    try:
        identity_fields(text)
    except Invalid as error:
        raise ValueError(error.message) from error
    return text


Identity = Annotated[str, AfterValidator(_identity)]
Cidr = Annotated[str, AfterValidator(_cidr)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """Frozen, and closed to keys that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")
