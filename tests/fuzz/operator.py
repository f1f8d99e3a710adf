"""Harnesses for what an operator, a cloud or another database writes: configuration, refusals, sealed values.

An operator may write anything; what counts is that each mistake is told in words, and no secret with it.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from multidict import CIMultiDict

from facade.config.redis_url import parse_redis_url
from facade.config.settings import parse_listen
from facade.config.sources import load
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.credentials.clouds.aws_refusals import (
    AwsError,
    assume_role_refusal,
    registry_token_refusal,
)
from facade.control.credentials.clouds.ecr import Role, check_region, place
from facade.control.credentials.clouds.google_refusals import google_refusal
from facade.control.signing.keys import public_key_of_pem
from facade.control.signing.uris import file_path
from facade.device_client.session import _error
from facade.errors import FacadeError
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer
from tests.fuzz.harness import Harness, as_json, fields

_NOW = 1_700_000_000.0
_SECRET = "hunter2-hunter2"
_ECR = RegistryHost.parse("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
_BOUND = ("connection", "c1")


def redis_url(data: bytes) -> None:
    """The URL of Redis; whatever is wrong with it, its password is not told."""
    (text,) = fields(data, 1)
    try:
        found = parse_redis_url(text)
    except ValueError as error:
        assert _SECRET not in str(error)
        return
    secrets = (found.password, found.sentinel_password)
    if text.count(_SECRET) == 1 and any(each and _SECRET in each.reveal() for each in secrets):
        assert _SECRET not in repr(found) + str(found)
    assert found.hosts
    assert all(0 < port < 65536 for _, port in found.hosts)


def settings(data: bytes) -> None:
    """A configuration file: it is taken whole, or its problems are listed."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "facade.toml"
        file.write_bytes(data)
        load(file, {})


def names(data: bytes) -> None:
    """Names that an operator gives: where to listen, roles, regions, keys."""
    (text,) = fields(data, 1)
    checks: tuple[Callable[[str], object], ...] = (
        *(check_region, Role.parse, file_path, parse_listen),
        lambda one: place(_ECR, Role.parse(one), None),
        lambda one: place(RegistryHost.parse(one), _ROLE, "eu-central-1"),
    )
    for check in checks:
        try:
            check(text)
        except (FacadeError, ValueError) as error:
            assert str(error), check


_ROLE = Role.parse("arn:aws:iam::123456789012:role/facade-pull")


def cloud_refusal(data: bytes) -> None:
    """A refusal of Google's or AWS's: in words, and without what was sent."""
    status, date, text = fields(data, 3)
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 400
    body = text.encode("utf-8", "surrogateescape")
    answer = CloudAnswer(number, CIMultiDict({"date": date}), body)
    said = [google_refusal("gcr.io", answer, sent=Secret(_SECRET), now=_NOW)]
    error = AwsError(date, text, number, skew=3.0, sent=(_SECRET,))
    said.append(assume_role_refusal(_ECR, error, given_keys=True, external_id=False))
    said.append(registry_token_refusal(_ECR, error))
    for each in said:
        assert _SECRET not in each.message
        assert len(each.message) < 1000


def facade_answer(data: bytes) -> None:
    """A refusal of a facade's, as its device client tells it."""
    status, after, text = fields(data, 3)
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 500
    error = _error(number, {"Retry-After": after}, text.encode("utf-8", "surrogateescape"))
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert error.retry_after is None or 0 <= error.retry_after < 100_000


class Sealed:
    """Sealed values in a database or Redis that somebody else writes to."""

    def __init__(self) -> None:
        self.ring = KeyRing.generate()
        self.sealer = Sealer(self.ring, "connections")
        self.value = self.sealer.seal(_SECRET, _BOUND)

    def open(self, data: bytes) -> None:
        """Nothing opens but what was sealed, for what it was sealed for."""
        (text,) = fields(data, 1)
        self.sealer.is_current(text)
        opened = self.sealer.open(text, _BOUND)
        assert opened == _SECRET

    @staticmethod
    def parse(data: bytes) -> None:
        """A file of sealing keys."""
        KeyRing.parse(fields(data, 1)[0])


def public_key(data: bytes) -> None:
    """The public key of a holder of an offline key, in PEM."""
    public_key_of_pem(data)


_PUBLIC = (
    b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    b"-----END PUBLIC KEY-----\n"
)


def harnesses() -> list[Harness]:
    """All of them."""
    sealed = Sealed()
    json_words = [b'{"', b'"}', b"null", b"1e999", b"-1", b"[[", b'":', b"\\ud800"]
    toml = b"""[device]\nlisten = "[::]:8443"\nworkers = 2\n[redis]\nurl = "redis://h"\n[[device.ca]]\nfile = "a"\n"""

    return [
        Harness(
            "redis-url",
            redis_url,
            [
                f"rediss://me:{_SECRET}@h:1/3?ca_file=/etc/ca.pem".encode(),
                f"redis+sentinel://a,[::1]:2/main/1?sentinel_password={_SECRET}".encode(),
                b"redis+cluster://a:1,b",
            ],
            [b"redis", b"+cluster", b"://", b"%40", b"?ca_file=", b"[::1]", _SECRET.encode()],
            512,
        ),
        Harness(
            "settings",
            settings,
            [toml],
            [b"[device]", b"[[device.ca]]", b"[upstream]", b"allow_cidrs = [", b" = ", b"1e999"],
        ),
        Harness(
            "names",
            names,
            [
                *(b"eu-central-1", b"arn:aws:iam::123456789012:role/facade-pull", b"[::]:8443"),
                *(b"file:/etc/facade/key.pem", b"123456789012.dkr.ecr.eu-central-1.amazonaws.com"),
            ],
            [b"arn:aws-cn:iam::", b":role/", b"file:", b"dkr-ecr", b".on.aws", b"cn-north-1"],
            2100,
        ),
        Harness(
            "cloud-refusal",
            cloud_refusal,
            [
                b"400\0Tue, 14 Nov 2023 22:13:25 GMT\0"
                + as_json({"error": "invalid_grant", "error_description": f"iat {_SECRET}"}),
                f"403\0AccessDenied\0{_SECRET} is not authorized: arn:aws:iam::1:role/x".encode(),
                b"503\0SlowDown\0<html>",
            ],
            [*json_words, b'"error":', b"disabled", b"Signature expired", b"arn:", b"eyJ"],
        ),
        Harness(
            "facade-answer",
            facade_answer,
            [
                b"403\x005\0"
                + as_json(
                    {"errors": [{"code": "DENIED", "message": "No.", "detail": {"reason": "x"}}]}
                )
            ],
            [*json_words, b'"errors":', b'"detail":', b'"reason":', b"not-signed"],
        ),
        Harness("sealed", sealed.open, [sealed.value.encode()], [b"f1."], 512),
        Harness("key-ring", sealed.parse, [sealed.ring.format().encode()], [*json_words, b"keys"]),
        Harness("public-key", public_key, [_PUBLIC], [b"-----BEGIN ", b"-----END "], 1024),
    ]
