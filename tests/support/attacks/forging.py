"""Signs by hand whatever it is told to, right or wrong: what somebody can do who holds a key and follows no rules.

The bytes that are signed come from `tests.support.mac_oracle`, so that nothing of the product takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.attacks.signers import Signer
from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    EXPLICIT_LITTLE_ENDIAN,
    MAC_PARAMETERS,
    parse_data_set,
    tag_bytes,
)
from tests.support.mac_oracle import mac_stream, signable_tags
from tests.support.raw_dicom import Node, Nodes, Writer, number, text

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "MD5": hashes.MD5(),  # noqa: S303 - somebody still signs with it
    "SHA1": hashes.SHA1(),  # noqa: S303 - the same
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
# RFC 8017 9.2, note 1.
_RIPEMD160_DIGEST_INFO: Final = bytes.fromhex("3021300906052b2403020105000414")


def signed_by_hand(
    nodes: Nodes,
    signer: Signer,
    hash_name: str = "SHA256",
    *,
    at: str = "20261023120000.000000+0000",
    tags: Collection[int] | None = None,
) -> Nodes:
    """The nodes with a signature.

    Args:
        nodes: A data set in explicit VR little endian, without signatures.
        signer: Who signs.
        hash_name: MAC Algorithm.
        at: Digital Signature DateTime.
        tags: Data Elements Signed; all that can be signed and are not about the patient if not given.
    """
    elements = parse_data_set(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(nodes), EXPLICIT_LITTLE_ENDIAN)
    listed = tags if tags is not None else [tag for tag in signable_tags(elements) if not _is_excluded(tag)]
    fields = (
        number(0x04000005, 0),
        text(0x04000100, "UI", "2.25.2000"),
        text(0x04000105, "DT", at),
        text(0x04000110, "CS", "X509_1993_SIG"),
    )
    item = parse_data_set(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(fields), EXPLICIT_LITTLE_ENDIAN)
    value = _signature(signer, hash_name, mac_stream(elements, set(listed), item))
    by = (Node(0x04000115, "OB", _even(signer.certificate_der)), Node(0x04000120, "OB", _even(value)))
    mac = (
        number(0x04000005, 0),
        text(0x04000010, "UI", EXPLICIT_LITTLE_ENDIAN),
        text(0x04000015, "CS", hash_name),
        Node(0x04000020, "AT", b"".join(map(tag_bytes, listed))),
    )
    sequences = (
        Node(MAC_PARAMETERS, "SQ", items=(mac,)),
        Node(DIGITAL_SIGNATURES, "SQ", items=((*fields, *by),)),
    )
    return tuple(sorted((*nodes, *sequences), key=lambda node: node.tag))


def _is_excluded(tag: int) -> bool:
    """What creator-plus leaves out of the images here."""
    return tag >> 16 & 1 == 1 or tag in {0x00080020, 0x0008103E, 0x00100010, 0x00100020}


def _signature(signer: Signer, hash_name: str, stream: bytes) -> bytes:
    digest = hashlib.new(hash_name, stream, usedforsecurity=False).digest()
    if hash_name != "RIPEMD160":
        return signer.sign(digest, HASHES[hash_name])
    if not isinstance(signer.key, rsa.RSAPrivateKey):
        raise TypeError("RIPEMD-160 is signed with RSA here")
    numbers = signer.key.private_numbers()
    size = (signer.key.key_size + 7) // 8
    content = _RIPEMD160_DIGEST_INFO + digest
    padded = b"\0\1" + b"\xff" * (size - 3 - len(content)) + b"\0" + content  # RFC 8017 9.2
    return pow(int.from_bytes(padded), numbers.d, numbers.public_numbers.n).to_bytes(size)


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
