"""What a rendezvous server may do in TO1: FDO 1.1, 5.4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cbor2

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    INVALID,
    MALFORMED,
    SAID_NO,
    SIGNATURE,
    UNKNOWN,
    UNREACHABLE,
    Arrange,
    Case,
    Chapter,
    Ending,
    refused,
)
from tests.support.fdo.hostile_changes import message, noise, part
from tests.support.fdo.hostile_stage import Stage
from tests.support.fdo.scripted_owner import Hook, HttpAnswer, redirection

_HELLO, _REDIRECT = "FDO 1.1, 5.4.3", "FDO 1.1, 5.4.4"
_HTTP, _COAP = 3, 4
_NOWHERE: Final = Ending("protocol-violation", untold="TO1 is over, and nothing in it was wrong")


def _ack(change: Hook) -> Arrange:
    def arrange(stage: Stage) -> None:
        stage.rendezvous.hooks.payload[31] = change

    return arrange


def _to1d(make: Callable[[Stage], bytes]) -> Arrange:
    def arrange(stage: Stage) -> None:
        stage.rendezvous.to1d = make(stage)

    return arrange


def _leading(addresses: Callable[[int], list[Any]]) -> Arrange:
    """The owner's own to1d, with these addresses."""
    return _to1d(lambda stage: redirection(stage.keys.owner, addresses(stage.port)))


def _payload(value: Any) -> Arrange:
    return _to1d(lambda stage: codec.sign1(stage.keys.owner, -7, codec.write(value), {}))


def _error(number: int, code: int, text: str = "no") -> Arrange:
    def arrange(stage: Stage) -> None:
        error = codec.write([code, number - 1, text, None, None])
        stage.rendezvous.hooks.answer[number] = lambda _: HttpAnswer(255, error, 500)

    return arrange


def _case(name: str, clause: str, what: str, arrange: Arrange, ending: Ending) -> Case:
    return Case(name, int(name.partition("-")[0]), clause, what, arrange, ending)


