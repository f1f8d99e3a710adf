"""Registry hosts: however people write one, it is one value; and no credential is ever kept."""

import pytest
from hypothesis import example, given

from facade.errors import Invalid
from facade.oci.host import RegistryHost, looks_like_host
from facade.reasons import Reason
from tests.support.oci_values import host_texts, odd_text


@given(host_texts)
def test_parse_of_format_is_the_identity(text: str) -> None:
    host = RegistryHost.parse(text)
    assert RegistryHost.parse(str(host)) == host
    assert RegistryHost.parse(f"https://{text.upper()}/some/page?q=1#top") == host


@given(odd_text)
@example("\u3002")
@example("[::1%25eth0]")
@example("xn--\u00fc.example")
@example("1" * 5000)
@example("a:" + "1" * 400)
@example("\udc80.example")
def test_no_text_raises_anything_but_invalid(text: str) -> None:
    try:
        host = RegistryHost.parse(text)
    except Invalid as error:
        assert error.reason is Reason.NAME_INVALID
    else:
        assert RegistryHost.parse(str(host)) == host
        assert str(host).isascii()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GHCR.io", "ghcr.io"),
        ("ghcr.io.", "ghcr.io"),
        ("  ghcr.io\n", "ghcr.io"),
        ("ghcr.io:443", "ghcr.io"),
        ("https://ghcr.io/org/app", "ghcr.io"),
        ("https://gitlab.example:5050/group/-/container_registry", "gitlab.example:5050"),
        ("http://registry.local", "registry.local:80"),
        ("http://registry.local:443", "registry.local"),
        ("localhost:5000", "localhost:5000"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("registry。example", "registry.example"),
        ("10.0.0.1:5000", "10.0.0.1:5000"),
        ("[2001:DB8:0:0::1]:5000", "[2001:db8::1]:5000"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", None),
    ],
)
def test_spellings_are_reduced_to_one(text: str, kept: str | None) -> None:
    assert str(RegistryHost.parse(text)) == (kept or text)


@pytest.mark.parametrize(
    "text",
    [
        "docker.io",
        "index.docker.io",
        "hub.docker.com",
        "registry.hub.docker.com",
        "registry-1.docker.io",
        "www.docker.com",
        "https://hub.docker.com/r/library/alpine",
        "http://docker.io",
        "https://index.docker.io:443/v1/",
        "DOCKER.IO.",
    ],
)
def test_every_docker_hub_spelling_is_docker_io(text: str) -> None:
    host = RegistryHost.parse(text)
    assert str(host) == "docker.io"
    assert host.is_docker_hub
    assert host.endpoint == "registry-1.docker.io"


def test_another_port_of_docker_hub_is_not_docker_hub() -> None:
    host = RegistryHost.parse("docker.io:5000")
    assert not host.is_docker_hub
    assert host.endpoint == "docker.io:5000"


@pytest.mark.parametrize("domain", ["ghcr.io.evil.example", "notdocker.io", "docker.io.example"])
def test_similar_names_stay_themselves(domain: str) -> None:
    assert str(RegistryHost.parse(domain)) == domain


@pytest.mark.parametrize(
    "text",
    ["https://user:hunter2@ghcr.io", "user:hunter2@ghcr.io/org", "https://hunter2@ghcr.io/v2/"],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        RegistryHost.parse(text)
    assert "hunter2" not in caught.value.message
    assert "credentials" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "https://",
        "ftp://ghcr.io",
        "a..b",
        "-a.example",
        "a_b.example",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:٣",
        "a.example:+1",
        "2001:db8::1",
        "[2001:db8::1",
        "[2001:db8::1]x",
        "[fe80::1%eth0]",
        "[::x]",
        "256.1.1.1",
        "127.1",
        "0x7f.0.0.1",
        "010.0.0.1",
        "a" * 64 + ".example",
        "a." * 127 + "com",
        "\u00fc" * 64,
        "a b.example",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        RegistryHost.parse(text)
    assert caught.value.reason is Reason.NAME_INVALID


def test_single_names_expand_on_docker_hub_only() -> None:
    assert str(RegistryHost.parse("docker.io").repository("alpine")) == "library/alpine"
    assert str(RegistryHost.parse("docker.io").repository("org/app")) == "org/app"
    assert str(RegistryHost.parse("ghcr.io").repository("alpine")) == "alpine"


@pytest.mark.parametrize(
    ("segment", "verdict"),
    [("ghcr.io", True), ("a:5000", True), ("localhost", True), ("library", False), ("", False)],
)
def test_what_looks_like_a_host(segment: str, verdict: bool) -> None:
    assert looks_like_host(segment) is verdict
