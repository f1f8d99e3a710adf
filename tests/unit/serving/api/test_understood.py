"""Which requests for a blob are known by others: those that differ in the digest, and in nothing else.

The parser of paths is a generous one here, so that what it would refuse as well is no test of what is known.
"""

import pytest
from aiohttp.test_utils import make_mocked_request

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.serving.api.understood import MAX_KNOWN, Understood

HEX, OTHER = Digest.of(b"x").hex, Digest.of(b"y").hex
PATH = f"/v2/ghcr.io/org/app/blobs/sha256:{HEX}"
ASKED = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
HOST, REPOSITORY = RegistryHost("ghcr.io"), Repository("org/app")


def read(path: str, _ns: str | None) -> PullRequest:
    role = Role.MANIFEST if "/manifests/" in path else Role.BLOB
    return PullRequest(role, HOST, REPOSITORY, Digest("sha256", path.rpartition(":")[2]))


def understood(asked: bytes = ASKED, path: str = PATH, method: str = "GET") -> Understood:
    """What has learnt `asked`, which the HTTP server read as `path`."""
    known = Understood(read)
    known.learn(asked, make_mocked_request(method, path, headers={"Host": "x"}), 200)
    return known


def test_another_digest_is_known_and_means_itself() -> None:
    words = understood().find(ASKED.replace(HEX.encode(), OTHER.encode()))
    assert words is not None
    assert words.pull.digest == Digest.of(b"y")


@pytest.mark.parametrize(
    "digest",
    [
        OTHER.upper().encode(),
        OTHER[:-1].encode(),
        OTHER.encode() + b"0",
        b"%" + OTHER[1:].encode(),
        OTHER[:30].encode() + b"\r\n\r\n" + OTHER[34:].encode(),
        OTHER[:30].encode() + b" " + OTHER[31:].encode(),
        OTHER[:30].encode() + b"/" + OTHER[31:].encode(),
        OTHER[:30].encode() + b"?" + OTHER[31:].encode(),
        b"\xff" + OTHER[1:].encode(),
        b"\0" * 64,
        b"g" * 64,
        b"",
    ],
)
def test_sixty_four_lower_case_hex_digits_and_nothing_else(digest: bytes) -> None:
    assert understood().find(ASKED.replace(HEX.encode(), digest)) is None


@pytest.mark.parametrize(
    "changed",
    [
        ASKED.replace(b"GET", b"HEAD"),
        ASKED.replace(b"org/app", b"org/apq"),
        ASKED.replace(b"sha256:", b"sha512:"),
        ASKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASKED.replace(b"Host: x", b"Host: y"),
        ASKED + b"\r\n",
        ASKED[:-1],
        ASKED * 2,
        b"\n" + ASKED,
        # The digest and what is around it, elsewhere.
        ASKED.replace(b"/blobs/sha256:" + HEX.encode(), b"/").replace(
            b"Host: x", b"/blobs/sha256:" + HEX.encode()
        ),
        HEX.encode() + ASKED.replace(HEX.encode(), b""),
        b"",
    ],
)
def test_everything_else_must_be_the_same(changed: bytes) -> None:
    assert understood().find(changed) is None


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (ASKED.replace(b"/v2/", b"/V2/"), PATH),  # not what the server read
        (ASKED.replace(b"sha256:", b"sha256%3A"), PATH),
        (ASKED.replace(b"org/", b"%6Frg/"), PATH),
        (ASKED.replace(b"GET ", b"GET http://x"), PATH),
        (ASKED.replace(b" HTTP", b"#x HTTP"), PATH),
        (ASKED.replace(b" HTTP", b"/ HTTP"), PATH),
        (ASKED.replace(b"Host: x", b"Host: " + HEX.encode()), PATH),
        (ASKED.replace(b" HTTP", b"?ns=" + HEX.encode() + b" HTTP"), PATH),
        (ASKED.replace(HEX.encode(), HEX.upper().encode()), PATH.replace(HEX, HEX.upper())),
        (ASKED.replace(HEX.encode(), HEX[2:].encode()), PATH.replace(HEX, HEX[2:])),
        (ASKED.replace(b"org", "ørg".encode()), PATH.replace("org", "ørg")),
    ],
)
def test_what_is_not_plain_is_not_learnt(asked: bytes, path: str) -> None:
    known = understood(asked, path)
    assert known.find(asked) is None
    assert known.find(asked.replace(HEX.encode(), OTHER.encode())) is None


def test_of_two_places_that_could_be_the_digests_only_the_right_one_is() -> None:
    before = f"/v2/a/blobs/sha256:{OTHER}/blobs/sha256:"
    asked = f"GET {before}{HEX} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    known = understood(asked, before + HEX)
    cut = asked.replace(OTHER.encode(), b"").replace(HEX.encode(), OTHER.encode())
    assert known.find(asked) is None  # the guess is the first place: it is merely not known
    assert known.find(cut) is None


def test_a_head_is_not_learnt() -> None:
    asked = ASKED.replace(b"GET", b"HEAD")
    assert understood(asked, method="HEAD").find(asked) is None


def test_manifests_are_known_by_their_own_bytes_alone() -> None:
    asked = ASKED.replace(b"/blobs/", b"/manifests/")
    known = understood(asked, PATH.replace("/blobs/", "/manifests/"))
    assert known.find(asked) is not None
    assert known.find(asked.replace(HEX.encode(), OTHER.encode())) is None
    assert known.find(ASKED) is None


def test_one_request_of_many_blobs_takes_one_place() -> None:
    known = understood()
    for number in range(MAX_KNOWN + 5):
        path = PATH.replace(HEX, Digest.of(b"%d" % number).hex)
        asked = ASKED.replace(PATH.encode(), path.encode())
        known.learn(asked, make_mocked_request("GET", path), 200)
    other = ASKED.replace(b"Host: x", b"Host: y")
    known.learn(other, make_mocked_request("GET", PATH), 200)
    assert known.find(ASKED) is not None
    assert known.find(other) is not None
