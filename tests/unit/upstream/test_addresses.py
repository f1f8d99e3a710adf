"""Which addresses may be connected to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Invalid, Upstream
from facade.reasons import Reason
from facade.upstream.addresses import AddressPolicy, unfold

STRICT = AddressPolicy()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "::1", "[::1]", "0.0.0.0", "0.1.2.3", "::"),
        *("10.0.0.5", "172.16.3.4", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"),
        *("169.254.1.1", "fe80::1", "fe80::1%eth0", "fec0::1"),
        *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("100.64.0.1", "198.18.0.1", "192.0.2.1", "203.0.113.9", "2001:db8::1", "240.0.0.1"),
        *("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1"),
        *("::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:a9fe:a9fe", "::127.0.0.1"),
        *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2002:a00:1::5", "2001:0:7f00:1::", "2001::80ff:fffe"),
        *("registry.example", "", "127.1", "2130706433", "0x7f000001"),
    ],
)
def test_refused(address: str) -> None:
    assert not STRICT.allows(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "140.82.121.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_public(address: str) -> None:
    assert STRICT.allows(address)


@pytest.mark.parametrize(
    ("network", "address", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "64:ff9b::a01:203", True),
        ("10.0.0.0/8", "192.168.0.1", False),
        ("10.0.0.0/8", "fd00::1", False),
        ("64:ff9b::/96", "64:ff9b::7f00:1", False),
        ("fd00::/8", "fd00::1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("::1/128", "::1", True),
        ("0.0.0.0/0", "169.254.169.254", True),
    ],
)
def test_process_configuration_opens_what_is_reached(
    network: str, address: str, *, allowed: bool
) -> None:
    assert AddressPolicy([network]).allows(address) is allowed


def test_the_refusal_says_which_line_to_add() -> None:
    with pytest.raises(Upstream) as caught:
        STRICT.check("::ffff:10.1.2.3", "registry.corp")
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert "registry.corp is at ::ffff:10.1.2.3" in caught.value.message
    assert '"10.1.2.3/32"' in caught.value.message
    assert "allow_cidrs" in caught.value.message
    AddressPolicy(["10.1.2.3/32"]).check("::ffff:10.1.2.3", "registry.corp")


def test_a_wrong_network_is_the_configurations_fault() -> None:
    with pytest.raises(Invalid, match="allow_cidrs"):
        AddressPolicy(["10.0.0.1/8"])


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_any_text_is_judged(text: str) -> None:
    assert STRICT.allows(text) in (True, False)
    assert AddressPolicy(["0.0.0.0/0", "::/0"]).allows(text) is (unfold(text) is not None)
