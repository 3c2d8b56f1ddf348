"""The MAC parameters: what is hashed, in which form, by which algorithm. No signature covers them."""

from __future__ import annotations

from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.attacks.editing import (
    DATA_ELEMENTS_SIGNED,
    MAC_TRANSFER_SYNTAX,
    in_mac_parameters,
    one_after_the_other,
    rewritten,
    with_nodes,
    with_tag_list,
    with_value,
    without,
)
from tests.support.attacks.images import jpeg_frame
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.resigning import resigned_by_hand
from tests.support.attacks.signers import rsa_key, scanner, signer
from tests.support.dicom_tree import DIGITAL_SIGNATURES, EXPLICIT_LITTLE_ENDIAN
from tests.support.raw_dicom import Node, text

ACCEPTS = Dcmsign.ACCEPTS
MAC_ALGORITHM: Final = 0x04000015
WRONG = ("integrity: signature-wrong",)
_IMAGER_PIXEL_SPACING: Final = 0x00181164

_TAG_LIST: Final = (
    Attack(
        "tag-list-emptied",
        "The list of what was signed is emptied, so that nothing has to fit.",
        in_mac_parameters(with_tag_list(lambda _: ())),
        ("integrity: tag-list-empty",),
    ),
    Attack(
        "tag-list-removed",
        "The list of what was signed is removed.",
        in_mac_parameters(without(DATA_ELEMENTS_SIGNED)),
        ("integrity: tag-list-empty",),
    ),
    Attack(
        "tag-list-reversed",
        "The list of what was signed is turned round; what is hashed stays the same where a program sorts.",
        in_mac_parameters(with_tag_list(lambda tags: tags[::-1])),
        ("integrity: tag-list-disordered",),
        ACCEPTS,
    ),
    Attack(
        "tag-listed-twice",
        "A tag is listed twice: a program may hash its element twice, or compare counts.",
        in_mac_parameters(with_tag_list(lambda tags: (*tags, tags[-1]))),
        ("integrity: tag-list-disordered",),
        ACCEPTS,
    ),
    Attack(
        "absent-tag-listed",
        "An attribute that is not there is listed as signed, so that it seems to be covered once it is added.",
        in_mac_parameters(with_tag_list(lambda tags: tuple(sorted({*tags, _IMAGER_PIXEL_SPACING})))),
        ("integrity: signed-element-absent",),
        ACCEPTS,
    ),
    Attack(
        "absent-tag-listed-and-added-later",
        "The same, and the attribute is added: it is listed, it is there, and it was never signed.",
        one_after_the_other(
            in_mac_parameters(with_tag_list(lambda tags: tuple(sorted({*tags, _IMAGER_PIXEL_SPACING})))),
            rewritten(with_nodes(text(_IMAGER_PIXEL_SPACING, "DS", "9\\9"))),
        ),
        WRONG,
    ),
    Attack(
        "group-length-listed",
        "A group length is listed, which is never hashed.",
        in_mac_parameters(with_tag_list(lambda tags: (0x00080000, *tags))),
        ("integrity: signed-element-unsignable",),
        ACCEPTS,
    ),
    Attack(
        "unknown-vr-listed",
        "An attribute of unknown VR is added and listed as signed; such attributes are never hashed.",
        one_after_the_other(
            in_mac_parameters(with_tag_list(lambda tags: tuple(sorted({*tags, _IMAGER_PIXEL_SPACING})))),
            rewritten(with_nodes(Node(_IMAGER_PIXEL_SPACING, "UN", b"9\\9 "))),
        ),
        ("integrity: signed-element-unsignable",),
    ),
    Attack(
        "signatures-listed",
        "The signatures themselves are listed as signed, which is not possible.",
        in_mac_parameters(with_tag_list(lambda tags: (*tags, DIGITAL_SIGNATURES))),
        ("integrity: signed-element-unsignable",),
    ),
    Attack(
        "file-meta-listed",
        "The transfer syntax is listed as signed, as if the file meta information could be.",
        in_mac_parameters(with_tag_list(lambda tags: (0x00020010, *tags))),
        ("integrity: signed-element-unsignable",),
        ACCEPTS,
    ),
    Attack(
        "half-a-tag-listed",
        "The list ends in the middle of a tag.",
        in_mac_parameters(with_value(DATA_ELEMENTS_SIGNED, b"\x08\x00")),
        ("integrity: mac-parameters-missing", "instance: mac-parameters-malformed"),
    ),
    Attack(
        "pixel-data-off-the-list",
        "Pixel Data is taken off the list, to exchange the pixels afterwards.",
        in_mac_parameters(with_tag_list(lambda tags: tags[:-1])),
        ("integrity: signature-wrong", "coverage: pixel-data-not-covered"),
    ),
)


