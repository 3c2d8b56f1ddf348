"""The matrix of tests with go-fdo: keys, how they are written, key exchange, cipher, size of service info.

What go-fdo cannot, and is therefore not in it:

| what                                | why                                                                            |
|-------------------------------------|--------------------------------------------------------------------------------|
| RSA keys written as COSEKEY         | it cannot write them; we do not ask for them                                   |
| AES-CCM                             | it knows no such suite                                                         |
| a key exchange of another key kind  | refused by it; for RSA it takes each one, and we only the one of the same size |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.transport import HttpChannel, Pins, context_for
from enroll.flows.settings import FdoCipher
from enroll.identity import Generation, IdentityName
from tests.support.fdo.go_peer import GoServer
from tests.support.fdo.scanner import FdoScanner

KEY_EXCHANGES = {
    KeyAlgorithm.P_256: ("ECDH256",),
    KeyAlgorithm.P_384: ("ECDH384",),
    KeyAlgorithm.RSA_2048: ("DHKEXid14", "ASYMKEX2048"),
    KeyAlgorithm.RSA_3072: ("DHKEXid15", "ASYMKEX3072"),
}
CIPHERS = (FdoCipher.A128GCM, FdoCipher.A256GCM)
ENCRYPT_THEN_MAC = (FdoCipher.AES128_CBC, FdoCipher.AES128_CTR, FdoCipher.AES256_CBC, FdoCipher.AES256_CTR)
KEYS_SECONDS = 60.0  # the first message waits for new RSA keys
SIZES = (256, 1300, 65535)


@dataclass(frozen=True)
class Kind:
    """What the keys of a voucher are, and how they are written."""

    algorithm: KeyAlgorithm
    encoding: KeyEncoding

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.encoding.name}"

    @property
    def go_options(self) -> tuple[str, ...]:
        """The same for the device in Go."""
        return ("-key", self.algorithm, "-encoding", self.encoding.name)


@dataclass(frozen=True)
class Row:
    """One row of the matrix."""

    kind: Kind
    key_exchange: str
    cipher: FdoCipher
    size: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.key_exchange}-{self.cipher}-{self.size}"

    @property
    def go_options(self) -> tuple[str, ...]:
        """The same for the device in Go."""
        suites = ("-key-exchange", self.key_exchange, "-cipher", self.cipher, "-service-info", str(self.size))
        return (*self.kind.go_options, *suites)


P_256 = Kind(KeyAlgorithm.P_256, KeyEncoding.X509)
KINDS = tuple(
    Kind(algorithm, encoding)
    for algorithm in KEY_EXCHANGES
    for encoding in (KeyEncoding.X509, KeyEncoding.X5CHAIN, KeyEncoding.COSEKEY)
    if not (algorithm.startswith("rsa") and encoding is KeyEncoding.COSEKEY)
)
MATRIX = tuple(
    Row(kind, key_exchange, cipher, size)
    for kind in KINDS
    for key_exchange in KEY_EXCHANGES[kind.algorithm]
    for cipher in CIPHERS
    for size in SIZES
)


def initialized(folder: Path, server: GoServer, kind: Kind = P_256) -> FdoScanner:
    """A scanner that comes from its factory."""
    scanner = FdoScanner(folder)
    with HttpChannel(server.url, context_for(Pins()), SystemClock(), KEYS_SECONDS) as channel:
        scanner.initialize(channel, kind.algorithm, kind.encoding)
    return scanner


def onboarded(scanner: FdoScanner, row: Row) -> Generation:
    scanner.configure(key_exchange=row.key_exchange, cipher=row.cipher, service_info_size=row.size)
    generation = scanner.onboard()
    assert isinstance(generation, Generation)
    return generation


def assert_certified_by(server: GoServer, scanner: FdoScanner, generation: Generation) -> None:
    """It is in use with its key, and leads to the root that the owner has brought."""
    issuer, root = x509.load_pem_x509_certificates(server.ca_file.read_bytes())
    credential = scanner.credentials.current()
    assert scanner.scanner.matching_pair(IdentityName.DEVICE) == generation
    generation.certificate.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert generation.chain == (issuer,)
    assert credential is not None
    assert credential.owner is not None
    assert credential.owner.anchors == (root,)
