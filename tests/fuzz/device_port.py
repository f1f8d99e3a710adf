"""Harnesses for what a device says: path, `?ns=`, Range, conditions, references, who is behind a balancer."""

from types import SimpleNamespace
from typing import cast

from aiohttp import web
from multidict import CIMultiDict

from facade.device import parse_device_path, parse_spiffe_id, spiffe_id
from facade.errors import FacadeError
from facade.oci.digest import Digest
from facade.oci.errorcodes import answer_for, body
from facade.oci.host import RegistryHost, host_in_path
from facade.oci.platform import Platform
from facade.oci.ranges import parse_range
from facade.oci.reference import Repository, Tag
from facade.oci.request import PullRequest
from facade.serving.api.answers import plan
from facade.serving.api.words import for_device
from facade.serving.identity.half_open import source
from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.proxy_header import (
    MAX_BYTES,
    SIGNATURE,
    HeaderProblem,
    ProxyHeader,
    parse,
)
from facade.target import parse_artifact_path, parse_version
from tests.fuzz.harness import Harness, fields

SHA = "sha256:" + "a" * 64
SIZE = 1000
_HUB = RegistryHost.parse("docker.io")


def request(data: bytes) -> None:
    """Path and `?ns=` of a request; what parses has one canonical form."""
    path, ns, flag = fields(data, 3)
    try:
        parsed = PullRequest.parse(path, ns=ns if flag else None, default=_HUB)
    except FacadeError as error:  # the device is told, in an OCI body
        answer = answer_for(error)
        assert 400 <= answer.status < 500, answer
        body(answer.code, for_device(error, None), error.reason, "0" * 16)
        raise
    for default in (_HUB, RegistryHost.parse("ghcr.io")):
        assert PullRequest.parse(parsed.format(), ns=None, default=default) == parsed


def ranges(data: bytes) -> None:
    """A Range of a representation lies within it."""
    (header,) = fields(data, 1)
    for size in (0, 1, SIZE, 2**62):
        try:
            found = parse_range(header, size)
        except FacadeError:
            continue
        assert found is None or (0 <= found.start < found.stop <= size), found


def conditions(data: bytes) -> None:
    """If-None-Match, If-Range, Range, as the answer's head is planned."""
    none_match, if_range, wanted = fields(data, 3)
    headers = CIMultiDict({"If-None-Match": none_match, "If-Range": if_range, "Range": wanted})
    http = cast(web.BaseRequest, SimpleNamespace(method="GET", headers=headers))
    planned = plan(http, Digest.parse(SHA), SIZE, "application/octet-stream")
    assert planned.status in (200, 206, 304)
    assert 0 <= planned.start <= planned.stop <= SIZE
    if planned.has_body:
        assert planned.headers["Content-Length"] == str(planned.stop - planned.start)


def references(data: bytes) -> None:
    """Digest, host, repository, tag, platform, names: what parses is stable."""
    (text,) = fields(data, 1)
    host_in_path(text)
    for read in (Digest.parse, RegistryHost.parse, Repository.parse, Tag.parse, Platform.parse):
        try:
            value = read(text)
        except FacadeError:
            continue
        assert read(str(value)) == value
    for check in (parse_version, parse_device_path, parse_artifact_path):
        try:
            check(text)
        except FacadeError:
            continue
    try:
        fleet, name = parse_spiffe_id(text, "facade.local")
    except FacadeError:
        return
    assert spiffe_id("facade.local", fleet, name) == text


def proxy_header(data: bytes) -> None:
    """What a balancer sends first: the same verdict in one piece and in many, and never more than it says."""
    whole = _header(data)
    for cut in range(min(len(data), MAX_BYTES)):
        part = _header(data[:cut])
        if part is not None:  # it was told before all had come: more bytes change nothing
            assert part == whole, (cut, part, whole)
            break
    if isinstance(whole, ProxyHeader):
        assert whole.length <= min(len(data), MAX_BYTES)
        if whole.source is not None:
            host, port = whole.source
            assert source(host)
            assert 0 <= port < 65536


def _header(data: bytes) -> ProxyHeader | HandshakeReason | None:
    try:
        return parse(data)
    except HeaderProblem as problem:
        return problem.reason


def harnesses() -> list[Harness]:
    """All of them."""
    paths = [
        f"/v2/ghcr.io/org/app/manifests/{SHA}",
        f"/v2/org/app/blobs/{SHA}\0ghcr.io\0y",
        f"/v2/a.example__5000/x/referrers/{SHA}",
        f"/v2/[::1]:5000/x/manifests/{SHA}",
        "/v2/library/x/manifests/latest",
        "/v2/x/tags/list",
        "/v2/x/blobs/uploads/",
        f"/v2/xn--bcher-kva.ch/x/manifests/{SHA}\0b\u00fccher.ch\0y",
    ]
    words = [b"/v2/", b"/manifests/", b"/blobs/", b"/referrers/", SHA.encode(), b"__5000", b"[::1]"]
    return [
        Harness("request", request, [path.encode() for path in paths], words, 1024),
        Harness(
            "ranges",
            ranges,
            [
                b"bytes=0-0",
                b"bytes=-5",
                b"bytes=7-",
                b"bytes=0-1,3-4",
                b"BYTES= 1-2 ",
                b"lines=1-2",
            ],
            [b"bytes=", b"-", b",", b"9" * 30],
            256,
        ),
        Harness(
            "conditions",
            conditions,
            [f'"{SHA}"'.encode(), f'\0"{SHA}"\0bytes=5-9'.encode(), b'W/"x", *\0\0bytes=-1'],
            [b'W/"', b"*", b"bytes="],
            512,
        ),
        Harness(
            "references",
            references,
            [
                *(SHA.encode(), b"ghcr.io:443", b"https://hub.docker.com/r/x", b"[::1]:5000"),
                *(b"org/app", b"v1.2+x", b"linux/arm64/v8", b"dev/app/v1"),
                b"spiffe://facade.local/fleet/dev/device/kiosk-7",
                "\u0130.example".encode(),
            ],
            [b"sha512:", b"xn--", b"spiffe://", b"/fleet/", b"/device/"],
            1024,
        ),
        Harness(
            "proxy-header",
            proxy_header,
            [
                SIGNATURE + b"\x21\x11\0\x0c" + bytes(12) + b"\x16\x03\x01",
                SIGNATURE + b"\x21\x21\0\x28" + bytes(40),
                SIGNATURE + b"\x20\0\0\0",
                b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
            ],
            [SIGNATURE, b"\x21\x11", b"\x21\x21", b"\x21\x31", b"\xff\xff", b"\x0f\xf0"],
            512,
        ),
    ]
