"""`[credentials]`: where clouds are asked is https, or this machine."""

import pytest
from pydantic import ValidationError

from facade.config.clouds import CredentialsSettings


def test_by_default_the_clouds_own_endpoints_are_asked() -> None:
    settings = CredentialsSettings()
    assert settings.google_token_uri is None
    assert settings.google_hosts == ()
    assert (settings.aws_sts_endpoint, settings.aws_ecr_endpoint) == (None, None)


@pytest.mark.parametrize(
    "url",
    [
        "https://vpce-0a1b.sts.eu-central-1.vpce.amazonaws.com",
        "https://tokens.acme.example:8443/google/token",
        "http://127.0.0.1:4566",
        "http://[::1]:4566",
        "http://localhost:4566/token",
    ],
)
def test_an_endpoint_of_ones_own(url: str) -> None:
    settings = CredentialsSettings(aws_sts_endpoint=url, google_token_uri=url)
    assert settings.aws_sts_endpoint == url


@pytest.mark.parametrize(
    "url",
    [
        "http://sts.acme.example",
        "http://127.0.0.1.evil.example",
        "ftp://sts.acme.example",
        "sts.acme.example",
        "https://",
        "https://user:canary@sts.acme.example",
        "https://sts.acme.example/?a=b",
        "https://sts.acme.example/#a",
        "",
    ],
)
def test_an_endpoint_that_would_tell_a_secret_to_the_wire_is_refused(url: str) -> None:
    for key in ("google_token_uri", "aws_sts_endpoint", "aws_ecr_endpoint"):
        with pytest.raises(ValidationError, match="write https://HOST"):
            CredentialsSettings.model_validate({key: url})


def test_hosts_for_google_tokens_are_registries() -> None:
    settings = CredentialsSettings.model_validate({"google_hosts": ["Images.acme.example:443"]})
    assert settings.google_hosts == ("images.acme.example",)
    with pytest.raises(ValidationError, match="registry host"):
        CredentialsSettings.model_validate({"google_hosts": ["not a host"]})
