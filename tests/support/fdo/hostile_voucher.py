"""What an owner, or who poses as one, may show: messages 61 and 63, FDO 1.1, 5.5.3 to 5.5.5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    GUID,
    INTERNAL,
    INVALID,
    MALFORMED,
    SIGNATURE,
    VOUCHER,
    Arrange,
    Case,
    Chapter,
    Ending,
    refused,
)
from tests.support.fdo.hostile_changes import headers, message, noise, part, payload, signed_by, within
from tests.support.fdo.hostile_stage import Stage
from tests.support.fdo.scripted_owner import ScriptedVoucher, algorithm, public_key

_HEADER, _ENTRY, _HELLO = "FDO 1.1, 3.4.2", "FDO 1.1, 3.4.3", "FDO 1.1, 5.5.3"
_P_384: Final = ec.generate_private_key(ec.SECP384R1())
_RSA_1024: Final = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused


def _case(name: str, clause: str, what: str, arrange: Arrange, ending: Ending, **options: Any) -> Case:
    return Case(name, int(name.partition("-")[0]), clause, what, arrange, ending, **options)


def _showing(make: Callable[[Stage], ScriptedVoucher]) -> Arrange:
    return lambda stage: stage.show(make(stage))


def _header(**changes: Any) -> Arrange:
    """Another header, over which the scanner itself has made the HMAC."""

    def make(stage: Stage) -> ScriptedVoucher:
        header = stage.device.header(stage.keys.manufacturer.public_key(), **changes)
        return replace(stage.voucher, header=header, mac=stage.device.mac(header))

    return _showing(make)


def _empty(stage: Stage) -> ScriptedVoucher:
    return ScriptedVoucher.of(stage.device, stage.keys.manufacturer, [])


def _entry(**changes: Any) -> Arrange:
    """The one entry, rightly signed."""
    return _showing(
        lambda stage: _empty(stage).extended(stage.keys.manufacturer, stage.keys.owner.public_key(), **changes)
    )


def _naming(owner: list[Any]) -> Arrange:
    """The one entry, rightly signed, for somebody else."""

    def make(stage: Stage) -> ScriptedVoucher:
        signed = codec.read(stage.voucher.entries[0]).value
        payload_of_entry = codec.write(part(3, owner)(codec.read(signed[2])))
        key = stage.keys.manufacturer
        return replace(stage.voucher, entries=(codec.sign1(key, algorithm(key), payload_of_entry, {}),))

    return _showing(make)


def _longer(stage: Stage) -> ScriptedVoucher:
    """Two entries: a stranger has owned the scanner as well."""
    keys = stage.keys
    return ScriptedVoucher.of(stage.device, keys.manufacturer, [keys.stranger, keys.owner])


def _ordered(*order: int) -> Arrange:
    def make(stage: Stage) -> ScriptedVoucher:
        voucher = _longer(stage)
        return replace(voucher, entries=tuple(voucher.entries[number] for number in order))

    return _showing(make)


def _mac(change: Callable[[Stage], list[Any]]) -> Arrange:
    return _showing(lambda stage: replace(stage.voucher, mac=change(stage)))


def _impostor(stage: Stage) -> None:
    """The voucher of the owner, shown by a stranger with its own key."""
    stage.owner.key = stage.keys.stranger
    stage.rendezvous.to1d = stage.redirection(stage.keys.stranger)


def _named_otherwise(stage: Stage) -> None:
    """Signed by a stranger, who shows the key of the owner."""
    stage.owner.hooks.signed[61] = signed_by(stage.keys.stranger)


def _sold_to_a_stranger(stage: Stage) -> None:
    """A stranger signs the last entry for itself."""
    stranger = stage.keys.stranger
    stage.show(stage.voucher.extended(stranger, stranger.public_key()))
    _impostor(stage)


def _numbered_again(stage: Stage) -> None:
    stage.show(_longer(stage))
    stage.owner.hooks.payload[63] = part(0, 0)


def _fewer(stage: Stage) -> None:
    stage.show(_longer(stage))
    stage.owner.hooks.payload[61] = part(1, 1)


_HEADERS = (
    _case(
        "61-no-nonce", _HELLO, "It gives no nonce.", headers(61, lambda all_: {257: all_[257]}), refused(61, INVALID)
    ),
    _case("61-no-key", _HELLO, "It shows no key.", headers(61, lambda all_: {256: all_[256]}), refused(61, INVALID)),
    _case(
        "61-short-nonce",
        _HELLO,
        "Its nonce has 8 bytes.",
        headers(61, lambda all_: {**all_, 256: noise(8)}),
        refused(61, MALFORMED),
    ),
    _case(
        "61-key-of-1024-bits",
        "FDO 1.1, 3.3.4",
        "It shows an RSA key of 1024 bits.",
        headers(61, lambda all_: {**all_, 257: [5, 1, public_key(_RSA_1024.public_key())[2]]}),
        refused(61, INVALID),
    ),
    _case(
        "61-key-of-another-kind",
        "FDO 1.1, 3.3.4",
        "Its key is said to be of P-384, and is not.",
        headers(61, lambda all_: {**all_, 257: [11, 1, all_[257][2]]}),
        refused(61, INVALID),
    ),
    _case(
        "61-chain-of-nothing",
        "FDO 1.1, 3.3.4",
        "Its key is an empty chain of certificates.",
        headers(61, lambda all_: {**all_, 257: [10, 2, []]}),
        refused(61, INVALID),
    ),
    _case(
        "61-point-not-on-its-curve",
        "SP 800-56A 5.6.2.3.3",
        "Its key is a point that is not on the curve.",
        headers(61, lambda all_: {**all_, 257: [10, 3, {1: 2, -1: 1, -2: noise(32), -3: noise(32)}]}),
        refused(61, INVALID),
    ),
    _case(
        "61-by-a-stranger",
        "RFC 9052 4.4",
        "A stranger has signed it, and it shows the key of the owner.",
        _named_otherwise,
        refused(61, SIGNATURE),
    ),
    _case(
        "61-another-algorithm",
        "RFC 9052 3.1",
        "The protected header names ES384; the signature is by ES256.",
        message(61, within(0, codec.write({1: -35}))),
        refused(61, SIGNATURE),
    ),
    _case(
        "61-no-algorithm",
        "RFC 9052 3.1",
        "The protected header is empty.",
        message(61, within(0, b"")),
        refused(61, MALFORMED),
    ),
    _case(
        "61-algorithm-not-protected",
        "RFC 9052 3",
        "Both headers name the algorithm.",
        headers(61, lambda all_: {**all_, 1: -7}),
        refused(61, INVALID),
    ),
    _case(
        "61-critical-header",
        "RFC 9052 3.1",
        "The protected header says that something unknown is critical.",
        message(61, within(0, codec.write({1: -7, 2: [99], 99: 1}))),
        refused(61, INVALID),
    ),
)
_SHOWN = (
    _case(
        "61-of-another-device",
        _HEADER,
        "The voucher is that of another scanner, and right.",
        _header(guid=noise(16)),
        refused(61, GUID),
    ),
    _case(
        "61-another-secret",
        "FDO 1.1, 3.4.2",
        "Another device has made the HMAC.",
        _mac(lambda stage: replace(stage.device, secret=noise(32)).mac(stage.voucher.header)),
        refused(61, VOUCHER),
    ),
    _case(
        "61-hash-for-an-hmac",
        "FDO 1.1, 3.3.1",
        "There is a plain hash where the HMAC should be.",
        _mac(lambda stage: stage.device.hash(stage.voucher.header)),
        refused(61, VOUCHER),
    ),
    _case(
        "61-empty-hmac",
        "FDO 1.1, 3.3.1",
        "The HMAC has no bytes.",
        _mac(lambda _: [5, b""]),
        refused(61, MALFORMED),
    ),
    _case(
        "61-another-manufacturer",
        "FDO 1.1, 3.5",
        "Another manufacturer begins the voucher (DCPubKeyHash).",
        _showing(lambda stage: ScriptedVoucher.of(stage.device, stage.keys.stranger, [stage.keys.owner])),
        refused(61, VOUCHER),
    ),
    _case(
        "61-another-model",
        _HEADER,
        "The header names another model, and the HMAC is the old one.",
        _showing(
            lambda stage: replace(
                stage.voucher, header=stage.device.header(stage.keys.manufacturer.public_key(), device_info="Other")
            )
        ),
        refused(61, VOUCHER),
    ),
    _case("61-another-version", _HEADER, "The header is of version 102.", _header(version=102), refused(61, VOUCHER)),
    _case("61-256-entries", "FDO 1.1, 5.5.4", "It has 256 entries.", payload(61, part(1, 256)), refused(61, MALFORMED)),
    _case(
        "61-no-entries",
        "FDO 1.1, 5.5.3",
        "It says that there are no entries.",
        payload(61, part(1, 0)),
        refused(61, SIGNATURE),
    ),
    _case(
        "61-size-beyond-16-bits",
        _HELLO,
        "The size of its messages does not fit into 16 bits.",
        payload(61, part(7, 65536)),
        refused(61, MALFORMED),
    ),
    _case(
        "61-hash-by-an-hmac",
        "FDO 1.1, 3.3.1",
        "HelloDeviceHash says that it is an HMAC.",
        payload(61, part(6, part(0, 5))),
        refused(61, INVALID),
    ),
    _case(
        "61-nothing-in-the-header", _HEADER, "The OVHeader is empty.", payload(61, part(0, b"")), refused(61, MALFORMED)
    ),
)
_ENTRIES = (
    _case("63-swapped", _ENTRY, "Two entries are swapped.", _ordered(1, 0), refused(63, VOUCHER)),
    _case("63-repeated", _ENTRY, "The first entry comes twice.", _ordered(0, 0), refused(63, VOUCHER)),
    _case("63-first-missing", _ENTRY, "The first entry is missing.", _ordered(1, 1), refused(63, VOUCHER)),
    _case("63-fewer-than-there-are", "FDO 1.1, 5.5.3", "It announces one entry less.", _fewer, refused(63, SIGNATURE)),
    _case(
        "63-more-than-there-are",
        "FDO 1.1, 5.5.5",
        "It announces one entry more, and says the last one again.",
        _showing(lambda stage: replace(stage.voucher, entries=stage.voucher.entries * 2)),
        refused(63, VOUCHER),
    ),
    _case(
        "63-number-of-before",
        "FDO 1.1, 5.5.5",
        "The second entry has the number of the first.",
        _numbered_again,
        refused(63, INVALID),
    ),
    _case(
        "63-sold-by-a-stranger",
        _ENTRY,
        "A stranger has signed the entry for itself.",
        _sold_to_a_stranger,
        refused(63, VOUCHER),
    ),
    _case(
        "63-shown-by-a-stranger",
        "FDO 1.1, 5.5.3",
        "A stranger shows the voucher of the owner.",
        _impostor,
        refused(63, SIGNATURE),
    ),
    _case(
        "63-of-another-voucher",
        _ENTRY,
        "The entry has the hash of another header.",
        _entry(previous=[-16, noise(32)]),
        refused(63, VOUCHER),
    ),
    _case(
        "63-of-another-device",
        _ENTRY,
        "The entry is about another scanner.",
        _entry(device=[-16, noise(32)]),
        refused(63, VOUCHER),
    ),
    _case(
        "63-hash-by-an-hmac",
        "FDO 1.1, 3.3.1",
        "The hash over what is before says that it is an HMAC.",
        _entry(previous=[5, noise(32)]),
        refused(63, INVALID),
    ),
    _case(
        "63-extra-of-garbage",
        _ENTRY,
        "The extra of the entry is garbage.",
        _entry(extra=b"\xff"),
        refused(63, MALFORMED),
    ),
    _case(
        "63-another-kind-of-key",
        "FDO 1.1, 3.4",
        "The next owner has a key of P-384.",
        _naming(public_key(_P_384.public_key())),
        refused(63, VOUCHER),
    ),
    _case(
        "63-key-of-garbage",
        "FDO 1.1, 3.3.4",
        "The next owner has no key.",
        _naming([10, 1, b"0"]),
        refused(63, INVALID),
    ),
)
_POLICY = (
    _case(
        "63-not-on-the-list",
        "FDO 1.1, 5.5.3",
        "The owner is right, and on no list of this scanner.",
        lambda _: None,
        refused(63, INTERNAL, "owner-refused"),
        settings={"owner_fingerprints": ("0" * 64,)},
    ),
)
CHAPTER = Chapter("The voucher", (*_HEADERS, *_SHOWN, *_ENTRIES, *_POLICY))
