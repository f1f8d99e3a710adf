"""Names of AWS's registries, roles and endpoints.

Guarantees: an account, region or partition that contradicts the registry's host name is refused, so no
token is asked for in one place and presented in another; the endpoints are made from a checked
region and a DNS suffix of this table, whatever the environment says. Pure.
"""

import re
from dataclasses import dataclass
from typing import Self

from facade.errors import Invalid
from facade.oci.host import RegistryHost

PUBLIC_ECR = "public.ecr.aws"

_SUFFIXES = {
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-eusc": "amazonaws.eu",
}
"""Partition → DNS suffix of its endpoints and registries."""
_DUAL_STACK = {"on.aws": "amazonaws.com", "on.amazonwebservices.com.cn": "amazonaws.com.cn"}
"""Suffix of IPv6-capable registry names (`<account>.dkr-ecr.…`) → suffix of the endpoints."""
_HOST = re.compile(
    r"(?P<account>\d{12})\.dkr(?P<joint>[.-])ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?P<suffix>amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|"
    r"on\.amazonwebservices\.com\.cn)",
    re.ASCII,
)
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".on.aws", ".ecr.aws")
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-\d{1,2}", re.ASCII)
_ROLE = re.compile(
    r"arn:(?P<partition>aws(?:-[a-z]+)*):iam::(?P<account>\d{12}):role/"
    r"(?P<name>(?:[\w+=,.@-]+/)*[\w+=,.@-]{1,64})",
    re.ASCII,
)
_MAX_ARN_CHARS = 2048


@dataclass(frozen=True, slots=True)
class EcrHost:
    """What the name of a private ECR registry says. `suffix` is that of its endpoints."""

    account: str
    region: str
    suffix: str
    fips: bool

    @classmethod
    def parse(cls, host: RegistryHost) -> Self | None:
        """Read the host name; None when it is not one of AWS's (a name of the platform's own).

        Raises Invalid for AWS names that are no private ECR registry.
        """
        name = host.name
        if name == PUBLIC_ECR:
            raise Invalid(
                f"{PUBLIC_ECR} is Amazon's public registry, which takes no role. Connect it with: "
                f"facade registry add {PUBLIC_ECR} --anonymous"
            )
        found = _HOST.fullmatch(name) if host.port is None else None
        if found is not None and (found["joint"] == "-") == (found["suffix"] in _DUAL_STACK):
            suffix = _DUAL_STACK.get(found["suffix"], found["suffix"])
            return cls(found["account"], check_region(found["region"]), suffix, bool(found["fips"]))
        if name.endswith(_AWS_DOMAINS):
            raise Invalid(
                f"{host} is no private ECR registry. Its name looks like "
                "<account>.dkr.ecr.<region>.amazonaws.com, with an account of 12 digits."
            )
        return None


@dataclass(frozen=True, slots=True)
class Role:
    """A role's ARN, taken apart."""

    arn: str
    partition: str
    account: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read an ARN. Raises Invalid, without repeating it."""
        found = None
        if isinstance(text, str) and len(text) <= _MAX_ARN_CHARS:
            found = _ROLE.fullmatch(text.strip())
        if found is None:
            raise Invalid(
                "role_arn must be the ARN of a role, like "
                "arn:aws:iam::123456789012:role/facade-pull."
            )
        if found["partition"] not in _SUFFIXES:
            raise Invalid(f"The AWS partition {found['partition']} is not supported.")
        return cls(found.group(), found["partition"], found["account"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where the exchange happens.

    Arguments:
        region: signs the requests.
        sts_url, ecr_url: endpoints.
    """

    region: str
    sts_url: str
    ecr_url: str


def check_region(text: object) -> str:
    """A region's name. Raises Invalid."""
    if not isinstance(text, str) or _REGION.fullmatch(text.strip()) is None:
        raise Invalid("region must be the name of an AWS region, like eu-central-1.")
    return text.strip()


def place(host: RegistryHost, role: Role, region: object | None) -> Place:
    """Where tokens for `host` are asked for.

    Arguments:
        region: as given by the operator; None = as the host name says.

    Raises Invalid when host, role and region do not go together, or no region is known.
    """
    named = EcrHost.parse(host)
    if region is None and named is None:
        raise Invalid(f"Give the AWS region of {host}: its name does not say it (--aws-region).")
    wanted = named.region if region is None and named is not None else check_region(region)
    if named is not None:
        if named.region != wanted:
            raise Invalid(
                f"The region {wanted} was given, but {host} is a registry in {named.region}."
            )
        if named.account != role.account:
            raise Invalid(
                f"The role belongs to account {role.account}, but {host} is the registry of "
                f"account {named.account}. Give a role of that account."
            )
    suffix = _SUFFIXES[role.partition]
    if _partition(wanted) != role.partition or (named is not None and named.suffix != suffix):
        raise Invalid(
            f"The role's ARN begins with arn:{role.partition}:, which has no registry {host} in "
            f"{wanted}."
        )
    return _endpoints(wanted, role.partition, fips=named is not None and named.fips)


def _partition(region: str) -> str:
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc")):
        if region.startswith(prefix):
            return partition
    return "aws"


def _endpoints(region: str, partition: str, *, fips: bool) -> Place:
    suffix = _SUFFIXES[partition]
    # GovCloud's STS is a FIPS endpoint under its plain name.
    sts = "sts-fips" if fips and partition == "aws" else "sts"
    ecr = "ecr-fips" if fips else "api.ecr"
    return Place(region, f"https://{sts}.{region}.{suffix}", f"https://{ecr}.{region}.{suffix}")
