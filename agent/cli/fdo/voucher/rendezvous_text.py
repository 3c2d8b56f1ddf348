"""Rendezvous information in words: where a device and its owner are to find each other (FDO 1.1, 3.3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash
from enroll.fdo.rendezvous import RendezvousProtocol, Variable, Variables, read_ip_address, read_variables
from enroll.foreign import printable

_FLAGS: Final = {
    Variable.DEVICE_ONLY: "for devices only",
    Variable.OWNER_ONLY: "for owners only",
    Variable.BYPASS: "the owner itself is there",
}
_WORDS: Final = {
    Variable.IP_ADDRESS: "address {}",
    Variable.DEVICE_PORT: "port {} for devices",
    Variable.OWNER_PORT: "port {} for owners",
    Variable.DNS: "name {}",
    Variable.SERVER_CERTIFICATE_HASH: "server certificate {}",
    Variable.CA_CERTIFICATE_HASH: "CA certificate {}",
    Variable.USER_INPUT: "user may be asked: {}",
    Variable.WIFI_SSID: "Wi-Fi network {}",
    Variable.WIFI_PASSWORD: "Wi-Fi password {}",
    Variable.MEDIUM: "network {}",
    Variable.PROTOCOL: "protocol {}",
    Variable.DELAY: "wait {} s afterwards",
    Variable.EXTERNAL: "by another mechanism {}",
}
_MEDIA: Final = {20: "any Ethernet", 21: "any Wi-Fi"}
_INTERFACES: Final = 10  # of each medium: Ethernet from 0, Wi-Fi from 10
_UNUSABLE: Final = "(cannot be used)"
_HIDDEN: Final = "(not shown)"

_Value: TypeAlias = str | int | bool


def records(rendezvous: cbor.Raw) -> list[dict[str, Any]]:
    """The directives for programs: for each variable its name and its value; flags are true.

    Raises:
        Fault: It is no RVInfo.
    """
    return [_record(variables) for variables in read_variables(cbor.read(rendezvous.encoded))]


def text(record: dict[str, Any]) -> str:
    """One of them for people."""
    return ", ".join(_words(name, value) for name, value in record.items()) or "says nothing"


def _record(variables: Variables) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for number, wrapped in variables.items():
        if number not in list(Variable):
            shown[f"variable_{number}"] = "(unknown)"
            continue
        variable = Variable(number)
        shown[variable.name.lower()] = True if variable in _FLAGS else _value(variable, wrapped)
    return shown


def _words(name: str, value: _Value) -> str:
    variable = Variable.__members__.get(name.upper())
    if variable is None:
        return f"{name.replace('_', ' ')} {value}"
    if variable in _FLAGS:
        return _FLAGS[variable]
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return _WORDS[variable].format(printable(str(value)))


def _value(variable: Variable, wrapped: cbor.Item | None) -> _Value:
    try:
        return _UNUSABLE if wrapped is None else _READERS.get(variable, cbor.Item.unsigned)(wrapped.embedded())
    except Fault:
        return _UNUSABLE


def _medium(number: int) -> str:
    if number in _MEDIA:
        return _MEDIA[number]
    kind, interface = divmod(number, _INTERFACES)
    return f"{('Ethernet', 'Wi-Fi')[kind]} {interface}" if kind < len(_MEDIA) else f"{number} (unknown)"


def _protocol(number: int) -> str:
    return RendezvousProtocol(number).name if number in list(RendezvousProtocol) else f"{number} (unknown)"


def _hash(item: cbor.Item) -> str:
    found = Hash.read(item)
    return f"{found.algorithm.name} {found.value.hex()}"


_READERS: Final[Mapping[Variable, Callable[[cbor.Item], _Value]]] = {  # the others are numbers
    Variable.IP_ADDRESS: lambda item: str(read_ip_address(item)),
    Variable.DNS: cbor.Item.text,
    Variable.SERVER_CERTIFICATE_HASH: _hash,
    Variable.CA_CERTIFICATE_HASH: _hash,
    Variable.USER_INPUT: cbor.Item.boolean,
    Variable.WIFI_SSID: cbor.Item.text,
    Variable.WIFI_PASSWORD: lambda _: _HIDDEN,
    Variable.MEDIUM: lambda item: _medium(item.unsigned()),
    Variable.PROTOCOL: lambda item: _protocol(item.unsigned()),
    Variable.EXTERNAL: lambda _: _HIDDEN,
}
