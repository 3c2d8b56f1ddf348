"""The cases of the conformance tool of the FIDO Alliance, by its names; each variant of what it does at random.

"30_BAD_ENCODING" stands for FIDO_LISTENER_DEVICE_30_BAD_ENCODING: the number is that of the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.hostile_case import (
    INVALID,
    MALFORMED,
    ONBOARDS,
    SIGNATURE,
    VOUCHER,
    Arrange,
    Case,
    Chapter,
    Ending,
    no_message,
    refused,
)
from tests.support.fdo.hostile_changes import (
    ALTERED,
    another_ciphertext,
    another_iv,
    body,
    garbled,
    message,
    noise,
    part,
    payload,
    with_stage,
    zeroed,
)
from tests.support.fdo.hostile_stage import KEY_BYTES, Stage
from tests.support.fdo.scripted_owner import Hook, HttpAnswer

NUMBER_OF_CASES = 27  # of the tool
_CIPHER, _IV_BYTES = 3, 12  # A256GCM, which scanners ask for
_NO_CHANGE = "the message has no such header, so it stays as it is and is right"


def _case(name: str, clause: str, what: str, arrange: Arrange, ending: Ending) -> Case:
    return Case(name, int(name.partition("_")[0]) + 1, clause, what, arrange, ending)


def _altered(name: str, clause: str, place: Callable[[Hook], Arrange], endings: dict[str, Ending]) -> tuple[Case, ...]:
    """One case for each way to alter a COSE_Sign1; the tool never chooses the signature, though it lists it."""
    cases = []
    for variant, (what, change) in ALTERED.items():
        ending = endings[variant]
        said = _NO_CHANGE if ending is ONBOARDS else what
        cases.append(_case(f"{name}/{variant}", clause, f"COSE_Sign1: {said}.", place(change), ending))
    return tuple(cases)


def _to1d(change: Hook) -> Arrange:
    def arrange(stage: Stage) -> None:
        stage.rendezvous.to1d = change(stage.rendezvous.to1d)

    return arrange


def _entry(change: Hook) -> Arrange:
    return payload(63, part(1, lambda entry: codec.read(change(codec.write(entry)))))


def _twice(number: int) -> Arrange:
    return with_stage(lambda stage: body(number, stage.owner.encrypted))


def _empty_secret(data: bytes) -> bytes:
    key = codec.derived(b"", b"", KEY_BYTES)
    return codec.seal0(AESGCM(key), _CIPHER, noise(_IV_BYTES), data)


def _wrapped(name: str, number: int) -> tuple[Case, ...]:
    clause = "FDO 1.1, 4.4"
    return (
        _case(
            f"{name}/ciphertext",
            clause,
            "COSE_Encrypt0: the ciphertext is garbled.",
            body(number, another_ciphertext),
            refused(number, INVALID),
        ),
        _case(
            f"{name}/iv",
            clause,
            "COSE_Encrypt0: the initialization vector is another one.",
            body(number, another_iv),
            refused(number, INVALID),
        ),
        _case(
            f"{name}/whole",
            clause,
            "All of the encrypted message is garbled.",
            body(number, garbled),
            refused(number, MALFORMED),
        ),
        _case(f"{name}/twice", clause, "It is encrypted twice.", _twice(number), refused(number, MALFORMED)),
    )


def _token(value: str | None) -> Arrange:
    def change(answer: HttpAnswer) -> HttpAnswer:
        return HttpAnswer(answer.number, answer.body, headers={} if value is None else {"Authorization": value})

    def arrange(stage: Stage) -> None:
        stage.owner.hooks.answer[61] = change

    return arrange


def _fresh(position: int, number: int) -> Arrange:
    return payload(number, part(position, noise(16)))


def _part_of(value: Any) -> Hook:
    return lambda _: value


_TO1 = (
    _case(
        "30_BAD_ENCODING",
        "FDO 1.1, 5.4.2",
        "All of the message is garbled.",
        message(31, garbled),
        refused(31, MALFORMED),
    ),
    _case(
        "32_BAD_ENCODING",
        "FDO 1.1, 5.4.4",
        "All of the message is garbled.",
        message(33, garbled),
        refused(33, MALFORMED),
    ),
    *_altered(
        "32_BAD_TO1D",
        "FDO 1.1, 5.4.4",
        _to1d,
        {
            "protected": refused(33, MALFORMED),
            "unprotected": ONBOARDS,
            "payload": refused(33, MALFORMED),
            "signature": refused(63, SIGNATURE),
            "signature-bit": refused(63, SIGNATURE),
        },
    ),
)
_HELLO = (
    _case(
        "60_BAD_OVHDR_OVHEADER",
        "FDO 1.1, 5.5.3",
        "The OVHeader is garbled, and signed so.",
        payload(61, part(0, garbled)),
        refused(61, MALFORMED),
    ),
    _case(
        "60_BAD_NONCE_TO2PROVEOV",
        "FDO 1.1, 5.5.3",
        "NonceTO2ProveOV is another one, and signed so.",
        _fresh(3, 61),
        refused(61, INVALID),
    ),
    _case(
        "60_BAD_EBSIGNINFO",
        "FDO 1.1, 5.5.3",
        "sigInfoB names another kind of signature, and is signed so.",
        payload(61, part(4, [-35, b""])),
        refused(61, INVALID),
    ),
    _case(
        "60_BAD_HELLODEVICEHASH/random",
        "FDO 1.1, 5.5.3",
        "HelloDeviceHash is noise, and signed so.",
        payload(61, part(6, part(1, noise(32)))),
        refused(61, INVALID),
    ),
    _case(
        "60_BAD_HELLODEVICEHASH/algorithm",
        "FDO 1.1, 3.3.1",
        "HelloDeviceHash names another algorithm for the same bytes, and is signed so.",
        payload(61, part(6, part(0, -43))),
        refused(61, MALFORMED),
    ),
    *_altered(
        "60_BAD_COSE_SIGNATURE",
        "RFC 9052 4.4",
        lambda change: message(61, change),
        {
            "protected": refused(61, MALFORMED),
            "unprotected": refused(61, INVALID),
            "payload": refused(61, MALFORMED),
            "signature": refused(61, SIGNATURE),
            "signature-bit": refused(61, SIGNATURE),
        },
    ),
    _case(
        "60_BAD_HELLOACK_PAYLOAD_ENCODING",
        "FDO 1.1, 5.5.3",
        "The payload is garbled, and signed so.",
        payload(61, lambda parts: garbled(codec.write(parts))),
        refused(61, MALFORMED),
    ),
    _case(
        "60_BAD_HELLOACK_ENCODING",
        "FDO 1.1, 5.5.3",
        "All of the message is garbled.",
        message(61, garbled),
        refused(61, MALFORMED),
    ),
    _case(
        "60_MISSING_AUTHZ_HEADER/empty",
        "FDO 1.1, 4.3",
        "The header Authorization is empty.",
        _token(""),
        no_message(60),
    ),
    _case(
        "60_MISSING_AUTHZ_HEADER/absent",
        "FDO 1.1, 4.3",
        "There is no header Authorization.",
        _token(None),
        no_message(60),
    ),
)
_ENTRIES = (
    *_altered(
        "62_BAD_OVENTRY_COSE_SIGNATURE",
        "FDO 1.1, 5.5.5",
        _entry,
        {
            "protected": refused(63, MALFORMED),
            "unprotected": ONBOARDS,
            "payload": refused(63, MALFORMED),
            "signature": refused(63, VOUCHER),
            "signature-bit": refused(63, VOUCHER),
        },
    ),
    _case(
        "62_BAD_OVNEXTENTRY_PAYLOAD",
        "FDO 1.1, 5.5.5",
        "All of the message is garbled.",
        message(63, garbled),
        refused(63, MALFORMED),
    ),
    _case(
        "62_BAD_OVENTRYNUM",
        "FDO 1.1, 5.5.5",
        "The entry has the number 254.",
        payload(63, part(0, 254)),
        refused(63, INVALID),
    ),
)
_SETUP = (
    _case(
        "64_BAD_NONCE_TO2SETUPDV",
        "FDO 1.1, 5.5.7",
        "NonceTO2SetupDv is another one, signed and encrypted so.",
        _fresh(2, 65),
        refused(65, INVALID),
    ),
    _case(
        "64_BAD_SETUPDEVICE_PAYLOAD",
        "FDO 1.1, 5.5.7",
        "The payload is garbled, signed and encrypted so.",
        payload(65, lambda parts: garbled(codec.write(parts))),
        refused(65, MALFORMED),
    ),
    *_altered(
        "64_BAD_SETUPDEVICE_COSE_SIGNATURE",
        "RFC 9052 4.4",
        lambda change: message(65, change),
        {
            "protected": refused(65, MALFORMED),
            "unprotected": ONBOARDS,
            "payload": refused(65, MALFORMED),
            "signature": refused(65, SIGNATURE),
            "signature-bit": refused(65, SIGNATURE),
        },
    ),
    _case(
        "64_BAD_SETUPDEVICE_BYTES",
        "FDO 1.1, 5.5.7",
        "The COSE_Sign1 is garbled, and encrypted so.",
        message(65, garbled),
        refused(65, MALFORMED),
    ),
    *_wrapped("64_BAD_ENC_WRAPPING", 65),
    _case(
        "64_BAD_ENC_WRAPPING/empty-secret",
        "FDO 1.1, 3.6.4",
        "It is encrypted with the key of an empty secret.",
        body(65, _empty_secret),
        refused(65, INVALID),
    ),
    _case(
        "64_BAD_SETUPDEVICE_ENCODING",
        "FDO 1.1, 4.5",
        "All of the encrypted message is garbled.",
        body(65, garbled),
        refused(65, MALFORMED),
    ),
)
_REST = (
    _case(
        "66_BAD_ENCODING",
        "FDO 1.1, 5.5.9",
        "What is encrypted is garbled.",
        message(67, garbled),
        refused(67, MALFORMED),
    ),
    *_wrapped("66_BAD_ENC_WRAPPING", 67),
    _case(
        "68_BAD_ENCODING",
        "FDO 1.1, 5.5.11",
        "What is encrypted is garbled.",
        message(69, garbled),
        refused(69, MALFORMED),
    ),
    _case(
        "68_BAD_ENCODING/same-array",
        "FDO 1.1, 5.5.11",
        "Garbled, it happens to be an array of three parts again.",
        message(69, zeroed),
        refused(69, MALFORMED),
    ),
    *_wrapped("68_BAD_ENC_WRAPPING", 69),
    _case(
        "70_BAD_NONCE_TO2SETUPDV64",
        "FDO 1.1, 5.5.13",
        "NonceTO2SetupDv is another one, and encrypted so.",
        payload(71, part(0, noise(16))),
        refused(71, INVALID),
    ),
    _case(
        "70_BAD_DONE71_ENCODING",
        "FDO 1.1, 5.5.13",
        "What is encrypted is garbled.",
        message(71, garbled),
        refused(71, MALFORMED),
    ),
    _case(
        "70_BAD_DONE71_ENCODING/same-array",
        "FDO 1.1, 5.5.13",
        "Garbled, it happens to be an array of one part.",
        message(71, zeroed),
        refused(71, MALFORMED),
    ),
    *_wrapped("70_BAD_ENC_WRAPPING", 71),
)
CHAPTER = Chapter("The cases of the conformance tool", (*_TO1, *_HELLO, *_ENTRIES, *_SETUP, *_REST))
