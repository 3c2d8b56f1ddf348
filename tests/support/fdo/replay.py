"""A recorded exchange stands in for the servers: each request has to be the recorded one, byte for byte.

What a device makes at random is injected: nonces, initialization vectors, its half of the key exchange, and the
signatures of keys on elliptic curves, which are verified before they are given out. Answers can be replaced, to see
what the device does about it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enroll.certificates import decode_base64
from enroll.est.attributes import WantedAttributes
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import DeviceCredential
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.key_exchange import Answer, KeyExchangeSuite, SharedSecret
from enroll.fdo.messages import ErrorMessage
from enroll.fdo.to1 import find_owner
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import Received
from enroll.fdo.tunnel import CipherSuite
from enroll.fdo.voucher import VoucherHeader
from enroll.keystore.base import PrivateKey, PublicKey
from tests.support.clocks import SteppedClock
from tests.support.fdo.vectors import Exchange, Vector

FIRST_ENCRYPTED = 65
_SETUP_NONCE_HEADER, _IV_HEADER = -259, 5
_DESCRIPTION = DeviceDescription("Linux", "x86_64", "Debian 12", "CT-model", ";", "x86_64")

Change = Callable[[bytes], bytes]


@dataclass
class ReplayChannel:
    """Gives the recorded answers to the recorded requests, in their order.

    `changes` says by number what becomes of an answer; the last of several with one number is changed. `reported` and
    `asked` hold what the device has said.
    """

    exchanges: Sequence[Exchange]
    changes: Mapping[int, Change] = field(default_factory=dict)
    reported: list[ErrorMessage] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    where: str = "http://recorded.example"

    def exchange(self, number: int, body: bytes) -> Received:
        each = self.exchanges[len(self.asked)]
        assert (number, body.hex()) == (each.type, each.request.hex())
        self.asked.append(number)
        is_last = each.response_type not in [later.response_type for later in self.exchanges[len(self.asked) :]]
        change = self.changes.get(each.response_type) if is_last else None
        return Received(each.response_type, change(each.response) if change else each.response)

    def report(self, error: ErrorMessage) -> None:
        self.reported.append(error)

    def close(self) -> None:
        """Nothing is open."""


class RecordedSigner(ec.EllipticCurvePrivateKey):
    """Gives out a recorded signature, for the data that it is a signature over and for no other."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, signature: bytes) -> None:
        self._key = key
        half = len(signature) // 2
        self._signature = encode_dss_signature(
            int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        )

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # type: ignore[override]
        assert not isinstance(signature_algorithm.algorithm, Prehashed)
        self._key.public_key().verify(self._signature, data, signature_algorithm)
        return self._signature

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise NotImplementedError

    def private_numbers(self) -> NoReturn:
        raise NotImplementedError

    def private_bytes(self, *_: object) -> NoReturn:
        raise NotImplementedError

    def __copy__(self) -> NoReturn:
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[object, object]) -> NoReturn:
        raise NotImplementedError


@dataclass(frozen=True)
class Secret:
    """The HMAC secret of a device."""

    value: bytes = field(repr=False)
    algorithm: HashAlgorithm = HashAlgorithm.HMAC_SHA256

    def sign(self, data: bytes) -> bytes:
        name = "sha256" if self.algorithm is HashAlgorithm.HMAC_SHA256 else "sha384"
        return hmac.new(self.value, data, name).digest()


