"""Changes for which somebody has to sign: the honest instance with the signature of somebody else, or with a stamp."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, TypeAlias

from tests.support.attacks.editing import (
    Change,
    NodesChange,
    in_signature,
    rewritten,
    signature_of,
    with_nodes,
    without,
)
from tests.support.attacks.forging import signed_by_hand
from tests.support.attacks.images import ct_slice, signed
from tests.support.attacks.signers import (
    LONG_AGO,
    SIGNED_AT,
    Signer,
    expired_scanner,
    former_key,
    time_stamp_authority,
)
from tests.support.dicom_tree import DIGITAL_SIGNATURES, MAC_PARAMETERS
from tests.support.raw_dicom import Node, text
from tests.support.time_stamp_authority import Tsa
from tests.support.time_stamp_tokens import token

stripped: Final = rewritten(without(MAC_PARAMETERS, DIGITAL_SIGNATURES))


Who: TypeAlias = Callable[[], Signer]  # no key is made before it is needed


def resigned(by: Who, at: datetime = SIGNED_AT, change: NodesChange | None = None) -> Change:
    """The instance with the signature of somebody else, perhaps changed before."""

    def of_file(data: bytes) -> bytes:
        bare = stripped(data)
        return signed(rewritten(change)(bare) if change else bare, by(), at)

    return of_file


def resigned_by_hand(by: Who, hash_name: str = "SHA256", **odd: Any) -> Change:
    """The instance with a signature that is odd."""
    return lambda data: rewritten(lambda nodes: signed_by_hand(nodes, by(), hash_name, **odd))(stripped(data))


# --- time stamps ---


def value_of(data: bytes) -> bytes:
    """The first signature of an instance, which its time stamp is about."""
    _, item = signature_of(data)
    return next(node.value for node in item if node.tag == 0x04000120)


def stamped(
    at: datetime,
    by: Callable[[], Tsa] = time_stamp_authority,
    about: Callable[[bytes], bytes] = value_of,
    kind: str = "CMS_TSP",
) -> Change:
    """A time stamp added to the signature, or put in the place of its own.

    Args:
        at: The time that it proves.
        by: The authority.
        about: The bytes that it is about, of the instance.
        kind: Certified Timestamp Type.
    """

    def of_file(data: bytes) -> bytes:
        stamp = token(by(), about(data), at)
        fields = (text(0x04000305, "CS", kind), Node(0x04000310, "OB", stamp + b"\0" * (len(stamp) % 2)))
        return in_signature(with_nodes(*fields))(data)

    return of_file


@cache
def expired_slice() -> bytes:
    """The slice, signed and stamped years ago by the scanner, whose certificate has expired since."""
    return stamped(LONG_AGO + timedelta(minutes=1))(resigned(expired_scanner, LONG_AGO)(ct_slice()))


@cache
def slice_of_a_former_key() -> bytes:
    """The slice, signed by the scanner with a key that it has destroyed since, and without a time stamp."""
    return resigned(former_key)(ct_slice())
