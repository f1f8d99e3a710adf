"""Paths of pull requests: prefix, `?ns=`, both at once, bare; and every way to get one wrong."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facade.errors import Denied, FacadeError, Invalid, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from tests.support.oci_values import digests, hosts, odd_text, repositories

HUB = RegistryHost.parse("docker.io")
DIGEST = Digest.of(b"manifest")

requests = st.builds(
    lambda role, host, repository, digest: PullRequest(
        role, host, host.repository(str(repository)), digest
    ),
    st.sampled_from(Role),
    hosts,
    repositories,
    digests,
)


def parse(path: str, ns: str | None = None, default: RegistryHost = HUB) -> PullRequest:
    return PullRequest.parse(path, ns=ns, default=default)


@given(requests, hosts)
@example(
    PullRequest(Role.BLOB, RegistryHost("registry"), Repository("manifests/blobs"), DIGEST), HUB
)
def test_parse_of_format_is_the_identity(request: PullRequest, default: RegistryHost) -> None:
    assert parse(request.format(), default=default) == request


@given(requests)
def test_prefix_and_ns_at_once_name_the_host_once(request: PullRequest) -> None:
    assert parse(request.format(), ns=str(request.host)) == request


path_like = st.builds(
    lambda start, middle, end: start + middle + end,
    st.sampled_from(["/v2/", "/v2", "/", "", "/v2/ghcr.io/", "/v2/a/manifests/"]),
    odd_text,
    st.sampled_from(["", "/manifests/latest", f"/blobs/{DIGEST}", "/blobs/uploads/", "/tags/list"]),
)


@given(path_like, st.none() | odd_text)
def test_no_path_raises_anything_but_our_own_errors(path: str, ns: str | None) -> None:
    try:
        request = parse(path, ns)
    except FacadeError as error:
        assert isinstance(error, Denied | Invalid | NotFound)
        assert error.reason is not None
    else:
        assert parse(request.format()) == request


@pytest.mark.parametrize(
    ("rest", "ns", "host", "repository"),
    [
        ("ghcr.io/org/app", None, "ghcr.io", "org/app"),
        ("GHCR.io:443/org/app", None, "ghcr.io", "org/app"),
        ("localhost/app", None, "localhost", "app"),
        ("localhost:5000/app", None, "localhost:5000", "app"),
        ("[::1]:5000/app", None, "[::1]:5000", "app"),
        ("docker.io/alpine", None, "docker.io", "library/alpine"),
        ("index.docker.io/library/alpine", None, "docker.io", "library/alpine"),
        ("library/alpine", None, "docker.io", "library/alpine"),
        ("alpine", None, "docker.io", "library/alpine"),
        ("org/app", "ghcr.io", "ghcr.io", "org/app"),
        ("app", "localhost:5000", "localhost:5000", "app"),
        ("library/alpine", "docker.io", "docker.io", "library/alpine"),
        ("ghcr.io/org/app", "ghcr.io", "ghcr.io", "org/app"),
        ("registry-1.docker.io/library/x", "docker.io", "docker.io", "library/x"),
        ("group.with.dots/app", "gitlab.com", "gitlab.com", "group.with.dots/app"),
        ("ghcr.io/org/app", "gitlab.com", "gitlab.com", "ghcr.io/org/app"),
        ("my_group.x/app", "gitlab.com", "gitlab.com", "my_group.x/app"),
        ("registry/app", "registry", "registry", "registry/app"),
        ("ghcr.io", "ghcr.io", "ghcr.io", "ghcr.io"),
        ("org/manifests", "ghcr.io", "ghcr.io", "org/manifests"),
    ],
)
def test_ways_to_name_the_upstream(rest: str, ns: str | None, host: str, repository: str) -> None:
    request = parse(f"/v2/{rest}/manifests/{DIGEST}", ns)
    assert (str(request.host), str(request.repository)) == (host, repository)
    assert request.role is Role.MANIFEST
    assert request.digest == DIGEST


def test_the_default_registry_is_used_for_bare_names() -> None:
    other = RegistryHost.parse("registry.example:5000")
    assert parse(f"/v2/org/app/blobs/{DIGEST}", default=other).host == other


@pytest.mark.parametrize("segment", ["blobs", "referrers", "manifests"])
def test_each_role_has_its_path(segment: str) -> None:
    request = parse(f"/v2/ghcr.io/org/app/{segment}/{DIGEST}")
    assert request.role.value == segment.removesuffix("s") or segment == "referrers"
    assert request.format() == f"/v2/ghcr.io/org/app/{segment}/{DIGEST}"


@pytest.mark.parametrize("tag", ["latest", "v1.2.3", "_x", "sha256-" + "0" * 64])
def test_a_tag_is_denied_with_what_to_do(tag: str) -> None:
    with pytest.raises(Denied, match="digest") as caught:
        parse(f"/v2/ghcr.io/org/app/manifests/{tag}")
    assert caught.value.reason is Reason.BY_TAG


@pytest.mark.parametrize(
    "path", ["/v2/_catalog", "/v2/ghcr.io/org/app/tags/list", "/v2/app/tags/list"]
)
def test_lists_are_denied(path: str) -> None:
    with pytest.raises(Denied) as caught:
        parse(path)
    assert caught.value.reason is Reason.LISTING


@pytest.mark.parametrize("tail", ["", "/", "/6f2a"])
def test_uploads_are_unsupported(tail: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"/v2/ghcr.io/org/app/blobs/uploads{tail}")
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("segment", "reference"),
    [
        ("manifests", ""),
        ("manifests", "sha256:abc"),
        ("manifests", f"sha256:{'A' * 64}"),
        ("manifests", "-latest"),
        ("manifests", "latest\n"),
        ("blobs", "latest"),
        ("blobs", f"{DIGEST}x"),
        ("referrers", "latest"),
    ],
)
def test_a_malformed_digest(segment: str, reference: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"/v2/ghcr.io/org/app/{segment}/{reference}")
    assert caught.value.reason is Reason.DIGEST_INVALID


@pytest.mark.parametrize(
    ("rest", "ns"),
    [
        ("", None),
        ("ghcr.io", None),
        ("ghcr.io/", None),
        ("ghcr.io//app", None),
        ("ghcr.io/org/../app", None),
        ("../etc/passwd", None),
        ("ghcr.io/Org/app", None),
        ("user:pw@ghcr.io/app", None),
        ("ghcr.io?x/app", None),
        (" ghcr.io/app", None),
        ("ghcr.io\\x/app", None),
        ("org/app", ""),
        ("org/app", "https://ghcr.io"),
        ("org/app", "ghcr.io/org"),
        ("org/app", "ghcr.io "),
        ("org/app", "user@ghcr.io"),
        ("org/" + "a" * 300, "ghcr.io"),
    ],
)
def test_a_malformed_name(rest: str, ns: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"/v2/{rest}/manifests/{DIGEST}", ns)
    assert caught.value.reason is Reason.NAME_INVALID


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v2",
        "/v2/",
        "/v1/_ping",
        f"/v2/manifests/{DIGEST}",
        f"/v3/org/app/manifests/{DIGEST}",
        f"/v2/org/app/manifest/{DIGEST}",
        f"/v2/org/app/manifests/{DIGEST}/",
        f"/V2/org/app/manifests/{DIGEST}",
    ],
)
def test_other_paths_do_not_exist(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        parse(path)
    assert caught.value.reason is Reason.NOT_FOUND
