"""Connections lead to public addresses only, unless the operator says otherwise."""

import ipaddress

import pytest

from relay.catalog import Upstream
from relay.line import Line, PrivateAddress, check_public

PRIVATE = ["10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::",
           "fe80::1%eth0", "fc00::1", "fec0::1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
           "2002:7f00:1::", "ff02::1"]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE + LOOPBACK)
def test_private_addresses_are_refused(address):
    with pytest.raises(PrivateAddress):
        check_public(address, Line(allow_private=False))
    check_public(address, Line(allow_private=True))


@pytest.mark.parametrize("address", ["8.8.8.8", "2400:3200::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_not(address):
    assert ipaddress.ip_address(address)
    check_public(address, Line(allow_private=False))


@pytest.mark.parametrize("url, outright", [
    ("http://127.0.0.1:11434/v1", True), ("http://localhost:8000", True), ("http://[::1]:80/v1", True),
    ("http://127.0.0.2/", False), ("http://2130706433/", False), ("http://0x7f000001/", False),
    ("http://[::ffff:127.0.0.1]/", False), ("http://house.example/", False)])
def test_only_who_writes_this_machines_address_outright_reaches_it(url, outright):
    upstream = Upstream("a", url)
    assert upstream.on_this_machine is outright
    line = Line(allow_private=False, allow_loopback=upstream.on_this_machine)
    if outright:
        check_public("127.0.0.1", line)
    else:
        with pytest.raises(PrivateAddress):
            check_public("127.0.0.1", line)
    with pytest.raises(PrivateAddress):
        check_public("169.254.169.254", line)
