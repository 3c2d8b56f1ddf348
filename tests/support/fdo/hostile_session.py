"""What an owner may do in the key exchange, and what it may make of the scanner: messages 61, 65, 67 and 71."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from enroll.fdo.modp_groups import PRIME_2048
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    INVALID,
    MALFORMED,
    ONBOARDS,
    REUSE,
    SAID_NO,
    SIGNATURE,
    UNKNOWN,
    UNREACHABLE,
    Arrange,
    Case,
    Chapter,
    Ending,
    no_message,
    refused,
)
from tests.support.fdo.hostile_changes import (
    again,
    body,
    hangs_up,
    message,
    noise,
    owner_error,
    part,
    payload,
    signed_by,
    with_stage,
    within,
)
from tests.support.fdo.hostile_stage import HOST, Stage
from tests.support.fdo.scripted_owner import Hook, HttpAnswer, public_key, rendezvous

_EXCHANGE, _SETUP, _READY, _DONE = "FDO 1.1, 3.6", "FDO 1.1, 5.5.7", "FDO 1.1, 5.5.9", "FDO 1.1, 5.5.13"
_RENDEZVOUS: Final = "FDO 1.1, 3.3.2"
_RANGE: Final = "SP 800-56A 5.6.2.3"
_SIZE = 256  # bytes of the modulus


def _case(name: str, clause: str, what: str, arrange: Arrange, ending: Ending, **options: Any) -> Case:
    return Case(name, int(name.partition("-")[0]), clause, what, arrange, ending, **options)


def _curve(name: str, what: str, change: Callable[[bytes], bytes], clause: str = _EXCHANGE) -> Case:
    """XA for ECDH256 is a length and x, a length and y, a length and 16 bytes of random."""
    return _case(name, clause, what, payload(61, part(5, change)), refused(63, INVALID))


def _offering(value: bytes) -> Arrange:
    """A suite that the scripted owner does not know, and need not: the scanner never answers."""

    def offer(exchange: str) -> tuple[bytes, Callable[[bytes], tuple[bytes, bytes]]]:
        return value, lambda _: (b"", b"")

    return lambda stage: setattr(stage.owner, "_offer", offer)


def _group(name: str, what: str, value: bytes) -> Case:
    """XA for DHKEXid14."""
    settings = {"key_exchange": "DHKEXid14"}
    return _case(name, _RANGE, what, _offering(value), refused(63, INVALID), settings=settings, with_rsa=True)


def _random(name: str, what: str, value: bytes) -> Case:
    """XA for ASYMKEX2048."""
    settings = {"key_exchange": "ASYMKEX2048"}
    arrange = payload(61, part(5, value))
    return _case(name, _EXCHANGE, what, arrange, refused(63, INVALID), settings=settings, with_rsa=True)


def _reused(change: Hook | None = None) -> Arrange:
    """The owner leaves the GUID as it is."""

    def arrange(stage: Stage) -> None:
        stage.owner.reuse = True
        if change is not None:
            stage.owner.hooks.payload[65] = change

    return arrange


def _stranger(number: int) -> Arrange:
    return with_stage(lambda stage: message(number, signed_by(stage.keys.stranger)))


def _clear(number: int) -> Arrange:
    """A message is not encrypted."""
    seen: list[bytes] = []

    def see(data: bytes) -> bytes:
        seen.append(data)
        return data

    def arrange(stage: Stage) -> None:
        stage.owner.hooks.signed[number] = see
        stage.owner.hooks.encrypted[number] = lambda _: seen[-1]

    return arrange


def _half_reuse(name: str, what: str, change: Hook, **settings: Any) -> Case:
    return _case(name, "FDO 1.1, 5.5.7", what, _reused(change), refused(65, INVALID), settings=settings)


def _directive(**changes: Any) -> list[list[Any]]:
    """A rendezvous directive to the right server, with these variables besides, or others in their place."""
    numbers = {"owner_only": 1, "port": 3, "dns": 5, "server": 6, "issuer": 7, "protocol": 12, "external": 15}
    values = {"dns": HOST, "port": 80, "protocol": 1} | changes
    return [[numbers[name], codec.write(value)] for name, value in values.items()]


def _lost(name: str, what: str, *directives: list[list[Any]]) -> Case:
    """By the next RVInfo nobody could find the scanner ever again."""
    return _case(name, _RENDEZVOUS, what, payload(65, part(0, list(directives))), refused(65, INVALID))


_EXCHANGES = (
    _curve("61-a-byte-behind-xa", "There is a byte behind xA.", lambda xa: xa + b"\0"),
    _curve("61-xa-too-short", "The last byte of xA is missing.", lambda xa: xa[:-1]),
    _curve("61-empty-xa", "xA is empty.", lambda _: b""),
    _curve(
        "61-xa-off-the-curve", "The point in xA is not on the curve.", lambda xa: xa[:2] + noise(32) + xa[34:], _RANGE
    ),
    _curve("61-xa-at-infinity", "The point in xA is 0, 0.", lambda xa: (b"\0\x20" + bytes(32)) * 2 + xa[68:], _RANGE),
    _curve(
        "61-x-beyond-the-field",
        "x is larger than the prime of the field.",
        lambda xa: b"\0\x20" + b"\xff" * 32 + xa[34:],
        _RANGE,
    ),
    _curve("61-another-length-of-x", "x has 33 bytes, of which the first is zero.", lambda xa: b"\0\x21\0" + xa[2:]),
    _curve("61-random-too-short", "The random of the owner has 15 bytes.", lambda xa: xa[:68] + b"\0\x0f" + xa[70:85]),
    _curve("61-xa-for-p-384", "xA is one for ECDH384.", lambda _: (b"\0\x30" + noise(48)) * 3),
    _group("61-dh-of-0", "The public value of Diffie-Hellman is 0.", bytes(_SIZE)),
    _group("61-dh-of-1", "It is 1.", (1).to_bytes(_SIZE, "big")),
    _group("61-dh-of-p-minus-1", "It is p - 1.", (PRIME_2048 - 1).to_bytes(_SIZE, "big")),
    _group("61-dh-of-p", "It is p.", PRIME_2048.to_bytes(_SIZE, "big")),
    _group("61-dh-of-p-plus-2", "It is p + 2.", (PRIME_2048 + 2).to_bytes(_SIZE, "big")),
    _group(
        "61-dh-with-a-byte-before", "It has a zero before it, and is longer than the modulus.", bytes(1) + noise(_SIZE)
    ),
    _group("61-empty-dh", "It is empty.", b""),
    _random("61-asymmetric-random-too-short", "The random for ASYMKEX2048 has 31 bytes.", noise(31)),
    _random("61-asymmetric-random-too-long", "It has 33 bytes.", noise(33)),
    _case(
        "61-suite-that-does-not-fit",
        _EXCHANGE,
        "The owner's key is on P-256, where the scanner wants ECDH384.",
        _offering(noise(150)),
        refused(63, INVALID),
        settings={"key_exchange": "ECDH384"},
    ),
    _case("61-xa-of-2-kib", _EXCHANGE, "xA has 2 KiB.", payload(61, part(5, noise(2048))), refused(61, MALFORMED)),
)
_SETUPS = (
    _case("65-by-a-stranger", _SETUP, "A stranger has signed it.", _stranger(65), refused(65, SIGNATURE)),
    _case(
        "65-by-the-manufacturer",
        _SETUP,
        "The manufacturer has signed it, who owned the scanner before.",
        with_stage(lambda stage: message(65, signed_by(stage.keys.manufacturer))),
        refused(65, SIGNATURE),
    ),
    _case("65-clear", "FDO 1.1, 4.5", "It is not encrypted.", _clear(65), refused(65, MALFORMED)),
    _case(
        "65-another-suite",
        "FDO 1.1, 4.4",
        "Its protected header names A128GCM.",
        body(65, within(0, codec.write({1: 1}))),
        refused(65, INVALID),
    ),
    _case(
        "65-suite-not-protected",
        "RFC 9052 5.2",
        "Its unprotected header names the suite as well.",
        body(65, within(1, lambda all_: {**all_, 1: 3})),
        refused(65, INVALID),
    ),
    _case("65-short-guid", _SETUP, "The GUID has 15 bytes.", payload(65, part(1, noise(15))), refused(65, MALFORMED)),
    _case("65-no-rendezvous", _SETUP, "RVInfo is null.", payload(65, part(0, None)), refused(65, MALFORMED)),
    _case(
        "65-a-hundred-directives",
        _RENDEZVOUS,
        "RVInfo has a hundred directives.",
        payload(65, part(0, rendezvous(HOST, 80) * 100)),
        refused(65, INVALID),
    ),
    _case(
        "65-a-hundred-variables",
        _RENDEZVOUS,
        "A directive has a hundred variables.",
        payload(65, part(0, [[[5, codec.write("host")]] * 100])),
        refused(65, INVALID),
    ),
    _lost("65-no-directive", "RVInfo is empty: nobody could find the scanner again."),
    _lost(
        "65-directives-of-no-use",
        "RVInfo leads nowhere: to wait, for owners only, of CoAP, another way, on port 0, and to hosts that cannot be.",
        [],
        [[13, codec.write(60)]],
        _directive(owner_only=True),
        _directive(protocol=5),
        _directive(external="elsewhere"),
        _directive(port=0),
        _directive(dns="owner..example"),
        _directive(dns=f"{'a' * 64}.example"),
    ),
    _lost(
        "65-pin-by-an-hmac",
        "The pin of the rendezvous server (SvCertHash) is an HMAC, which no certificate can meet.",
        _directive(protocol=2, server=[5, noise(32)]),
    ),
    _lost(
        "65-pin-of-a-ca-by-an-hmac",
        "The pin of its CA (ClCertHash) is one.",
        _directive(protocol=2, issuer=[6, noise(48)]),
    ),
    _case("65-no-key", _SETUP, "Owner2Key is null.", payload(65, part(3, None)), refused(65, MALFORMED)),
    _case(
        "65-weak-key",
        "FDO 1.1, 3.3.4",
        "Owner2Key is not of the kind that it is said to be.",
        payload(65, part(3, part(0, 1))),
        refused(65, INVALID),
    ),
    _case(
        "65-reuse",
        _SETUP,
        "It leaves the credential as it is, and this scanner does not allow that.",
        _reused(),
        refused(65, REUSE),
    ),
    _half_reuse(
        "65-half-reuse-rendezvous",
        "It leaves the GUID as it is, and changes RVInfo.",
        part(0, rendezvous("other.example", 8080)),
        credential_reuse=True,
    ),
    _half_reuse(
        "65-half-reuse-of-nothing",
        "It leaves the GUID as it is, and takes every directive away.",
        part(0, []),
        credential_reuse=True,
    ),
    _case(
        "65-half-reuse-key",
        _SETUP,
        "It leaves the GUID as it is, and gives the scanner to another key.",
        with_stage(lambda stage: _reused(part(3, public_key(stage.keys.stranger.public_key())))),
        refused(65, INVALID),
        settings={"credential_reuse": True},
    ),
    _case("65-error", "FDO 1.1, 5.1", "It says no.", owner_error(65), SAID_NO),
    _case("65-hangs-up", "RFC 9112 9.6", "It closes the connection.", hangs_up(65), UNREACHABLE),
)
_READIES = (
    _case(
        "67-negative", _READY, "The size of service info is -1.", payload(67, lambda _: [-1]), refused(67, MALFORMED)
    ),
    _case(
        "67-beyond-16-bits",
        _READY,
        "It does not fit into 16 bits.",
        payload(67, lambda _: [65536]),
        refused(67, MALFORMED),
    ),
    _case("67-text", _READY, "It is text.", payload(67, lambda _: ["1300"]), refused(67, MALFORMED)),
    _case("67-zero", _READY, "It is 0: the scanner sends 256 bytes.", payload(67, lambda _: [0]), ONBOARDS),
    _case("67-clear", "FDO 1.1, 4.5", "It is not encrypted.", _clear(67), refused(67, MALFORMED)),
    _case("67-is-65-again", "FDO 1.1, 4.5", "Message 65 comes in its place.", again(65, 67), refused(67, INVALID)),
    _case(
        "67-another-suite",
        "FDO 1.1, 4.4",
        "Its protected header names AES-CCM.",
        body(67, within(0, codec.write({1: 32}))),
        refused(67, INVALID),
    ),
    _case("67-error", "FDO 1.1, 5.1", "It says no.", owner_error(67), SAID_NO),
    _case("67-hangs-up", "RFC 9112 9.6", "It closes the connection.", hangs_up(67), UNREACHABLE),
)
_ENDS = (
    _case(
        "71-nonce-of-61",
        _DONE,
        "It sends its own nonce back.",
        with_stage(lambda stage: payload(71, lambda _: [stage.owner._nonces[61]])),
        refused(71, INVALID),
    ),
    _case(
        "71-two-nonces",
        _DONE,
        "It sends the nonce twice.",
        payload(71, lambda parts: parts * 2),
        refused(71, MALFORMED),
    ),
    _case("71-no-nonce", _DONE, "It sends no nonce.", payload(71, lambda _: []), refused(71, MALFORMED)),
    _case("71-clear", "FDO 1.1, 4.5", "It is not encrypted.", _clear(71), refused(71, MALFORMED)),
    _case("71-is-69-again", "FDO 1.1, 4.5", "Message 69 comes in its place.", again(69, 71), refused(71, INVALID)),
    _case(
        "71-another-suite",
        "FDO 1.1, 4.4",
        "Its protected header names A128GCM.",
        body(71, within(0, codec.write({1: 1}))),
        refused(71, INVALID),
    ),
    _case("71-error", "FDO 1.1, 5.1", "It says no.", owner_error(71), SAID_NO),
    _case("71-not-found", "FDO 1.1, 5.1", "It says that it does not know the scanner.", owner_error(71, 6), UNKNOWN),
    _case("71-hangs-up", "RFC 9112 9.6", "It closes the connection.", hangs_up(71), UNREACHABLE),
    _case(
        "71-is-another-message",
        "FDO 1.1, 4.3",
        "It is sent as message 69.",
        lambda stage: stage.owner.hooks.answer.__setitem__(71, lambda said: HttpAnswer(69, said.body)),
        no_message(70),
    ),
)
CHAPTER = Chapter("Key exchange, setup and end", (*_EXCHANGES, *_SETUPS, *_READIES, *_ENDS))
