"""A small CA and the signer certificates it issues, for tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

SERIAL_NUMBER: Final = "SN0001"  # of the scanner that made tests.support.dicom_samples.ct_slice
DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
DIGESTS: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Signer:
    """A key with its certificate, in memory and as PEM files."""

    key: PrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path

    @property
    def certificate_der(self) -> bytes:
        """The certificate as it stands in (0400,0115)."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign_digest(self, hash_name: str) -> Callable[[bytes], bytes]:
        """A function that turns a digest into an RSA PKCS#1 v1.5 signature."""
        key = self.key
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"PS3.15 C.1 signs with RSA, not {type(key).__name__}")
        return lambda digest: key.sign(digest, padding.PKCS1v15(), utils.Prehashed(DIGESTS[hash_name]))


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """A new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


class Authority:
    """A root CA that issues signer certificates valid from an hour ago until tomorrow.

    Args:
        folder: Where the PEM files go.
        now: Time of issue, aware.
        title: Its common name.
    """

    def __init__(self, folder: Path, now: dt.datetime, title: str = "Test CA") -> None:
        self.folder = folder
        self.title = title
        self.not_before = now - dt.timedelta(hours=1)
        self.not_after = now + dt.timedelta(days=1)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(_name(title), self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate_file = folder / "ca.pem"
        self.certificate_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, key: PrivateKey) -> Signer:
        """A signer certificate: digitalSignature and documentSigning (RFC 9336), of the scanner with SERIAL_NUMBER."""
        issuer = self.key.public_key()
        subject = x509.Name([*_name(name), x509.NameAttribute(NameOID.SERIAL_NUMBER, SERIAL_NUMBER)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([DOCUMENT_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        signer = Signer(key, certificate, self.folder / f"{name}.key.pem", self.folder / f"{name}.pem")
        signer.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        signer.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return signer

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(_name(self.title), subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