@dataclass(frozen=True)
class RecordedDevice:
    """The device of a recording, as its factory left it."""

    recorded: Vector

    @property
    def header(self) -> VoucherHeader:
        (header,) = cbor.read(self.recorded.message(11)).array(1)
        return VoucherHeader.read(header.embedded())

    @property
    def mac(self) -> Hash:
        (mac,) = cbor.read(self.recorded.message(12)).array(1)
        return Hash.read(mac)

    @property
    def secret(self) -> Secret:
        return Secret(self.recorded.hmac_secret, self.mac.algorithm)

    @property
    def credential(self) -> DeviceCredential:
        return DeviceCredential(
            self.header.guid,
            self.header.rendezvous,
            self.header.device_info,
            Hash.of(self.mac.plain_algorithm, self.header.manufacturer.raw),
            self.header.manufacturer.kind,
            self.header.certificate_chain_hash,
            "software:fdo",
            "software:fdo-secret",
            self.mac.algorithm,
        )

    def signer(self, number: int) -> PrivateKey:
        """The device key, for the signature of message `number`."""
        key = serialization.load_der_private_key(self.recorded.device_key_pkcs8, None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return RecordedSigner(key, cbor2.loads(self.recorded.message(number)).value[3])

    def to1(self, **changes: Change) -> ReplayChannel:
        """The rendezvous server; a change is named m31 or m33."""
        return self._channel(30, 39, changes)

    def to2(self, **changes: Change) -> ReplayChannel:
        """The owner; a change is named by its message, such as m61."""
        return self._channel(60, 79, changes)

    def _channel(self, first: int, last: int, changes: Mapping[str, Change]) -> ReplayChannel:
        exchanges = [each for each in self.recorded.exchanges if first <= each.type <= last]
        return ReplayChannel(exchanges, {int(name.removeprefix("m")): change for name, change in changes.items()})

    def find_owner(self, channel: ReplayChannel) -> Sign1:
        """Run TO1."""
        return find_owner(channel, self.credential, self.signer(32))

    def module(self) -> CertificateModule:
        """fdo.csr with the recorded request, whose key was not recorded."""

        def request(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
            return x509.load_der_x509_csr(decode_base64(self._request.encode("ascii")))

        return CertificateModule(request)

    def session(self, channel: ReplayChannel, redirect: Sign1 | None = None) -> Session:
        """TO2, by default with to1d as it was recorded."""
        terms = self._terms(redirect or Sign1.read(cbor.read(self.recorded.message(33))))
        return Session(channel, self.credential, self.signer(64), self.secret, terms)

    def _terms(self, redirect: Sign1) -> Terms:
        random = self._random()
        return Terms(
            key_exchange=KeyExchangeSuite(self.recorded.kex),
            cipher=CipherSuite(self.recorded.cipher),
            service_info_size=cbor2.loads(self.recorded.plaintext(66))[1],
            description=_DESCRIPTION,
            reuse=True,
            judge=lambda _: None,
            clock=SteppedClock(),
            redirect=redirect,
            random=lambda size: _of_size(next(random), size),
            agree=self._agree,
        )

    def _random(self) -> Iterator[bytes]:
        yield cbor2.loads(self.recorded.message(60))[2]
        yield cbor2.loads(self.recorded.message(64)).value[1][_SETUP_NONCE_HEADER]
        for each in self.recorded.exchanges:
            if each.type > FIRST_ENCRYPTED:
                yield cbor2.loads(each.request).value[1][_IV_HEADER]

    def _agree(self, suite: KeyExchangeSuite, offered: bytes, owner_key: PublicKey) -> Answer:
        recorded = self.recorded.key_exchange
        assert (suite, offered) == (self.recorded.kex, recorded.x_a)
        return Answer(recorded.x_b, SharedSecret(recorded.shared_secret, recorded.context_random))

    @property
    def _request(self) -> str:
        said = (
            (key, value)
            for plain in self.recorded.plaintexts
            if plain.number == 68
            for key, value in cbor2.loads(plain.content)[1]
        )
        return str(next(cbor2.loads(value) for key, value in said if key == "fdo.csr:simpleenroll-req"))


def behind_the_tunnel(recorded: Vector, change: Change) -> Change:
    """A change of what is encrypted: decrypted with the recorded key, changed, and encrypted with another IV."""
    cipher = AESGCM(recorded.key_exchange.session_key)

    def changed(body: bytes) -> bytes:
        message = cbor2.loads(body)
        protected, headers, ciphertext = message.value
        context = cbor2.dumps(["Encrypt0", protected, b""])
        plaintext = cipher.decrypt(headers[_IV_HEADER], ciphertext, context)
        iv = hashlib.sha256(body).digest()[:12]
        return cbor2.dumps(
            cbor2.CBORTag(16, [protected, {_IV_HEADER: iv}, cipher.encrypt(iv, change(plaintext), context)])
        )

    return changed


def _of_size(value: bytes, size: int) -> bytes:
    assert len(value) == size
    return value
