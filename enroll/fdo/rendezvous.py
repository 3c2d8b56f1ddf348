"""Where a device finds its owner: FDO 1.1, 3.3.2 "RendezvousInfo" and 3.3.3 "RVTO2Addr".

RVInfo is a list of directives; each is a list of variables. What is sent is kept as it came: its bytes are hashed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from enroll.fdo import cbor
from enroll.fdo.cose import Sign1
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash

DIRECTIVES_LIMIT = 32
VARIABLES_LIMIT = 32
ADDRESSES_LIMIT = 32
LONGEST_DELAY = 24 * 60 * 60  # seconds; whatever a directive says
HOST_LIMIT = 253  # characters: RFC 1035 2.3.4

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Variables = Mapping[int, cbor.Item | None]  # of one directive by their numbers; None where there is no value
_LARGEST_PORT = 2**16 - 1
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # as in RFC 1123 2.1, and underscores
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


class Variable(IntEnum):
    """The variables of a directive."""

    DEVICE_ONLY = 0
    OWNER_ONLY = 1
    IP_ADDRESS = 2
    DEVICE_PORT = 3
    OWNER_PORT = 4
    DNS = 5
    SERVER_CERTIFICATE_HASH = 6
    CA_CERTIFICATE_HASH = 7
    USER_INPUT = 8
    WIFI_SSID = 9
    WIFI_PASSWORD = 10
    MEDIUM = 11
    PROTOCOL = 12
    DELAY = 13
    BYPASS = 14
    EXTERNAL = 15


class RendezvousProtocol(IntEnum):
    """Values of the variable PROTOCOL."""

    REST = 0
    HTTP = 1
    HTTPS = 2
    TCP = 3
    TLS = 4
    COAP_TCP = 5
    COAP_UDP = 6


_SPOKEN = (RendezvousProtocol.REST, RendezvousProtocol.HTTP, RendezvousProtocol.HTTPS)


class TransportProtocol(IntEnum):
    """Protocols of an RVTO2Addr."""

    TCP = 1
    TLS = 2
    HTTP = 3
    COAP = 4
    HTTPS = 5
    COAPS = 6


@dataclass(frozen=True)
class Directive:
    """One directive, as far as it concerns who reads it: a device or an owner.

    Args:
        hosts: Where to ask: the name first, then the address, as far as they are given.
        port: Of the server; None for that of the protocol.
        protocol: How to ask; REST means HTTPS, then HTTP.
        bypass: Whether the owner itself is there, so that no rendezvous server is asked.
        delay: Seconds to wait after it has failed; None where that is not said.
        server_certificate: Hash of the TLS certificate of the server, where one is given.
        ca_certificate: Hash of a certificate that issued it, where one is given.
    """

    hosts: tuple[str, ...]
    port: int | None = None
    protocol: RendezvousProtocol = RendezvousProtocol.REST
    bypass: bool = False
    delay: int | None = None
    server_certificate: Hash | None = None
    ca_certificate: Hash | None = None


@dataclass(frozen=True)
class OwnerAddress:
    """One RVTO2Addr: where the owner listens."""

    ip: IpAddress | None
    dns: str | None
    port: int
    protocol: TransportProtocol


def read_variables(item: cbor.Item) -> tuple[Variables, ...]:
    """The variables of all directives of an RVInfo; nothing is said about their values, see `value_of`.

    Raises:
        Fault: It is no RVInfo.
    """
    directives = item.array()
    if len(directives) > DIRECTIVES_LIMIT:
        raise Fault(f"There are more than {DIRECTIVES_LIMIT} rendezvous directives.")
    return tuple(_variables(directive) for directive in directives)


def read_directives(item: cbor.Item, *, for_owner: bool = False) -> tuple[Directive, ...]:
    """The directives of an RVInfo that are for devices, or for owners, in their order.

    A directive with a value that cannot be used is left out, and so is one for the other side only, or for another way
    to its server than is known here. It spoils no other: a device that gave up because of it would never find its
    owner. Unknown variables mean nothing, nor do those about users and networks: nobody is asked, and the network is
    the one that the scanner has.

    Raises:
        Fault: It is no RVInfo.
    """
    found = []
    for variables in read_variables(item):
        with contextlib.suppress(Fault):
            found.append(_directive(variables, for_owner=for_owner))
    return tuple(found)


def check_leads_somewhere(rendezvous: cbor.Raw) -> None:
    """Whether an RVInfo tells a device where to ask; otherwise its owner could never find it again.

    Raises:
        Fault: It is no RVInfo, or has no directive with an address that a device could use.
    """
    if not any(directive.hosts for directive in read_directives(cbor.read(rendezvous.encoded))):
        raise Fault("There is no rendezvous directive that this device could follow.")


def value_of(variables: Variables, name: Variable) -> cbor.Item | None:
    """The value of a variable; None where the directive has no such variable.

    Raises:
        Fault: It has no value, or none that is CBOR in a byte string.
    """
    if name not in variables:
        return None
    wrapped = variables[name]
    if wrapped is None:
        raise Fault(f"The rendezvous variable {name.name} has no value.")
    return wrapped.embedded()


def encode_rendezvous(directives: Sequence[Directive]) -> cbor.Raw:
    """An RVInfo, with one port for devices and owners."""
    return cbor.Raw(cbor.encode([_encoded(directive) for directive in directives]))


def read_redirect(redirect: Sign1) -> tuple[OwnerAddress, ...]:
    """The addresses in a to1d, in their order; those that cannot be used are left out, as of another protocol.

    Who has signed it is another question.

    Raises:
        Fault: It is none.
    """
    addresses_item, to0d_hash = redirect.payload.array(2)
    Hash.read_plain(to0d_hash)
    addresses = addresses_item.array()
    if len(addresses) > ADDRESSES_LIMIT:
        raise Fault(f"There are more than {ADDRESSES_LIMIT} addresses of the owner.")
    found = []
    for address in addresses:
        parts = address.array(4)
        with contextlib.suppress(Fault):
            found.append(_owner_address(*parts))
    return tuple(found)


def encode_owner_address(address: OwnerAddress) -> cbor.Raw:
    """One RVTO2Addr."""
    ip = None if address.ip is None else address.ip.packed
    return cbor.Raw(cbor.encode([ip, address.dns, address.port, address.protocol]))


def read_ip_address(item: cbor.Item) -> IpAddress:
    """An address of 4 or 16 bytes. Some write IPv4 in 16 (RFC 4291 2.5.5.2), which a host without IPv6 cannot reach.

    Raises:
        Fault: It is none.
    """
    packed = item.bytes(16, 4)
    try:
        address = ipaddress.ip_address(packed)
    except ValueError as error:
        raise Fault("An IP address has neither 4 nor 16 bytes.") from error
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _variables(directive: cbor.Item) -> Variables:
    if len(directive.array()) > VARIABLES_LIMIT:
        raise Fault(f"A rendezvous directive has more than {VARIABLES_LIMIT} variables.")
    variables: dict[int, cbor.Item | None] = {}
    for variable in directive.array():
        number, *wrapped = variable.array(1, 2)
        variables[number.unsigned(255)] = wrapped[0] if wrapped else None
    return variables


def _directive(variables: Variables, *, for_owner: bool) -> Directive:
    if (Variable.DEVICE_ONLY if for_owner else Variable.OWNER_ONLY) in variables:
        raise Fault("This directive is for the other side.")
    if Variable.EXTERNAL in variables:
        raise Fault("This directive is for another way to a rendezvous server.")
    dns, ip, port, delay, protocol, server, ca = (
        value_of(variables, name)
        for name in (
            Variable.DNS,
            Variable.IP_ADDRESS,
            Variable.OWNER_PORT if for_owner else Variable.DEVICE_PORT,
            Variable.DELAY,
            Variable.PROTOCOL,
            Variable.SERVER_CERTIFICATE_HASH,
            Variable.CA_CERTIFICATE_HASH,
        )
    )
    names = () if dns is None else (_host_name(dns),)
    addresses = () if ip is None else (str(read_ip_address(ip)),)
    return Directive(
        hosts=(*names, *addresses),
        port=None if port is None else _port(port),
        protocol=RendezvousProtocol.REST if protocol is None else _protocol(protocol),
        bypass=Variable.BYPASS in variables,
        delay=None if delay is None else min(delay.unsigned(), LONGEST_DELAY),
        server_certificate=None if server is None else Hash.read_plain(server),
        ca_certificate=None if ca is None else Hash.read_plain(ca),
    )


def _encoded(directive: Directive) -> list[cbor.Encodable]:
    values: list[tuple[Variable, cbor.Encodable]] = [(Variable.PROTOCOL, directive.protocol)]
    for host in directive.hosts:
        try:
            values.append((Variable.IP_ADDRESS, ipaddress.ip_address(host).packed))
        except ValueError:
            values.append((Variable.DNS, host))
    if directive.port is not None:
        values += [(Variable.DEVICE_PORT, directive.port), (Variable.OWNER_PORT, directive.port)]
    if directive.delay is not None:
        values.append((Variable.DELAY, directive.delay))
    for name, pin in (
        (Variable.SERVER_CERTIFICATE_HASH, directive.server_certificate),
        (Variable.CA_CERTIFICATE_HASH, directive.ca_certificate),
    ):
        if pin is not None:
            values.append((name, cbor.Raw(pin.raw)))
    variables: list[cbor.Encodable] = [[name, cbor.encode(value)] for name, value in values]
    return [*variables, [Variable.BYPASS]] if directive.bypass else variables


def _owner_address(ip: cbor.Item, dns: cbor.Item, port: cbor.Item, number: cbor.Item) -> OwnerAddress:
    if number.unsigned() not in (TransportProtocol.HTTP, TransportProtocol.HTTPS):
        raise Fault("This address is for a protocol that is not spoken here.")
    if ip.is_null and dns.is_null:
        raise Fault("This address has neither a name nor a number.")
    return OwnerAddress(
        None if ip.is_null else read_ip_address(ip),
        None if dns.is_null else _host_name(dns),
        _port(port),
        TransportProtocol(number.unsigned()),
    )


def _protocol(item: cbor.Item) -> RendezvousProtocol:
    if item.unsigned() not in _SPOKEN:
        raise Fault("This directive is for a protocol that is not spoken here.")
    return RendezvousProtocol(item.unsigned())


def _port(item: cbor.Item) -> int:
    if item.unsigned(_LARGEST_PORT) == 0:
        raise Fault("There is no port 0.")
    return item.unsigned()


def _host_name(item: cbor.Item) -> str:
    name = item.text(HOST_LIMIT)
    if not _HOST_NAME.fullmatch(name):
        raise Fault("There is a host name that no host can have.")
    return name
