"""What is done with the objects of a token. Errors of the library pass through; the store translates them."""

from __future__ import annotations

from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.mechanisms import MGF
from pkcs11.types import SignMixin

from enroll import der
from enroll.algorithms import KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, UnsupportedKey
from enroll.keystore.base import PublicKey
from enroll.keystore.keys import CURVES, RSA_BITS, Ecdsa, RsaPkcs1v15, RsaPss, Scheme
from enroll.keystore.tokenuri import TokenUri

# RFC 8017 9.2 note 1: what precedes the digest in DigestInfo.
_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS_HASH = {
    "sha256": (Mechanism.SHA256, MGF.SHA256),
    "sha384": (Mechanism.SHA384, MGF.SHA384),
    "sha512": (Mechanism.SHA512, MGF.SHA512),
}
# CKA_EC_PARAMS of the curves in use.
_CURVE_NAMES = {
    ec.SECP256R1.name: der.object_identifier(ec.EllipticCurveOID.SECP256R1.dotted_string),
    ec.SECP384R1.name: der.object_identifier(ec.EllipticCurveOID.SECP384R1.dotted_string),
}


def search(
    session: pkcs11.Session, kind: ObjectClass, *, label: str | None = None, identifier: bytes | None = None
) -> list[pkcs11.Object]:
    """All objects of a kind that have this label and this CKA_ID, as far as they are given."""
    template: dict[Attribute, Any] = {Attribute.CLASS: kind}
    if label is not None:
        template[Attribute.LABEL] = label
    if identifier is not None:
        template[Attribute.ID] = identifier
    return list(session.get_objects(template))


def find(session: pkcs11.Session, kind: ObjectClass, uri: TokenUri) -> pkcs11.Object:
    """The one object of a kind that `uri` names.

    Raises:
        KeyNotFound: There is none.
        KeyStoreError: There are several.
    """
    found = search(session, kind, label=uri.label, identifier=uri.identifier)
    if not found:
        name = kind.name.lower().replace("_", " ")
        raise KeyNotFound(
            f"The token {uri.token} has no {name} {uri.label or ''}".rstrip() + ".", remedy="Enroll again."
        )
    if len(found) > 1:
        raise KeyStoreError("Several keys of the token have this name.", remedy="Name the key by its id as well.")
    return found[0]


def generate(session: pkcs11.Session, label: str, identifier: bytes, algorithm: KeyAlgorithm) -> None:
    """Make a pair of keys whose private half signs, does nothing else, and stays in the token."""
    template: dict[str, Any] = {
        "id": identifier,
        "label": label,
        "store": True,
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        "private_template": {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    }
    if algorithm in RSA_BITS:
        session.generate_keypair(KeyType.RSA, RSA_BITS[algorithm], **template)
    else:
        curve = {Attribute.EC_PARAMS: _CURVE_NAMES[CURVES[algorithm].name]}
        session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(**template)


def signature(key: pkcs11.Object, digest: bytes, scheme: Scheme) -> bytes:
    """The signature over a digest; see `Signer`."""
    if not isinstance(key, SignMixin):
        raise UnsupportedKey("This key of the token may not sign.", remedy="Enroll again.")
    match scheme:
        case RsaPkcs1v15(hash_name):
            return key.sign(_DIGEST_INFO[hash_name] + digest, mechanism=Mechanism.RSA_PKCS)
        case RsaPss(hash_name, salt_length):
            parameter = (*_PSS_HASH[hash_name], salt_length)
            return key.sign(digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameter)
        case Ecdsa():
            plain = key.sign(digest, mechanism=Mechanism.ECDSA)
            half = len(plain) // 2
            return encode_dss_signature(int.from_bytes(plain[:half], "big"), int.from_bytes(plain[half:], "big"))


def public_key(key: pkcs11.Object) -> PublicKey:
    """A public key of the token.

    Raises:
        UnsupportedKey: Neither RSA nor a curve in use, or no valid key.
    """
    try:
        if key[Attribute.KEY_TYPE] is KeyType.RSA:
            exponent, modulus = key[Attribute.PUBLIC_EXPONENT], key[Attribute.MODULUS]
            return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
        if key[Attribute.KEY_TYPE] is KeyType.EC:
            for curve in CURVES.values():
                if key[Attribute.EC_PARAMS] == _CURVE_NAMES[curve.name]:
                    return ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(key[Attribute.EC_POINT], curve))
    except ValueError as error:
        raise UnsupportedKey("The token shows a public key that is not valid.", remedy="Enroll again.") from error
    raise UnsupportedKey("The token holds a key of another kind.", remedy=f"Make one of: {', '.join(KeyAlgorithm)}.")


def never_left(key: pkcs11.Object) -> bool:
    """Whether the token says that the key was made in it and could never be read from it."""
    try:
        return all(key[a] for a in (Attribute.LOCAL, Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE))
    except pkcs11.AttributeTypeInvalid:
        return False


def name_of(key: pkcs11.Object) -> tuple[str | None, bytes | None]:
    """Label and CKA_ID, as far as there are any; no label is shown that is no text."""
    try:
        return key[Attribute.LABEL], key[Attribute.ID] or None
    except (UnicodeDecodeError, pkcs11.AttributeTypeInvalid):
        return None, None


def _point(value: bytes, curve: ec.EllipticCurve) -> bytes:
    # An OCTET STRING by the standard; some tokens give the point itself.
    point = value[-(1 + 2 * (curve.key_size // 8)) :]
    return point if value == der.encode(der.OCTET_STRING, point) else value
