"""When it was signed: claimed times that cannot be, and time stamps that prove nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from tests.support.attacks.editing import in_signature, one_after_the_other, with_nodes, with_value, without
from tests.support.attacks.images import other_slice
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.resigning import (
    expired_slice,
    resigned,
    resigned_by_hand,
    slice_of_a_former_key,
    stamped,
    value_of,
)
from tests.support.attacks.signers import (
    FORMER_KEY_FROM,
    FORMER_KEY_UNTIL,
    LONG_AGO,
    REVOKED_AT,
    SIGNED_AT,
    expired_scanner,
    foreign_ca,
    former_key,
    revoked_scanner,
    scanner,
    time_ca,
)
from tests.support.pki import NOW
from tests.support.raw_dicom import Node, text
from tests.support.time_stamp_authority import Tsa, TsaContent, new_tsa

ACCEPTS = Dcmsign.ACCEPTS
EXPIRED = "time: certificate-expired"
MISUSED = "time: time-outside-key-usage-period"
TIME_STAMP_TYPE, TIME_STAMP, DATE_TIME = 0x04000305, 0x04000310, 0x04000105


@cache
def _foreign_authority() -> Tsa:
    return new_tsa(foreign_ca())


@cache
def _expired_authority() -> Tsa:
    return new_tsa(time_ca(), content=TsaContent(end=LONG_AGO + timedelta(days=1)))


def _edited(data: bytes) -> bytes:
    """The year in the stamp changed."""
    return data.replace(f"{LONG_AGO:%Y%m%d}".encode("ascii") + b"000100Z", b"20210401000100Z")


def _with_more(node: Node) -> Node:
    return replace(node, value=node.value + b"more") if node.tag == TIME_STAMP else node


_CLAIMED: Final = (
    Attack(
        "time-of-signing-edited",
        "The time of signing is changed after the fact.",
        in_signature(with_value(DATE_TIME, b"20200202020202.000000+0000")),
        ("integrity: signature-wrong",),
    ),
    Attack(
        "time-of-signing-in-the-future",
        "The signer states a time that has not come.",
        resigned(scanner, at=NOW + timedelta(days=400)),
        ("time: time-in-future",),
        ACCEPTS,
    ),
    Attack(
        "time-of-signing-before-the-certificate",
        "The signer states a time at which it had no certificate.",
        resigned(scanner, at=datetime(2003, 1, 1, tzinfo=NOW.tzinfo)),
        ("time: time-outside-certificate",),
    ),
    Attack(
        "time-of-signing-without-offset",
        "The signer states a local time, which is twelve hours early or late somewhere.",
        resigned_by_hand(scanner, at="20261023120000"),
        ("time: time-malformed",),
        ACCEPTS,
    ),
    Attack(
        "time-of-signing-that-is-no-time",
        "The signer states the thirteenth month.",
        resigned_by_hand(scanner, at="20261323120000+0000"),
        ("time: time-malformed",),
    ),
    Attack(
        "expired-key-with-a-new-date",
        "A key whose certificate expired years ago signs today, and says so.",
        resigned(expired_scanner, at=SIGNED_AT),
        ("time: time-outside-certificate", EXPIRED),
    ),
)

_STAMPED: Final = (
    Attack(
        "time-stamp-removed",
        "The time stamp is removed, which alone proved that the signature was made before the certificate expired.",
        in_signature(without(TIME_STAMP_TYPE, TIME_STAMP)),
        (EXPIRED,),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-of-another-signature",
        "A key whose certificate has expired signs today, sets the date back, and takes the time stamp of a signature "
        "that is really old.",
        stamped(LONG_AGO, about=lambda _: value_of(other_slice())),
        ("time: time-stamp-wrong-imprint", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-of-a-foreign-authority",
        "The same with a time stamp authority of one's own.",
        stamped(LONG_AGO, by=_foreign_authority),
        ("time: time-stamp-untrusted", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-of-an-authority-dropped-from-the-list",
        "The key of a time stamp authority was stolen and its certificate revoked; since that has expired, the "
        "revocation list names it no more.",
        stamped(LONG_AGO + timedelta(minutes=1), by=_expired_authority),
        ("time: time-stamp-revocation-unknown", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-edited",
        "The time inside the time stamp is changed.",
        _edited,
        ("time: time-stamp-changed", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-from-after-the-expiry",
        "The time stamp was made when the certificate had expired already.",
        stamped(NOW - timedelta(days=1)),
        ("chain: certificate-untrusted",),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-from-the-future",
        "The time stamp states a time that has not come.",
        stamped(NOW + timedelta(days=400)),
        ("time: time-stamp-in-future", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-of-another-type",
        "The time stamp is said to be of a kind that nobody knows.",
        in_signature(with_nodes(text(TIME_STAMP_TYPE, "CS", "MY_STAMP"))),
        ("time: time-stamp-wrong-type", EXPIRED),
        honest=expired_slice,
    ),
    Attack(
        "time-stamp-with-more-behind-it",
        "Something follows the time stamp.",
        in_signature(lambda item: tuple(map(_with_more, item))),
        ("time: time-stamp-trailing-bytes", EXPIRED),
        ACCEPTS,
        expired_slice,
    ),
    Attack(
        "time-stamp-older-than-the-signature",
        "The signer states a later time than its time stamp proves: one of the two is wrong.",
        stamped(SIGNED_AT - timedelta(days=30)),
        ("time: time-contradicted",),
        ACCEPTS,
    ),
    Attack(
        "time-stamp-from-after-the-revocation",
        "A revoked key signs, sets the date back, and gets a time stamp: it proves a time after the revocation.",
        one_after_the_other(
            resigned(revoked_scanner, at=REVOKED_AT - timedelta(days=10)), stamped(REVOKED_AT + timedelta(days=1))
        ),
        ("chain: certificate-revoked",),
    ),
)

_KEPT_KEYS: Final = (
    Attack(
        "key-used-after-its-period",
        "A copy of a key that the scanner had for a week signs after that. The certificate is valid for years more.",
        resigned(former_key, at=FORMER_KEY_UNTIL + timedelta(days=1)),
        (MISUSED,),
        ACCEPTS,
        slice_of_a_former_key,
    ),
    Attack(
        "key-used-before-its-period",
        "A signature of the same key states a day on which that was not in use, to be older than a recall or a "
        "revocation.",
        resigned(former_key, at=FORMER_KEY_FROM - timedelta(days=1)),
        (MISUSED,),
        ACCEPTS,
        slice_of_a_former_key,
    ),
    Attack(
        "time-stamp-older-than-the-key",
        "The time stamp proves that the signature is older than the key that made it: one of those clocks is wrong.",
        stamped(FORMER_KEY_FROM - timedelta(days=30)),
        (MISUSED, "time: time-contradicted"),
        ACCEPTS,
        slice_of_a_former_key,
    ),
)

ATTACKS: Final = (*_CLAIMED, *_KEPT_KEYS, *_STAMPED)