_ACK = (
    _case("31-short-nonce", _HELLO, "The nonce has 15 bytes.", _ack(part(0, noise(15))), refused(31, MALFORMED)),
    _case("31-long-nonce", _HELLO, "The nonce has 17 bytes.", _ack(part(0, noise(17))), refused(31, MALFORMED)),
    _case("31-nonce-as-text", _HELLO, "The nonce is text.", _ack(part(0, "n" * 16)), refused(31, MALFORMED)),
    _case(
        "31-another-signature",
        "FDO 1.1, 3.3.5",
        "It wants the scanner to sign by RSA.",
        _ack(part(1, [-257, b""])),
        refused(31, INVALID),
    ),
    _case(
        "31-unknown-signature",
        "FDO 1.1, 3.3.5",
        "It wants a signature that there is not.",
        _ack(part(1, [-65535, b""])),
        refused(31, INVALID),
    ),
    _case(
        "31-sig-info-with-content",
        "FDO 1.1, 3.3.5",
        "sigInfoB has something in it.",
        _ack(part(1, [-7, b"x"])),
        refused(31, MALFORMED),
    ),
    _case("31-error", "FDO 1.1, 5.1", "It says no.", _error(31, 500), SAID_NO),
    _case("31-not-found", "FDO 1.1, 5.4.3", "It denies the scanner.", _error(31, 6), UNKNOWN),
    _case("33-not-found", "FDO 1.1, 5.4.4", "It denies the scanner later.", _error(33, 6), UNKNOWN),
)
_WRONG = (
    _case(
        "33-by-another-owner",
        "FDO 1.1, 5.5.3",
        "A stranger has signed to1d.",
        _to1d(lambda stage: stage.redirection(stage.keys.stranger)),
        refused(63, SIGNATURE),
    ),
    _case(
        "33-by-an-earlier-owner",
        "FDO 1.1, 5.5.3",
        "The manufacturer has signed to1d, who has sold the scanner.",
        _to1d(lambda stage: stage.redirection(stage.keys.manufacturer)),
        refused(63, SIGNATURE),
    ),
    _case(
        "33-another-algorithm",
        "RFC 9052 3.1",
        "The protected header of to1d names RS256, and the signature is right.",
        _to1d(lambda stage: _signed_as(-257, stage)),
        refused(63, SIGNATURE),
    ),
    _case(
        "33-without-a-tag",
        "RFC 9052 4.2",
        "to1d has no tag.",
        message(33, lambda data: codec.write(codec.read(data).value)),
        refused(33, MALFORMED),
    ),
    _case(
        "33-another-tag",
        "RFC 9052 4.2",
        "to1d has the tag of COSE_Sign, which has many signers.",
        message(33, lambda data: codec.write(cbor2.CBORTag(98, codec.read(data).value))),
        refused(33, MALFORMED),
    ),
    _case("33-no-payload", _REDIRECT, "The payload of to1d is null.", _payload(None), refused(33, MALFORMED)),
    _case(
        "33-no-hash",
        _REDIRECT,
        "to1d has null for the hash over to0d.",
        _payload([[[None, "owner.example", 8080, _HTTP]], None]),
        refused(33, MALFORMED),
    ),
    _case(
        "33-address-with-a-part-more",
        "FDO 1.1, 3.3.3",
        "An address has five parts.",
        _leading(lambda port: [[bytes([127, 0, 0, 1]), None, port, _HTTP, None]]),
        refused(33, MALFORMED),
    ),
    _case(
        "33-a-thousand-addresses",
        "FDO 1.1, 3.3.3",
        "It names a thousand addresses.",
        _leading(lambda port: [[bytes([127, 0, 0, 1]), None, port, _HTTP]] * 1000),
        refused(33, INVALID),
    ),
)
_ASTRAY = (
    _case("33-no-address", _REDIRECT, "It names no address.", _leading(lambda _: []), _NOWHERE),
    _case(
        "33-addresses-of-no-use",
        "FDO 1.1, 3.3.3",
        "It names addresses of CoAP, on port 0, and without a host.",
        _leading(
            lambda port: [
                [None, "owner.example", port, _COAP],
                [None, "owner.example", 0, _HTTP],
                [None, None, port, _HTTP],
            ]
        ),
        _NOWHERE,
    ),
    _case(
        "33-host-that-splits-headers",
        "RFC 9112 5",
        "The name of the owner's host holds a line of HTTP.",
        _leading(lambda port: [[None, "a\r\nHost: b", port, _HTTP]]),
        _NOWHERE,
    ),
    _case(
        "33-host-with-a-password",
        "RFC 9110 4.2.4",
        "The name of the owner's host holds the name of a user, and another host.",
        _leading(lambda port: [[None, "owner@127.0.0.1", port, _HTTP], [None, "127.0.0.1/x#", port, _HTTP]]),
        _NOWHERE,
    ),
    _case(
        "33-label-of-64-characters",
        "RFC 1035 2.3.4",
        "A label of the name of the owner's host is longer than any may be.",
        _leading(lambda port: [[None, f"{'a' * 64}.example", port, _HTTP]]),
        _NOWHERE,
    ),
    _case(
        "33-closed-ports",
        _REDIRECT,
        "It names 32 addresses where nobody listens.",
        _leading(lambda _: [[bytes([127, 0, 0, 1]), None, 1, _HTTP]] * 32),
        UNREACHABLE,
    ),
    _case(
        "33-owner-without-tls",
        _REDIRECT,
        "It says that the owner speaks TLS, and it does not.",
        _leading(lambda port: [[bytes([127, 0, 0, 1]), None, port, 5]]),
        UNREACHABLE,
    ),
)


def _signed_as(number: int, stage: Stage) -> bytes:
    tagged = codec.read(stage.rendezvous.to1d)
    return codec.write(cbor2.CBORTag(18, part(0, codec.write({1: number}))(list(tagged.value))))


CHAPTER = Chapter("TO1", (*_ACK, *_WRONG, *_ASTRAY))
