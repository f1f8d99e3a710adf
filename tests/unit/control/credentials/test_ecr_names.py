"""AWS's names: which registry, which account, which region, which endpoints; and what contradicts."""

import pytest

from facade.control.credentials.clouds.ecr import EcrHost, Role, place
from facade.errors import Invalid
from facade.oci.host import RegistryHost

ROLE = Role.parse("arn:aws:iam::123456789012:role/facade")


def _host(text: str) -> RegistryHost:
    return RegistryHost.parse(text)


def test_a_private_registrys_name_says_account_and_region() -> None:
    found = EcrHost.parse(_host("https://123456789012.dkr.ecr.EU-central-1.amazonaws.com/app"))
    assert found == EcrHost("123456789012", "eu-central-1", "amazonaws.com", fips=False)


@pytest.mark.parametrize(
    ("name", "region", "sts", "ecr"),
    [
        (
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "eu-central-1",
            "https://sts.eu-central-1.amazonaws.com",
            "https://api.ecr.eu-central-1.amazonaws.com",
        ),
        (
            "123456789012.dkr.ecr-fips.us-east-2.amazonaws.com",
            "us-east-2",
            "https://sts-fips.us-east-2.amazonaws.com",
            "https://ecr-fips.us-east-2.amazonaws.com",
        ),
        (
            "123456789012.dkr-ecr.ap-southeast-5.on.aws",
            "ap-southeast-5",
            "https://sts.ap-southeast-5.amazonaws.com",
            "https://api.ecr.ap-southeast-5.amazonaws.com",
        ),
    ],
)
def test_the_endpoints_of_a_registry(name: str, region: str, sts: str, ecr: str) -> None:
    found = place(_host(name), ROLE, None)
    assert (found.region, found.sts_url, found.ecr_url) == (region, sts, ecr)


@pytest.mark.parametrize(
    ("partition", "name", "sts", "ecr"),
    [
        (
            "aws-cn",
            "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn",
            "https://sts.cn-northwest-1.amazonaws.com.cn",
            "https://api.ecr.cn-northwest-1.amazonaws.com.cn",
        ),
        (
            "aws-us-gov",
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            "https://sts.us-gov-west-1.amazonaws.com",
            "https://ecr-fips.us-gov-west-1.amazonaws.com",
        ),
        (
            "aws-eusc",
            "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            "https://sts.eusc-de-east-1.amazonaws.eu",
            "https://api.ecr.eusc-de-east-1.amazonaws.eu",
        ),
    ],
)
def test_other_partitions_have_endpoints_of_their_own(
    partition: str, name: str, sts: str, ecr: str
) -> None:
    role = Role.parse(f"arn:{partition}:iam::123456789012:role/facade")
    found = place(_host(name), role, None)
    assert (found.sts_url, found.ecr_url) == (sts, ecr)


@pytest.mark.parametrize("fips", [False, True])
@pytest.mark.parametrize(
    ("partition", "region"),
    [
        ("aws", "us-east-1"),
        ("aws", "us-west-2"),
        ("aws-us-gov", "us-gov-east-1"),
        ("aws-cn", "cn-north-1"),
    ],
)
def test_botocore_knows_the_same_endpoints(partition: str, region: str, *, fips: bool) -> None:
    if fips and partition == "aws-cn":
        return  # there is none
    from botocore.config import Config
    from botocore.session import Session

    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    name = f"123456789012.dkr.ecr{'-fips' if fips else ''}.{region}.{suffix}"
    found = place(_host(name), Role.parse(f"arn:{partition}:iam::123456789012:role/x"), region)
    config = Config(use_fips_endpoint=fips, ignore_configured_endpoint_urls=True)
    for service, url in (("sts", found.sts_url), ("ecr", found.ecr_url)):
        client = Session().create_client(
            service, region, config=config, aws_access_key_id="x", aws_secret_access_key="x"
        )
        assert url == client.meta.endpoint_url


def test_a_name_of_ones_own_needs_the_region() -> None:
    host = _host("images.acme.example")
    assert place(host, ROLE, "eu-west-3").sts_url == "https://sts.eu-west-3.amazonaws.com"
    with pytest.raises(Invalid, match="--aws-region"):
        place(host, ROLE, None)


def test_public_ecr_is_sent_elsewhere() -> None:
    with pytest.raises(Invalid, match=r"facade registry add public\.ecr\.aws --anonymous"):
        EcrHost.parse(_host("public.ecr.aws"))


@pytest.mark.parametrize(
    "name",
    [
        "12345.dkr.ecr.eu-central-1.amazonaws.com",
        "ecr.eu-central-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com:8443",
        "123456789012.dkr-ecr.eu-central-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-central-1.on.aws",
        "s3.eu-central-1.amazonaws.com",
    ],
)
def test_another_of_amazons_names_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no private ECR registry"):
        EcrHost.parse(_host(name))


def test_another_region_than_the_registrys_is_refused() -> None:
    host = _host("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
    with pytest.raises(Invalid, match=r"eu-west-1 was given, but .* is a registry in eu-central-1"):
        place(host, ROLE, "eu-west-1")


def test_another_account_than_the_registrys_is_refused() -> None:
    host = _host("999988887777.dkr.ecr.eu-central-1.amazonaws.com")
    with pytest.raises(Invalid, match=r"account 123456789012, but .* of account 999988887777"):
        place(host, ROLE, "eu-central-1")


def test_another_partition_than_the_registrys_is_refused() -> None:
    host = _host("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")
    with pytest.raises(Invalid, match="begins with arn:aws:"):
        place(host, ROLE, "cn-north-1")
    # A Chinese region under the worldwide suffix is a name that AWS does not have.
    with pytest.raises(Invalid, match="begins with arn:aws:"):
        place(_host("123456789012.dkr.ecr.cn-north-1.amazonaws.com"), ROLE, None)


@pytest.mark.parametrize(
    "arn",
    [
        "",
        None,
        17,
        "canary",
        "arn:aws:iam::210987654321:user/canary",
        "arn:aws:iam::12345:role/canary",
        "arn:aws:iam::210987654321:role/",
        "arn:aws:iam::210987654321:role/canary canary",
        "arn:aws:iam::210987654321:role/canary" + "x" * 65,
        "arn:aws:sts::210987654321:assumed-role/canary/session",
    ],
)
def test_what_is_no_role_is_refused_and_not_repeated(arn: object) -> None:
    with pytest.raises(Invalid, match="role_arn must be the ARN of a role") as caught:
        Role.parse(arn)
    assert "canary" not in caught.value.message
    assert "210987654321" not in caught.value.message


def test_a_partition_that_is_not_supported_says_so() -> None:
    with pytest.raises(Invalid, match="aws-iso is not supported"):
        Role.parse("arn:aws-iso:iam::123456789012:role/facade")


def test_a_role_may_have_a_path() -> None:
    role = Role.parse(" arn:aws:iam::123456789012:role/teams/edge/facade+pull@acme ")
    assert role.arn == "arn:aws:iam::123456789012:role/teams/edge/facade+pull@acme"


@pytest.mark.parametrize("region", ["", "EU", "eu-central-1.evil.example", "eu_central_1", 5, "-"])
def test_what_is_no_region_is_refused(region: object) -> None:
    with pytest.raises(Invalid, match="region must be"):
        place(_host("images.acme.example"), ROLE, region)
