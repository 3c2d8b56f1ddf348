"""Where a device finds its owner: FDO 1.1, 3.3.2 "RendezvousInfo" and 3.3.3 "RVTO2Addr".

RVInfo is a list of directives; each is a list of variables. What is sent is kept as it came: its bytes are hashed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash

DIRECTIVES_LIMIT = 32
VARIABLES_LIMIT = 32
ADDRESSES_LIMIT = 32
LONGEST_DELAY = 24 * 60 * 60  # seconds; whatever a directive says
HOST_LIMIT = 253  # characters: RFC 1035 2.3.4

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


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
    """The directives of an RVInfo that are for devices (not OwnerOnly), in their order.

    A variable that is not known, or whose value is not understood, leaves out its directive and no other.

    Raises:
        Fault: It is no RVInfo.
    """
    raise NotImplementedError


def encode_rendezvous(directives: Sequence[Directive]) -> bytes:
    """An RVInfo for devices and owners, with one port for both."""
    raise NotImplementedError


def read_owner_addresses(item: cbor.Item) -> tuple[OwnerAddress, ...]:
    """The addresses of a to1d, in their order; those of another protocol than HTTP and HTTPS are left out.

    Raises:
        Fault: They are none.
    """
    raise NotImplementedError
