"""The `[credentials]` section: where clouds are asked for tokens, for tests and private endpoints.

Guarantees: an endpoint is https, or on this machine: what is sent there is a secret. No connection
setting can change any of it.
"""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from facade.errors import FacadeError
from facade.oci.host import RegistryHost


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    usable = parts.scheme == "https" or (parts.scheme == "http" and here)
    if not usable or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("write https://HOST[:PORT][/PATH]")
    return text


def _registry(text: str) -> str:
    try:
        return str(RegistryHost.parse(text))
    except FacadeError as error:
        raise ValueError(error.message) from error


EndpointUrl = Annotated[str, AfterValidator(_endpoint)]


class CredentialsSettings(BaseModel):
    """Where the providers google and aws ask for tokens (control side only)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    google_token_uri: EndpointUrl | None = Field(
        None, description="token endpoint; absent: https://oauth2.googleapis.com/token"
    )
    google_hosts: tuple[Annotated[str, AfterValidator(_registry)], ...] = Field(
        (), description="registries that may get Google tokens besides *-docker.pkg.dev, *.gcr.io"
    )
    aws_sts_endpoint: EndpointUrl | None = Field(
        None, description="STS endpoint, like a VPC's; absent: AWS's own in each region"
    )
    aws_ecr_endpoint: EndpointUrl | None = Field(
        None, description="ECR API endpoint, like a VPC's; absent: AWS's own in each region"
    )
