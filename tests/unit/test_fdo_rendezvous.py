"""Where a device finds its owner: every variable of an RVInfo (FDO 1.1, 3.3.2), and every address of a to1d (3.3.3)."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.fdo import cbor
from enroll.fdo.cose import Sign1, sign1
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import SignatureType
from enroll.fdo.rendezvous import (
    ADDRESSES_LIMIT,
    DIRECTIVES_LIMIT,
    LONGEST_DELAY,
    VARIABLES_LIMIT,
    Directive,
    OwnerAddress,
    RendezvousProtocol,
    TransportProtocol,
    Variable,
    encode_owner_address,
    encode_rendezvous,
    read_directives,
    read_redirect,
    read_variables,
)

Value = tuple[int, cbor.Encodable]
NAME = (Variable.DNS, "fdo.example.com")
OTHER = (Variable.DNS, "rv.example.org")
PIN = Hash.of(HashAlgorithm.SHA384, b"certificate")
WITHOUT_VALUE = cbor.Raw(b"")


def instruction(variable: int, value: cbor.Encodable) -> list[cbor.Encodable]:
    """[variable, bstr{value}]; the variable alone where it has no value."""
    return [variable] if value is WITHOUT_VALUE else [variable, cbor.encode(value)]


def directives(*described: tuple[Value, ...]) -> tuple[Directive, ...]:
    """What a device makes of these directives."""
    encoded: cbor.Encodable = [[instruction(*value) for value in values] for values in described]
    return read_directives(cbor.read(cbor.encode(encoded)))


def directive(*values: Value) -> Directive:
    """What a device makes of one directive, which it can use."""
    (found,) = directives(values)
    return found


def hosts(found: tuple[Directive, ...]) -> list[tuple[str, ...]]:
    return [each.hosts for each in found]


def test_a_name_is_asked_before_an_address() -> None:
    found = directive((Variable.IP_ADDRESS, bytes((192, 0, 2, 1))), NAME)
    assert found == Directive(hosts=("fdo.example.com", "192.0.2.1"), protocol=RendezvousProtocol.REST)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_an_address_has_4_or_16_bytes(text: str) -> None:
    assert directive((Variable.IP_ADDRESS, ipaddress.ip_address(text).packed)).hosts == (text,)


def test_an_address_of_ipv4_in_16_bytes_is_one_of_ipv4() -> None:
    """As Go writes every address that it has parsed; a scanner without IPv6 could not reach it otherwise."""
    mapped = ipaddress.ip_address("::ffff:192.0.2.1").packed
    assert directive((Variable.IP_ADDRESS, mapped)).hosts == ("192.0.2.1",)


@pytest.mark.parametrize("size", [0, 3, 5, 15, 17])
def test_an_address_of_another_size_is_none(size: int) -> None:
    assert directives(((Variable.IP_ADDRESS, bytes(size)),), (OTHER,)) == (Directive(("rv.example.org",)),)


def test_the_port_is_that_of_devices_and_none_where_only_owners_have_one() -> None:
    assert directive(NAME, (Variable.DEVICE_PORT, 8080), (Variable.OWNER_PORT, 8443)).port == 8080
    assert directive(NAME, (Variable.OWNER_PORT, 8443)).port is None


@pytest.mark.parametrize("protocol", [RendezvousProtocol.REST, RendezvousProtocol.HTTP, RendezvousProtocol.HTTPS])
def test_http_and_https_are_spoken_and_rest_is_either(protocol: RendezvousProtocol) -> None:
    assert directive(NAME, (Variable.PROTOCOL, protocol)).protocol is protocol


@pytest.mark.parametrize("protocol", [3, 4, 5, 6, 7, 255])
def test_a_directive_for_another_protocol_is_left_out(protocol: int) -> None:
    assert hosts(directives((NAME, (Variable.PROTOCOL, protocol)), (OTHER,))) == [("rv.example.org",)]


def test_bypass_leads_to_the_owner_itself() -> None:
    assert directive(NAME, (Variable.BYPASS, WITHOUT_VALUE)).bypass
    assert not directive(NAME).bypass


def test_a_flag_is_set_by_being_there_whatever_its_value() -> None:
    """FDO 1.1, 3.3.2: flags have no value; who writes one means no less."""
    assert directive(NAME, (Variable.BYPASS, True)).bypass
    assert directives((NAME, (Variable.OWNER_ONLY, True))) == ()


def test_directives_for_owners_only_are_not_for_devices() -> None:
    for_owners = (NAME, (Variable.OWNER_ONLY, WITHOUT_VALUE))
    for_devices = (OTHER, (Variable.DEVICE_ONLY, WITHOUT_VALUE))
    assert hosts(directives(for_owners, for_devices)) == [("rv.example.org",)]


def test_a_directive_may_say_no_more_than_to_wait() -> None:
    assert directive((Variable.DELAY, 30)) == Directive(hosts=(), delay=30)


def test_nobody_makes_a_scanner_wait_for_more_than_a_day() -> None:
    assert directive((Variable.DELAY, 2**32 - 1)).delay == LONGEST_DELAY


def test_hashes_pin_the_server_and_its_ca() -> None:
    found = directive(
        NAME,
        (Variable.SERVER_CERTIFICATE_HASH, cbor.Raw(PIN.raw)),
        (Variable.CA_CERTIFICATE_HASH, cbor.Raw(PIN.raw)),
    )
    assert (found.server_certificate, found.ca_certificate) == (PIN, PIN)


@pytest.mark.parametrize("name", [Variable.SERVER_CERTIFICATE_HASH, Variable.CA_CERTIFICATE_HASH])
def test_an_hmac_pins_nothing(name: Variable) -> None:
    """No server could ever meet it, so a device with no other directive would never be found again."""
    hmac = Hash(HashAlgorithm.HMAC_SHA256, bytes(32))
    assert directives((NAME, (name, cbor.Raw(hmac.raw))), (OTHER,)) == (Directive(("rv.example.org",)),)


@pytest.mark.parametrize(
    "ignored",
    [
        (Variable.MEDIUM, 20),
        (Variable.MEDIUM, 21),
        (Variable.USER_INPUT, False),
        (Variable.USER_INPUT, True),
        (Variable.WIFI_SSID, "net"),
        (Variable.WIFI_PASSWORD, "secret"),
        (16, "of a later version"),
        (255, [1, 2]),
        (200, WITHOUT_VALUE),
    ],
    ids=str,
)
def test_what_does_not_concern_a_scanner_or_is_unknown_changes_nothing(ignored: Value) -> None:
    """It asks nobody, and takes the network that it has: the server may well be reached by that."""
    assert directives((NAME, ignored)) == (Directive(("fdo.example.com",)),)


def test_of_a_variable_that_stands_there_twice_the_last_value_counts() -> None:
    """FDO 1.1, 3.3.2 allows one; other implementations read two like this."""
    assert directive((Variable.DELAY, 5), NAME, (Variable.DELAY, 6)).delay == 6


def test_another_way_to_a_rendezvous_server_is_not_taken() -> None:
    assert hosts(directives((NAME, (Variable.EXTERNAL, ["mechanism", 1])), (OTHER,))) == [("rv.example.org",)]


@pytest.mark.parametrize(
    "unusable",
    [
        (Variable.DNS, "no host name"),
        (Variable.DNS, "a@b"),
        (Variable.DNS, "host/path"),
        (Variable.DNS, "\x1b[2J"),
        (Variable.DNS, ""),
        (Variable.DNS, "a" * 254),
        (Variable.DNS, b"fdo.example.com"),
        (Variable.DNS, 5),
        (Variable.DEVICE_PORT, 0),
        (Variable.DEVICE_PORT, 65536),
        (Variable.DEVICE_PORT, -1),
        (Variable.DEVICE_PORT, "80"),
        (Variable.DELAY, -1),
        (Variable.DELAY, "long"),
        (Variable.SERVER_CERTIFICATE_HASH, [-16, b"short"]),
        (Variable.CA_CERTIFICATE_HASH, b"hash"),
        (Variable.DEVICE_PORT, WITHOUT_VALUE),
        (Variable.PROTOCOL, WITHOUT_VALUE),
    ],
    ids=str,
)
def test_a_directive_with_a_value_that_cannot_be_used_is_left_out_and_spoils_no_other(unusable: Value) -> None:
    assert hosts(directives((unusable,), (OTHER,))) == [("rv.example.org",)]


@pytest.mark.parametrize(
    "value",
    ["fdo.example.com", 8080, True, None, b"", b"\xff", cbor.encode("a") + b"\0", b"\x18\x01", [1], {1: 2}],
    ids=str,
)
def test_a_value_that_is_no_cbor_in_a_byte_string_spoils_its_own_directive_only(value: cbor.Encodable) -> None:
    """FDO 1.1, 3.3.2: RVValue is bstr .cbor any. Who gave all of it up for this would never find an owner."""
    encoded = cbor.encode([[[Variable.DNS, value]], [instruction(*OTHER)]])
    assert hosts(read_directives(cbor.read(encoded))) == [("rv.example.org",)]


@pytest.mark.parametrize("variable", [Variable.MEDIUM, Variable.USER_INPUT, 99, Variable.BYPASS])
def test_the_value_of_a_variable_that_is_not_asked_for_is_not_looked_at(variable: int) -> None:
    encoded = cbor.encode([[instruction(*NAME), [variable, b"\xff\xff"]]])
    assert hosts(read_directives(cbor.read(encoded))) == [("fdo.example.com",)]


@pytest.mark.parametrize(
    "value",
    [
        {},
        "directives",
        None,
        [1],
        ["directive"],
        [[1]],
        [[[]]],
        [[[1, b"", b""]]],
        [[["variable", b""]]],
        [[[-1, b""]]],
        [[[256, b""]]],
    ],
    ids=str,
)
def test_what_is_not_built_as_an_rvinfo_is_none(value: cbor.Encodable) -> None:
    with pytest.raises(Fault):
        read_directives(cbor.read(cbor.encode(value)))


def test_there_are_at_most_so_many_directives_and_variables() -> None:
    assert len(directives(*[(NAME,)] * DIRECTIVES_LIMIT)) == DIRECTIVES_LIMIT
    with pytest.raises(Fault, match="directives"):
        directives(*[(NAME,)] * (DIRECTIVES_LIMIT + 1))
    many = [instruction(number, 1) for number in range(100, 100 + VARIABLES_LIMIT)]
    assert read_directives(cbor.read(cbor.encode([many])))
    with pytest.raises(Fault, match="variables"):
        read_directives(cbor.read(cbor.encode([[*many, instruction(99, 1)]])))


def test_the_variables_of_owners_and_of_networks_can_be_read_as_well() -> None:
    """For people who look at a voucher."""
    encoded = cbor.encode([[instruction(*NAME), [Variable.OWNER_ONLY], [99, b"\xff"]], []])
    first, second = read_variables(cbor.read(encoded))
    assert list(first) == [Variable.DNS, Variable.OWNER_ONLY, 99]
    assert first[Variable.OWNER_ONLY] is None
    assert not second


@pytest.mark.parametrize("name", ["a" * 64, "rv..example", "rv.example..", "." + "a", "-rv", "rv-.example", "a" * 254])
def test_a_name_is_made_of_labels_of_1_to_63_characters(name: str) -> None:
    """RFC 1035 2.3.4: no other can be looked up, so the device would never get there."""
    assert directives(((Variable.DNS, name),)) == ()


def test_the_longest_names_are_names() -> None:
    name = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert directive((Variable.DNS, name)).hosts == (name,)
    assert directive((Variable.DNS, "rv-1.my_net.example.")).hosts == ("rv-1.my_net.example.",)


def test_what_is_written_is_read_again() -> None:
    written = (
        Directive(("fdo.example.com", "192.0.2.1"), 8080, RendezvousProtocol.HTTP, delay=5),
        Directive(("2001:db8::1",), None, RendezvousProtocol.HTTPS, bypass=True, server_certificate=PIN),
        Directive((), delay=60, ca_certificate=PIN),
    )
    assert read_directives(cbor.read(encode_rendezvous(written).encoded)) == written


KEY = ec.generate_private_key(ec.SECP256R1())
TO0D_HASH = cbor.Raw(PIN.raw)


def redirect(*payload: cbor.Encodable) -> Sign1:
    """A to1d with this payload."""
    return Sign1.read(cbor.read(sign1(KEY, SignatureType.ES256, cbor.encode(payload))))


GOOD: cbor.Encodable = [bytes((192, 0, 2, 1)), "owner.example.com", 8443, TransportProtocol.HTTPS]
READ = OwnerAddress(ipaddress.IPv4Address("192.0.2.1"), "owner.example.com", 8443, TransportProtocol.HTTPS)


def test_an_address_of_the_owner_has_a_name_or_a_number_or_both() -> None:
    number = [bytes(15) + b"\1", None, 1, TransportProtocol.HTTP]
    name = [None, "owner", 65535, TransportProtocol.HTTP]
    assert read_redirect(redirect([GOOD, number, name], TO0D_HASH)) == (
        READ,
        OwnerAddress(ipaddress.IPv6Address("::1"), None, 1, TransportProtocol.HTTP),
        OwnerAddress(None, "owner", 65535, TransportProtocol.HTTP),
    )


@pytest.mark.parametrize(
    "unusable",
    [
        [None, "owner", 1, TransportProtocol.TCP],
        [None, "owner", 1, TransportProtocol.TLS],
        [None, "owner", 1, TransportProtocol.COAP],
        [None, "owner", 1, TransportProtocol.COAPS],
        [None, "owner", 1, 7],
        [None, None, 1, TransportProtocol.HTTP],
        [None, "no host", 1, TransportProtocol.HTTP],
        [b"12345", None, 1, TransportProtocol.HTTP],
        [None, "owner", 0, TransportProtocol.HTTP],
        [None, "owner", 65536, TransportProtocol.HTTP],
    ],
    ids=str,
)
def test_an_address_that_cannot_be_used_spoils_no_other(unusable: cbor.Encodable) -> None:
    assert read_redirect(redirect([unusable, GOOD], TO0D_HASH)) == (READ,)


def test_an_owners_address_of_ipv4_in_16_bytes_is_one_of_ipv4() -> None:
    mapped = ipaddress.ip_address("::ffff:192.0.2.1").packed
    address: cbor.Encodable = [mapped, "owner.example.com", 8443, TransportProtocol.HTTPS]
    assert read_redirect(redirect([address], TO0D_HASH)) == (READ,)


@pytest.mark.parametrize(
    "payload",
    [
        (),
        ([GOOD],),
        ([GOOD], TO0D_HASH, 1),
        ({}, TO0D_HASH),
        ([[None, "owner", 1]], TO0D_HASH),
        (["owner"], TO0D_HASH),
        ([GOOD], b"hash"),
        ([GOOD] * (ADDRESSES_LIMIT + 1), TO0D_HASH),
        ([GOOD], cbor.Raw(Hash(HashAlgorithm.HMAC_SHA256, bytes(32)).raw)),
    ],
    ids=range(9),
)
def test_what_is_not_built_as_a_to1d_is_none(payload: tuple[cbor.Encodable, ...]) -> None:
    with pytest.raises(Fault):
        read_redirect(redirect(*payload))


def test_an_address_of_the_owner_that_is_written_is_read_again() -> None:
    assert read_redirect(redirect([encode_owner_address(READ)], TO0D_HASH)) == (READ,)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (Variable, {name: number for number, name in enumerate(Variable.__members__)}),
        (RendezvousProtocol, {"REST": 0, "HTTP": 1, "HTTPS": 2, "TCP": 3, "TLS": 4, "COAP_TCP": 5, "COAP_UDP": 6}),
        (TransportProtocol, {"TCP": 1, "TLS": 2, "HTTP": 3, "COAP": 4, "HTTPS": 5, "COAPS": 6}),
    ],
)
def test_the_numbers_are_those_of_the_standard(kind: type[Variable], numbers: dict[str, int]) -> None:
    """FDO 1.1, tables of 3.3.2 and 3.3.3; in the first the variables are numbered from 0 to 15 in their order."""
    assert {member.name: member.value for member in kind} == numbers
    assert len(Variable) == 16
