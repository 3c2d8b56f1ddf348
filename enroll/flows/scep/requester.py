"""Who asks: the certificate that signs a SCEP message, and whose key opens the answer (RFC 8894 2.3).

SCEP wants one RSA key for both. The first of these that fits:

| certificate                                        | message    | when                                            |
|----------------------------------------------------|------------|-------------------------------------------------|
| the one in use                                     | RenewalReq | its key decrypts, and the server renews         |
| self-signed, of the key that is to be certified    | PKCSReq    | that key decrypts: RSA in a file                |
| self-signed, of a key that lives for this run only | PKCSReq    | any other key: in a token, in a TPM, on a curve |

RFC 8894 says SHOULD of the second, so a server may refuse the third (docs/adr/0029-scep.md).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from enroll.errors import UnsupportedKey
from enroll.keystore.base import PrivateKey

_BITS, _EXPONENT = 2048, 65537
_BEFORE, _AFTER = timedelta(days=1), timedelta(days=7)  # our clock may be wrong, and so may the server's
_KEY_USAGE = x509.KeyUsage(  # RFC 8894 2.3
    digital_signature=True,
    key_encipherment=True,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Requester:
    """What signs messages and opens answers.

    Args:
        certificate: Goes with each message.
        key: Of it.
        renews: Whether the certificate is the one in use, so that it proves who asks.
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    renews: bool = False


def decrypting(key: PrivateKey) -> rsa.RSAPrivateKey | None:
    """The key itself, if it opens what is encrypted to it; None for one that only signs.

    Raises:
        KeyStoreError: Its store cannot be used.
    """
    if not isinstance(key, rsa.RSAPrivateKey):
        return None
    probe = secrets.token_bytes(16)
    try:
        opened = key.decrypt(key.public_key().encrypt(probe, PKCS1v15()), PKCS1v15())
    except UnsupportedKey:
        return None
    return key if opened == probe else None


def first_requester(key: PrivateKey, subject: x509.Name, now: datetime) -> Requester:
    """For a request that no certificate vouches for.

    Args:
        key: That is to be certified.
        subject: Of the request.
        now: The time.
    """
    own = decrypting(key) or rsa.generate_private_key(_EXPONENT, _BITS)
    builder = (
        x509.CertificateBuilder(subject, subject, own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _AFTER)
        .add_extension(_KEY_USAGE, critical=True)
    )
    return Requester(builder.sign(own, hashes.SHA256()), own)
