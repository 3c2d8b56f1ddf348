"""What is done with the objects of a token. Errors of the library pass through; the store translates them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT
from pkcs11.mechanisms import MGF
from pkcs11.types import SignMixin

from enroll import der
from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyNotFound, KeyStoreError, UnsupportedKey
from enroll.keystore.base import PublicKey
from enroll.keystore.keys import CURVES, HMAC_HASHES, RSA_BITS, Ecdsa, RsaPkcs1v15, RsaPss, Scheme
from enroll.keystore.tokenuri import ObjectType, TokenUri

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
_HMAC = {HmacAlgorithm.SHA256: Mechanism.SHA256_HMAC, HmacAlgorithm.SHA384: Mechanism.SHA384_HMAC}
_CLASSES = {ObjectType.PRIVATE: ObjectClass.PRIVATE_KEY, ObjectType.SECRET_KEY: ObjectClass.SECRET_KEY}
_STAYS = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
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


def find(session: pkcs11.Session, uri: TokenUri) -> pkcs11.Object:
    """The one private key or secret that `uri` names.

    Raises:
        KeyNotFound: There is none.
        KeyStoreError: There are several.
    """
    return _only(search(session, _CLASSES[uri.type], label=uri.label, identifier=uri.identifier), uri)


def find_public(session: pkcs11.Session, uri: TokenUri) -> pkcs11.Object:
    """The public half of the private key that `uri` names; see `find`."""
    return _only(search(session, ObjectClass.PUBLIC_KEY, label=uri.label, identifier=uri.identifier), uri)


def with_label(session: pkcs11.Session, uri: TokenUri) -> list[pkcs11.Object]:
    """All private keys and secrets with the label of `uri`."""
    return [found for kind in _CLASSES.values() for found in search(session, kind, label=uri.label)]


def uris(session: pkcs11.Session, token: str) -> Iterator[TokenUri]:
    """The URI of every private key and secret; no label is shown that is no text."""
    for type_, kind in _CLASSES.items():
        for found in search(session, kind):
            with contextlib.suppress(UnicodeDecodeError, pkcs11.AttributeTypeInvalid):
                yield TokenUri(token, found[Attribute.LABEL], found[Attribute.ID] or None, type_)


def destroy(session: pkcs11.Session, uri: TokenUri) -> None:
    """Remove what `uri` names, and its public half; nothing happens where there is none."""
    halves = [_CLASSES[uri.type], *([ObjectClass.PUBLIC_KEY] if uri.type is ObjectType.PRIVATE else [])]
    for kind in halves:
        for found in search(session, kind, label=uri.label, identifier=uri.identifier):
            found.destroy()


def generate(
    session: pkcs11.Session, uri: TokenUri, algorithm: KeyAlgorithm
) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
    """Make a pair of keys whose private half signs, does nothing else if the token can see to that, and stays in it.

    Args:
        session: May write.
        uri: CKA_LABEL and CKA_ID of both.
        algorithm: The kind of key.
    """
    # tpm2-pkcs11 decrypts with an RSA key in order to sign with it, and takes CKA_VERIFY of the public half for the
    # right to decrypt. So tokens decide on these first.
    left_to_token = (Attribute.DECRYPT, Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP)
    template: dict[str, Any] = {
        "id": uri.identifier,
        "label": uri.label,
        "store": True,
        "capabilities": MechanismFlag.SIGN,
        "public_template": dict.fromkeys(left_to_token, DEFAULT),
        "private_template": {**dict.fromkeys(left_to_token, DEFAULT), **_STAYS},
    }
    if algorithm in RSA_BITS:
        public, private = session.generate_keypair(KeyType.RSA, RSA_BITS[algorithm], **template)
    else:
        curve = {Attribute.EC_PARAMS: _CURVE_NAMES[CURVES[algorithm].name]}
        public, private = session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(**template)
    with contextlib.suppress(pkcs11.PKCS11Error):
        private[Attribute.DECRYPT] = False
    return public, private


def generate_secret(session: pkcs11.Session, uri: TokenUri, algorithm: HmacAlgorithm) -> None:
    """Make a secret that signs, does nothing else, and stays in the token; as long as the hash (RFC 2104 section 3)."""
    session.generate_key(
        KeyType.GENERIC_SECRET,
        HMAC_HASHES[algorithm].digest_size * 8,
        id=uri.identifier,
        label=uri.label,
        store=True,
        capabilities=MechanismFlag.SIGN,
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN,
        template=_STAYS,
    )


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


def hmac_algorithm(secret: pkcs11.Object) -> HmacAlgorithm:
    """What a secret is for, which its length tells.

    Raises:
        UnsupportedKey: Not one that is made here.
    """
    for algorithm, hash_algorithm in HMAC_HASHES.items():
        if secret[Attribute.VALUE_LEN] == hash_algorithm.digest_size:
            return algorithm
    raise UnsupportedKey(
        "The token holds a secret of another kind.", remedy=f"Make one of: {', '.join(HmacAlgorithm)}."
    )


def authentication_code(secret: pkcs11.Object, data: bytes, algorithm: HmacAlgorithm) -> bytes:
    """The HMAC over `data`; see `HmacKey`."""
    if not isinstance(secret, SignMixin):
        raise UnsupportedKey("This secret of the token may not sign.", remedy="Make a new one.")
    return secret.sign(data, mechanism=_HMAC[algorithm])


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


def _only(found: list[pkcs11.Object], uri: TokenUri) -> pkcs11.Object:
    if not found:
        raise KeyNotFound(f"The token {uri.token} has no key {uri.label or ''}".rstrip() + ".", remedy="Enroll again.")
    if len(found) > 1:
        raise KeyStoreError("Several keys of the token have this name.", remedy="Name the key by its id as well.")
    return found[0]


def _point(value: bytes, curve: ec.EllipticCurve) -> bytes:
    # An OCTET STRING by the standard; some tokens give the point itself.
    point = value[-(1 + 2 * (curve.key_size // 8)) :]
    return point if value == der.encode(der.OCTET_STRING, point) else value
