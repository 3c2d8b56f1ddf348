"""What a process knows of a key or secret that it has loaded: enough to tell it from every other one.

Between two signatures a token can be lost, and another one be found in its place, with the same label and the same
names in it. So what is found there has to prove that it is what was loaded, before anything that it makes leaves.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TypeAlias

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from enroll.algorithms import HmacAlgorithm
from enroll.errors import KeyMismatch
from enroll.keystore.base import PublicKey
from enroll.keystore.keys import Ecdsa, RsaPkcs1v15
from enroll.keystore.pkcs11 import objects
from enroll.keystore.tokenuri import TokenUri

_QUESTION = b"scanseal asks whether this secret is the one that it has loaded"


@dataclass(frozen=True)
class KnownKey:
    """A private key, known by its public half.

    Args:
        uri: Where it is.
        public_key: SubjectPublicKeyInfo, DER.
    """

    uri: TokenUri
    public_key: bytes = field(repr=False)

    @classmethod
    def of(cls, uri: TokenUri, public_key: PublicKey) -> KnownKey:
        """The key at `uri`, which has this public half."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return cls(uri, public_key.public_bytes(serialization.Encoding.DER, form))

    def prove(self, found: pkcs11.Object) -> None:
        """Let what was found sign something that nobody could know before.

        Raises:
            KeyMismatch: It is another key.
        """
        public_key = serialization.load_der_public_key(self.public_key)
        digest, hashed_with = secrets.token_bytes(32), Prehashed(hashes.SHA256())
        try:
            if isinstance(public_key, rsa.RSAPublicKey):
                signature = objects.signature(found, digest, RsaPkcs1v15("sha256"))
                public_key.verify(signature, digest, padding.PKCS1v15(), hashed_with)
            elif isinstance(public_key, ec.EllipticCurvePublicKey):
                public_key.verify(objects.signature(found, digest, Ecdsa()), digest, ec.ECDSA(hashed_with))
        except (InvalidSignature, ValueError, pkcs11.KeyTypeInconsistent) as error:
            raise _another(self.uri) from error


@dataclass(frozen=True)
class KnownSecret:
    """A secret, known by its answer to a question that is always the same.

    Args:
        uri: Where it is.
        algorithm: What it is for.
        answer: Its HMAC over the question.
    """

    uri: TokenUri
    algorithm: HmacAlgorithm
    answer: bytes = field(repr=False)

    @classmethod
    def of(cls, uri: TokenUri, found: pkcs11.Object) -> KnownSecret:
        """The secret at `uri`, which is this object.

        Raises:
            UnsupportedKey: No secret for message authentication, or the token does not compute it.
        """
        algorithm = objects.hmac_algorithm(found)
        return cls(uri, algorithm, objects.authentication_code(found, _QUESTION, algorithm))

    def prove(self, found: pkcs11.Object) -> None:
        """Ask what was found the same question.

        Raises:
            KeyMismatch: It is another secret.
        """
        if not hmac.compare_digest(objects.authentication_code(found, _QUESTION, self.algorithm), self.answer):
            raise _another(self.uri)


KnownObject: TypeAlias = KnownKey | KnownSecret


def _another(uri: TokenUri) -> KeyMismatch:
    return KeyMismatch(
        f"The token {uri.token} holds another key under the name {uri.label or 'that was asked for'}.",
        remedy="Connect the token that holds the key of the certificate, or enroll again.",
    )
