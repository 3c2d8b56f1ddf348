"""Ownership vouchers for tests, of every kind of key in every encoding, with as many entries as one wants."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from enroll.fdo import cbor
from enroll.fdo.cose import sign1
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import FdoPublicKey, KeyEncoding, KeyType, signature_type, strength
from enroll.fdo.rendezvous import Directive, RendezvousProtocol, encode_rendezvous
from enroll.fdo.voucher import OwnerChain, Voucher, VoucherEntry, VoucherHeader

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GUID: Final = bytes(range(16))
DEVICE_INFO: Final = "CT-4711"
HMAC_OF: Final = {HashAlgorithm.SHA256: HashAlgorithm.HMAC_SHA256, HashAlgorithm.SHA384: HashAlgorithm.HMAC_SHA384}
EMPTY_EXTRA: Final = cbor.encode({})
RENDEZVOUS: Final = encode_rendezvous(
    [Directive(("fdo.example.com", "192.0.2.1"), 8443, RendezvousProtocol.HTTPS, delay=60)]
)
# Every kind of key with the type that it has, and the encodings that there are for it: FDO 1.1, 3.3.4.
KINDS: Final = {
    "P-256": KeyType.SECP256R1,
    "P-384": KeyType.SECP384R1,
    "RSA-2048": KeyType.RSA_2048_RESTRICTED,
    "RSA-3072": KeyType.RSA_PKCS,
}
ENCODINGS: Final = {
    name: [KeyEncoding.X509, KeyEncoding.X5CHAIN, *([KeyEncoding.COSEKEY] if name.startswith("P") else [])]
    for name in KINDS
}
EVERY_KIND: Final = [(name, encoding) for name in KINDS for encoding in ENCODINGS[name]]


@cache
def key_of(kind: str, number: int = 0) -> PrivateKey:
    """One of the keys of a kind; the same whenever it is asked for."""
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    return ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())


@dataclass(frozen=True)
class Party:
    """A manufacturer, an owner or a device: a key, its certificate, and that of the CA that issued it."""

    name: str
    key: PrivateKey
    chain: tuple[x509.Certificate, ...]

    def public(self, encoding: KeyEncoding = KeyEncoding.X509, kind: KeyType | None = None) -> FdoPublicKey:
        """Its key as it stands in a voucher."""
        given = self.chain if encoding is KeyEncoding.X5CHAIN else self.key.public_key()
        return FdoPublicKey.make(given, encoding, kind)

    @property
    def anchor(self) -> x509.Certificate:
        return self.chain[-1]


@cache
def party(name: str, kind: str = "P-256", number: int = 0) -> Party:
    """Somebody with one of the keys of a kind, and a certificate of the "CA of NAME"."""
    key, ca_key = key_of(kind, number), ec.generate_private_key(ec.SECP256R1())
    ca_name = _named(f"CA of {name}")
    ca = _builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = _builder(_named(name), ca_name, key)
    return Party(name, key, (leaf.sign(ca_key, hashes.SHA256()), ca.sign(ca_key, hashes.SHA256())))


def parties(kind: str) -> Iterator[Party]:
    """A manufacturer, then owners without end; three keys take turns."""
    for number in itertools.count():
        yield party("Maker" if number == 0 else f"Owner {1 + (number - 1) % 3}", kind, number % 3)


def device(algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> Party:
    """Who the voucher is about; its key is as strong as those of its owners."""
    return party("device", "P-256" if algorithm is HashAlgorithm.SHA256 else "P-384", 9)


def header(
    manufacturer: FdoPublicKey,
    chain_hash: Hash | None = None,
    *,
    device_info: str = DEVICE_INFO,
    rendezvous: cbor.Raw = RENDEZVOUS,
) -> VoucherHeader:
    """An OVHeader."""
    return VoucherHeader.make(GUID, rendezvous, device_info, manufacturer, chain_hash)


def chain_hash(chain: Sequence[x509.Certificate], algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> Hash:
    """OVDevCertChainHash."""
    return Hash.of(algorithm, b"".join(each.public_bytes(serialization.Encoding.DER) for each in chain))


def hmac_of(algorithm: HashAlgorithm) -> Hash:
    """What a device may have made; nobody here can tell."""
    number = HMAC_OF[algorithm]
    return Hash(number, bytes(32 if number is HashAlgorithm.HMAC_SHA256 else 48))


def factory_voucher(
    manufacturer: Party | None = None,
    encoding: KeyEncoding = KeyEncoding.X509,
    *,
    kind: KeyType | None = None,
    device_info: str = DEVICE_INFO,
    rendezvous: cbor.Raw = RENDEZVOUS,
) -> Voucher:
    """Without an entry."""
    manufacturer = manufacturer or party("Maker")
    algorithm = strength(manufacturer.key.public_key())
    certificates = device(algorithm).chain
    first = header(
        manufacturer.public(encoding, kind),
        chain_hash(certificates, algorithm),
        device_info=device_info,
        rendezvous=rendezvous,
    )
    return Voucher.make(first, hmac_of(algorithm), certificates)


def sign_entry(
    signer: PrivateKey,
    kind: KeyType,
    payload: Sequence[cbor.Encodable],
) -> VoucherEntry:
    """An entry with whatever is in it, signed as this type of key signs."""
    signed = sign1(signer, signature_type(signer.public_key(), kind), cbor.encode(payload))
    return VoucherEntry.read(cbor.read(signed))


def payload(chain: OwnerChain, owner: FdoPublicKey, algorithm: HashAlgorithm | None = None) -> list[cbor.Encodable]:
    """What the next entry has to say."""
    algorithm = algorithm or chain.algorithm
    return [
        cbor.Raw(Hash.of(algorithm, chain.last).raw),
        cbor.Raw(chain.header.hash_of_device(algorithm).raw),
        EMPTY_EXTRA,
        cbor.Raw(owner.raw),
    ]


def voucher_with(count: int, kind: str = "P-256", encoding: KeyEncoding = KeyEncoding.X509) -> tuple[Voucher, Party]:
    """A voucher of so many entries, and its last owner.

    `Voucher.extend` verifies the whole voucher each time; this is as fast for 255 entries as for one.
    """
    line = parties(kind)
    owner = next(line)
    voucher = factory_voucher(owner, encoding, kind=KINDS[kind])
    chain, entries = OwnerChain.begin(voucher.header, voucher.hmac), list[VoucherEntry]()
    for _ in range(count):
        following = next(line)
        said = payload(chain, following.public(encoding, KINDS[kind]))
        entries.append(sign_entry(owner.key, KINDS[kind], said))
        chain, owner = chain.extended(entries[-1]), following
    return Voucher.make(voucher.header, voucher.hmac, voucher.device_chain, entries), owner


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(1 << 158)  # of 20 octets
        .not_valid_before(NOW - timedelta(days=365))
        .not_valid_after(NOW + timedelta(days=3650))
    )