def _mac_syntax(uid: str) -> Node:
    return text(MAC_TRANSFER_SYNTAX, "UI", uid)


_TRANSFER_SYNTAX: Final = (
    Attack(
        "mac-over-jpeg-for-native-pixels",
        "The signature is said to have been made over JPEG, while the pixels are native.",
        in_mac_parameters(with_nodes(_mac_syntax("1.2.840.10008.1.2.4.50"))),
        ("integrity: transfer-syntax-differs",),
    ),
    Attack(
        "mac-over-native-pixels-for-jpeg",
        "The signature is said to have been made over native pixels, while they are stored as JPEG.",
        in_mac_parameters(with_nodes(_mac_syntax(EXPLICIT_LITTLE_ENDIAN))),
        ("integrity: transfer-syntax-differs",),
        honest=jpeg_frame,
    ),
    Attack(
        "mac-over-an-invented-syntax",
        "The signature is said to have been made over a transfer syntax that nobody knows.",
        in_mac_parameters(with_nodes(_mac_syntax("1.2.3.4"))),
        ("integrity: transfer-syntax-differs",),
    ),
    Attack(
        "mac-over-implicit-vr",
        "The signature is said to have been made over implicit VR, which PS3.3 C.12.1.1.3.1.1 does not allow.",
        in_mac_parameters(with_nodes(_mac_syntax("1.2.840.10008.1.2"))),
        ("integrity: transfer-syntax-differs",),
    ),
)


def _hash(name: str) -> Node:
    return text(MAC_ALGORITHM, "CS", name)


@cache
def _curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


_ALGORITHM: Final = (
    Attack(
        "hash-relabelled-as-stronger",
        "MAC Algorithm, which is not signed, claims SHA-512.",
        in_mac_parameters(with_nodes(_hash("SHA512"))),
        WRONG,
    ),
    Attack(
        "hash-relabelled-as-md5",
        "MAC Algorithm claims MD5, to pass for an old signature.",
        in_mac_parameters(with_nodes(_hash("MD5"))),
        (*WRONG, "algorithms: hash-antique"),
    ),
    Attack(
        "hash-unknown",
        "MAC Algorithm names a check sum.",
        in_mac_parameters(with_nodes(_hash("CRC32"))),
        ("integrity: algorithm-unknown", "algorithms: algorithm-unknown"),
    ),
    Attack(
        "hash-removed",
        "MAC Algorithm is removed.",
        in_mac_parameters(without(MAC_ALGORITHM)),
        ("integrity: mac-parameters-missing", "instance: mac-parameters-malformed"),
    ),
    Attack(
        "new-md5-signature",
        "A signature is made today with MD5, under which two images can be given the same hash.",
        resigned_by_hand(scanner, "MD5"),
        ("algorithms: hash-antique",),
        ACCEPTS,
    ),
    Attack(
        "new-sha1-signature",
        "The same with SHA-1.",
        resigned_by_hand(scanner, "SHA1"),
        ("algorithms: hash-antique",),
        ACCEPTS,
    ),
    Attack(
        "new-ripemd160-signature",
        "The same with RIPEMD-160, the default of dcmsign.",
        resigned_by_hand(scanner, "RIPEMD160"),
        ("algorithms: hash-antique",),
        ACCEPTS,
    ),
    Attack(
        "rsa-of-1024-bits",
        "The key of the signer is so short that it can be calculated.",
        resigned_by_hand(lambda: signer(key=rsa_key("short", 1024))),
        ("algorithms: key-antique", "chain: chain-weak"),
        ACCEPTS,
    ),
    Attack(
        "ecdsa-signature",
        "The signature is made with ECDSA, which PS3.15 C.1 does not have: many programs cannot check it.",
        resigned_by_hand(lambda: signer(key=_curve_key())),
        ("algorithms: outside-profile",),
    ),
)

ATTACKS: Final = (*_TAG_LIST, *_TRANSFER_SYNTAX, *_ALGORITHM)
