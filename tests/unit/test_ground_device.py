"""Names of fleets, devices and artifacts, and SPIFFE IDs."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.device import (
    RESERVED_FLEETS,
    Device,
    identity_fields,
    parse_device_path,
    parse_fleet,
    parse_name,
    parse_spiffe_id,
    spiffe_id,
)
from facade.errors import Denied, Invalid
from facade.reasons import Reason
from tests.support.oci_values import odd_text

TRUST_DOMAIN = "fleet.example"
names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: ".." not in name
)
fleets = names.filter(lambda name: name not in RESERVED_FLEETS)


@given(fleets, names)
def test_spiffe_id_there_and_back(fleet: str, name: str) -> None:
    uri = spiffe_id(TRUST_DOMAIN, fleet, name)
    assert parse_spiffe_id(uri, TRUST_DOMAIN) == (fleet, name)
    assert parse_device_path(f"{fleet}/{name}") == (fleet, name)


@given(odd_text)
def test_no_name_raises_anything_but_invalid(text: str) -> None:
    try:
        assert parse_name(text) == text
    except Invalid as error:
        assert error.reason is Reason.NAME_INVALID


@given(st.one_of(odd_text, odd_text.map(lambda text: f"spiffe://{TRUST_DOMAIN}/fleet/{text}")))
def test_no_spiffe_id_raises_anything_but_denied(uri: str) -> None:
    try:
        fleet, name = parse_spiffe_id(uri, TRUST_DOMAIN)
    except Denied as error:
        assert error.reason is Reason.IDENTITY
    else:
        assert spiffe_id(TRUST_DOMAIN, fleet, name) == uri


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..b", "-a", "a-", "a.", "A", "a/b", "a b", "a\n", "ä", "a" * 64, "٣"],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Invalid):
        parse_name(text)


@pytest.mark.parametrize("text", ["a", "7", "kiosk-7", "a.b_c-d", "a" * 63, "root"])
def test_what_is_a_name(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize("fleet", sorted(RESERVED_FLEETS))
def test_tufs_own_roles_are_no_fleets(fleet: str) -> None:
    with pytest.raises(Invalid, match="TUF"):
        parse_fleet(fleet)
    with pytest.raises(Denied):
        parse_spiffe_id(spiffe_id(TRUST_DOMAIN, fleet, "d"), TRUST_DOMAIN)


@pytest.mark.parametrize("text", ["dev", "dev/", "/kiosk", "root/kiosk", "dev/a/b"])
def test_what_is_no_device_path(text: str) -> None:
    with pytest.raises(Invalid):
        parse_device_path(text)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://other.example/fleet/dev/device/a",
        "https://fleet.example/fleet/dev/device/a",
        "SPIFFE://fleet.example/fleet/dev/device/a",
        "spiffe://fleet.example:443/fleet/dev/device/a",
        "spiffe://user@fleet.example/fleet/dev/device/a",
        "spiffe://fleet.example/fleet/dev/device/a?x=1",
        "spiffe://fleet.example/fleet/dev/device/a#x",
        "spiffe://fleet.example/fleet/dev/device/a?",
        "spiffe://fleet.example/fleet/dev/device/a/",
        "spiffe://fleet.example/fleet/dev/device",
        "spiffe://fleet.example/fleet//device/a",
        "spiffe://fleet.example/fleet/dev/device/%61",
        "spiffe://fleet.example/FLEET/dev/device/a",
        "spiffe://fleet.example/fleet/dev/device/a\n",
        "",
        "spiffe://[fleet.example/fleet/dev/device/a",
    ],
)
def test_other_ids_are_denied(uri: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_spiffe_id(uri, TRUST_DOMAIN)
    assert caught.value.reason is Reason.IDENTITY


def test_a_device_reads_as_its_path_and_cannot_be_changed() -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    device = Device("dev", "kiosk-7", "CN=ca", "1f", "ab" * 32, now, now, now)
    assert str(device) == "dev/kiosk-7"
    with pytest.raises(AttributeError):
        device.fleet = "other"  # type: ignore[misc]


def test_where_identity_stands() -> None:
    assert identity_fields("spiffe") is None
    assert identity_fields("subject") == ("OU", "CN")
    assert identity_fields("subject:O,serialNumber") == ("O", "serialNumber")


@pytest.mark.parametrize(
    "text", ["", "spiffe:", "subject:", "subject:O", "subject:CN,CN", "subject:ST,CN", "O,CN"]
)
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        identity_fields(text)
