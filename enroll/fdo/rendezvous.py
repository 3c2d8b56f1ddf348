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
_LARGEST_PORT = 2**16 - 1
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")  # as in RFC 1123 2.1, and underscores


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
_NOT_FOR_SCANNERS = {Variable.WIFI_SSID, Variable.WIFI_PASSWORD, Variable.USER_INPUT, Variable.EXTERNAL}


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
    """One directive, as far as it concerns devices.

    Args:
        hosts: Where to ask: the name first, then the address, as far as they are given.
        port: Of the device; None for that of the protocol.
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


def read_directives(item: cbor.Item) -> tuple[Directive, ...]:
    """The directives of an RVInfo that are for devices, in their order.

    A directive with a value that cannot be used is left out, and so is one for owners only or for a network that the
    scanner has no part in; the others stay.

    Raises:
        Fault: It is no RVInfo.
    """
    directives = item.array()
    if len(directives) > DIRECTIVES_LIMIT:
        raise Fault(f"There are more than {DIRECTIVES_LIMIT} rendezvous directives.")
    found = []
    for directive in directives:
        variables = _variables(directive)
        with contextlib.suppress(Fault):
            found.append(_directive(variables))
    return tuple(found)


def encode_rendezvous(directives: Sequence[Directive]) -> cbor.Raw:
    """An RVInfo, with one port for devices and owners."""
    return cbor.Raw(cbor.encode([_encoded(directive) for directive in directives]))


def read_redirect(redirect: Sign1) -> tuple[OwnerAddress, ...]:
    """The addresses in a to1d, in their order; those of another protocol than HTTP and HTTPS are left out.

    Who has signed it is another question.

    Raises:
        Fault: It is none.
    """
    addresses_item, to0d_hash = redirect.payload.array(2)
    Hash.read(to0d_hash)
    addresses = addresses_item.array()
    if len(addresses) > ADDRESSES_LIMIT:
        raise Fault(f"There are more than {ADDRESSES_LIMIT} addresses of the owner.")
    read = (_owner_address(address) for address in addresses)
    return tuple(address for address in read if address is not None)


def encode_owner_address(address: OwnerAddress) -> cbor.Raw:
    """One RVTO2Addr."""
    ip = None if address.ip is None else address.ip.packed
    return cbor.Raw(cbor.encode([ip, address.dns, address.port, address.protocol]))


def _variables(directive: cbor.Item) -> dict[int, cbor.Item | None]:
    """Variables by their numbers; None is the value of those that have none."""
    if len(directive.array()) > VARIABLES_LIMIT:
        raise Fault(f"A rendezvous directive has more than {VARIABLES_LIMIT} variables.")
    variables: dict[int, cbor.Item | None] = {}
    for variable in directive.array():
        number, *value = variable.array(1, 2)
        variables[number.unsigned(255)] = value[0].embedded() if value else None
    return variables


def _directive(variables: Mapping[int, cbor.Item | None]) -> Directive:
    if Variable.OWNER_ONLY in variables:
        raise Fault("This directive is for owners.")
    if set(variables) & _NOT_FOR_SCANNERS or not set(variables) <= set(Variable):
        raise Fault("This directive is for a network that the scanner has no part in.")
    dns, ip, port, delay, protocol, server, ca = (
        variables.get(name)
        for name in (
            Variable.DNS,
            Variable.IP_ADDRESS,
            Variable.DEVICE_PORT,
            Variable.DELAY,
            Variable.PROTOCOL,
            Variable.SERVER_CERTIFICATE_HASH,
            Variable.CA_CERTIFICATE_HASH,
        )
    )
    names = () if dns is None else (_host_name(dns),)
    addresses = () if ip is None else (str(_ip_address(ip)),)
    return Directive(
        hosts=(*names, *addresses),
        port=None if port is None else port.unsigned(_LARGEST_PORT),
        protocol=RendezvousProtocol.REST if protocol is None else _protocol(protocol),
        bypass=Variable.BYPASS in variables,
        delay=None if delay is None else min(delay.unsigned(), LONGEST_DELAY),
        server_certificate=None if server is None else Hash.read(server),
        ca_certificate=None if ca is None else Hash.read(ca),
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


def _owner_address(item: cbor.Item) -> OwnerAddress | None:
    ip, dns, port, number = item.array(4)
    if number.unsigned() not in (TransportProtocol.HTTP, TransportProtocol.HTTPS):
        return None
    return OwnerAddress(
        None if ip.is_null else _ip_address(ip),
        None if dns.is_null else _host_name(dns),
        port.unsigned(_LARGEST_PORT),
        TransportProtocol(number.unsigned()),
    )


def _protocol(item: cbor.Item) -> RendezvousProtocol:
    if item.unsigned() not in _SPOKEN:
        raise Fault("This directive is for a protocol that is not spoken here.")
    return RendezvousProtocol(item.unsigned())


def _ip_address(item: cbor.Item) -> IpAddress:
    packed = item.bytes(16, 4)
    try:
        return ipaddress.ip_address(packed)
    except ValueError as error:
        raise Fault("An IP address has neither 4 nor 16 bytes.") from error


def _host_name(item: cbor.Item) -> str:
    name = item.text(HOST_LIMIT)
    if not _HOST_NAME.fullmatch(name):
        raise Fault("A host name has characters that no host name has.")
    return name
