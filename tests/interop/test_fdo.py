"""A scanner and the evaluation servers over HTTP: from the factory to an owner, and on to the next (FDO 1.1)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.algorithms import KeyAlgorithm
from enroll.certificates import pem, read_certificates
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import EnrollmentRefused, ProtocolViolation
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.evaluation.fdo.http_server import FdoServer
from enroll.evaluation.fdo.owner import OwnerRun
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import MessageType
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.rendezvous import encode_rendezvous
from enroll.fdo.service_info import ACTIVE, Statement
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.tunnel import CipherSuite
from enroll.fdo.voucher import Voucher
from enroll.flows.base import Pending
from enroll.flows.settings import FdoCipher
from enroll.identity import Generation, IdentityName
from enroll.statefile import StateFiles
from tests.support.dcmsign import needs_dcmsign
from tests.support.fdo.go_matrix import MATRIX, Row
from tests.support.fdo.parties import Parties, directive_of, lengthened, party_keys, sold
from tests.support.fdo.scanner import FdoScanner
from tests.support.fdo.signed_images import assert_signs_images
from tests.support.pki import new_key


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("parties")) as running:
        yield running


Scanners = Callable[[KeyAlgorithm, KeyEncoding], FdoScanner]


@pytest.fixture(scope="module")
def scanners(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> Scanners:
    """One for each kind and encoding of keys, for all rows that have it: each row takes it over again."""

    @cache
    def made(algorithm: KeyAlgorithm, encoding: KeyEncoding) -> FdoScanner:
        return from_factory(parties, tmp_path_factory.mktemp("scanner"), algorithm, encoding)

    return made


def from_factory(
    parties: Parties,
    folder: Path,
    algorithm: KeyAlgorithm = KeyAlgorithm.P_256,
    encoding: KeyEncoding = KeyEncoding.X509,
) -> FdoScanner:
    """A scanner after DI, whose voucher the owner has registered (TO0)."""
    scanner = FdoScanner(folder)
    scanner.initialize(parties.http_channel(), algorithm, encoding)
    return scanner


def check_onboarded(scanner: FdoScanner, ca: EvaluationCa) -> x509.Certificate:
    """One run ends with a certificate of the owner's CA for the key that the scanner has made for it."""
    before = scanner.scanner.matching_pair(IdentityName.DEVICE)
    generation = scanner.onboard()
    assert isinstance(generation, Generation)
    assert scanner.scanner.matching_pair(IdentityName.DEVICE) == generation
    generation.certificate.verify_directly_issued_by(ca.certificate)
    assert before is None or before.key_uri != generation.key_uri
    assert scanner.credentials.pending() is None
    return generation.certificate


@pytest.fixture(scope="module")
def est_server(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EstServer]:
    """The hospital's CA, which knows scanners by the certificates of the owner's."""
    ca = EvaluationCa.create_or_open(tmp_path_factory.mktemp("est"), SystemClock())
    with EstServer(ca, options=EstOptions(vendors=(parties.ca.certificate,))) as server:
        yield server


@needs_dcmsign
@pytest.mark.parametrize("row", MATRIX, ids=str)
def test_matrix(row: Row, parties: Parties, scanners: Scanners, est_server: EstServer, tmp_path: Path) -> None:
    """The same as with go-fdo."""
    kind = row.kind
    scanner = scanners(kind.algorithm, kind.encoding)
    scanner.configure(key_exchange=row.key_exchange, cipher=row.cipher, service_info_size=row.size)
    parties.set_terms(service_info_size=row.size)

    check_onboarded(scanner, parties.ca)

    run = parties.to2
    assert run.chain.owner.encoding is kind.encoding
    assert run.cipher.name == row.cipher.name
    assert isinstance(run.key, ec.EllipticCurvePrivateKey) is kind.algorithm.startswith("p-")
    assert_signs_images(scanner, est_server, tmp_path)


@pytest.mark.parametrize("cipher", [FdoCipher.AES_CCM_64_128_128, FdoCipher.AES_CCM_64_128_256])
def test_ccm(cipher: FdoCipher, parties: Parties, scanners: Scanners) -> None:
    scanner = scanners(KeyAlgorithm.P_256, KeyEncoding.X509)
    scanner.configure(cipher=cipher)

    check_onboarded(scanner, parties.ca)


@pytest.mark.parametrize(
    "cipher", [FdoCipher.AES128_CBC, FdoCipher.AES128_CTR, FdoCipher.AES256_CBC, FdoCipher.AES256_CTR]
)
def test_cbc_and_ctr_where_both_sides_were_told_to(cipher: FdoCipher, tmp_path: Path) -> None:
    with Parties(tmp_path) as parties:
        scanner = from_factory(parties, tmp_path / "scanner")
        scanner.configure(cipher=cipher)
        with pytest.raises(ErrorReceived, match="cipher suite"):
            scanner.onboard()

        parties.set_terms(ciphers=frozenset(CipherSuite))
        scanner.wait()
        check_onboarded(scanner, parties.ca)


def test_three_owners_one_after_the_other(tmp_path: Path) -> None:
    with Parties(tmp_path) as parties:
        scanner = from_factory(parties, tmp_path / "scanner")
        check_onboarded(scanner, parties.ca)

        seller, guids = parties.owner, [scanner.credential.guid]
        for name in ("second", "third"):
            with parties.next_owner(tmp_path / name, name) as (buyer, ca):
                buyer.take(sold(seller, scanner.credential.guid, party_keys(name)))
                scanner.release()
                check_onboarded(scanner, ca)
                guids.append(scanner.credential.guid)
                seller = buyer

        assert len(set(guids)) == 3
        assert not parties.owner.vouchers.all()


def test_a_next_owner_that_the_scanner_was_not_released_to_is_refused(tmp_path: Path) -> None:
    with Parties(tmp_path) as parties:
        scanner = from_factory(parties, tmp_path / "scanner")
        check_onboarded(scanner, parties.ca)
        before = scanner.credential

        with parties.next_owner(tmp_path / "second", "second") as (buyer, _):
            buyer.take(sold(parties.owner, before.guid, party_keys("second")))
            with pytest.raises(EnrollmentRefused):
                scanner.onboard()

            assert scanner.credential == before
            assert [voucher.header.guid for voucher in buyer.vouchers.all()] == [before.guid]


def test_a_credential_that_stays_has_to_be_allowed(tmp_path: Path) -> None:
    """FDO 1.1, 5.5.7 (error 102)."""
    with Parties(tmp_path, reuse=True) as parties:
        scanner = from_factory(parties, tmp_path / "scanner", encoding=KeyEncoding.X5CHAIN)
        before = scanner.credential
        with pytest.raises(ProtocolViolation, match="used again"):
            scanner.onboard()
        assert scanner.credential == before

        scanner.configure(credential_reuse=True)
        scanner.wait()
        for _ in range(3):
            check_onboarded(scanner, parties.ca)
            assert scanner.credential.guid == before.guid


@pytest.mark.parametrize("entries", [0, 1, 10, 255])
def test_vouchers_of_some_length(entries: int, tmp_path: Path) -> None:
    """Straight to the owner: a voucher of 255 entries is longer than a message of TO0 may be."""
    with Parties(tmp_path, bypass=True) as parties:
        vouchers: list[Voucher] = []
        parties.manufacturer = replace(parties.manufacturer, deliver=vouchers.append)
        if entries == 0:
            without = replace(parties.manufacturer.terms, first_owner=None)
            parties.manufacturer = replace(parties.manufacturer, terms=without)
            parties.owner = replace(parties.owner, keys=party_keys("manufacturer"))
        scanner = from_factory(parties, tmp_path / "scanner")
        (voucher,) = vouchers
        voucher = lengthened(voucher, parties.owner.keys, entries)
        parties.owner.take(voucher)
        assert len(voucher.entries) == entries

        check_onboarded(scanner, parties.ca)


def test_no_rendezvous_server_is_asked_where_the_voucher_says_so(tmp_path: Path) -> None:
    """FDO 1.1, 3.3.2: RVBypass."""
    with Parties(tmp_path, bypass=True) as parties:
        del parties.runs[MessageType.TO1_HELLO_RV]
        scanner = from_factory(parties, tmp_path / "scanner")

        check_onboarded(scanner, parties.ca)


def test_the_next_directive_is_followed_where_nobody_answers(tmp_path: Path) -> None:
    """FDO 1.1, 3.7: in their order."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Parties(tmp_path) as parties:
        rendezvous = encode_rendezvous([directive_of(nobody), directive_of(parties.url)])
        terms = replace(parties.manufacturer.terms, rendezvous=rendezvous)
        parties.manufacturer = replace(parties.manufacturer, terms=terms)

        check_onboarded(from_factory(parties, tmp_path / "scanner"), parties.ca)


@pytest.mark.parametrize("pinned", ["server", "ca", "another server", "another ca"])
def test_https_with_a_pinned_certificate(pinned: str, tmp_path: Path) -> None:
    """FDO 1.1, 3.3.2: RVSvCertHash and RVClCertHash."""
    files = StateFiles()
    with Parties(tmp_path) as parties:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server, ca = (read_certificates(parties.ca.directory / name, files)[0] for name in ("server.pem", "root.pem"))
        chain = tmp_path / "chain.pem"
        chain.write_bytes(pem([server, ca]))  # who pins a CA has to be shown it
        context.load_cert_chain(chain, parties.ca.directory / "server.key")
        hash_of = partial(Hash.of, HashAlgorithm.SHA256)
        with FdoServer(parties.services, context) as secured:
            plain = directive_of(secured.url)
            directive = {
                "server": replace(plain, server_certificate=hash_of(server.public_bytes(Encoding.DER))),
                "ca": replace(plain, ca_certificate=hash_of(ca.public_bytes(Encoding.DER))),
                "another server": replace(plain, server_certificate=hash_of(b"another")),
                "another ca": replace(plain, ca_certificate=hash_of(b"another")),
            }[pinned]
            terms = replace(parties.manufacturer.terms, rendezvous=encode_rendezvous([directive]))
            parties.manufacturer = replace(parties.manufacturer, terms=terms)
            scanner = from_factory(parties, tmp_path / "scanner")

            if pinned in ("server", "ca"):
                check_onboarded(scanner, parties.ca)
            else:
                assert isinstance(scanner.onboard(), Pending)


class Silent(CertificateModule):
    """Does not say that it has what it wants."""

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        return [each for each in super().receive(name, value) if each.name != ACTIVE]


class Curious(CertificateModule):
    """Asks for the certificates of the CA once more before it says so."""

    has_asked_again = False

    def receive(self, name: str, value: cbor.Item) -> Sequence[Statement]:
        if name == "cacerts-res" and self.certificates:
            self.has_asked_again = True
            return [Statement(self.name, ACTIVE, value=False)]
        said = super().receive(name, value)
        return [Statement(self.name, "cacerts-req", 281)] if self.certificates else said


Module = TypeVar("Module", bound=CertificateModule)


def taken_over_with(kind: type[Module], folder: Path) -> Module:
    with Parties(folder, bypass=True) as parties:
        scanner = from_factory(parties, folder / "scanner")
        wanted = CertificateRequest.for_device(scanner.scanner.settings.device, Usage.DEVICE)
        module = kind(lambda _: build(new_key(), wanted))
        before = scanner.credential.guid
        assert scanner.take_over(parties.channel(), modules=[module]).guid != before
    return module


def test_a_device_that_has_its_certificate_and_says_nothing_more_is_taken_over(tmp_path: Path) -> None:
    """fdo.csr closes with `active` = false; an owner that waited for it would wait in vain for some."""
    assert taken_over_with(Silent, tmp_path).certificates


def test_a_device_that_has_its_certificate_may_ask_for_more(tmp_path: Path) -> None:
    assert taken_over_with(Curious, tmp_path).has_asked_again


def test_where_message_71_is_lost_the_owner_knows_the_credential_that_was_pending(tmp_path: Path) -> None:
    """The owner replaces its voucher at 70; the scanner comes back with what it had written down before."""

    class LosesTheLast(OwnerRun):
        def done(self, body: bytes) -> bytes:
            super().done(body)
            raise ConnectionError("cut")

    with Parties(tmp_path) as parties:
        scanner = from_factory(parties, tmp_path / "scanner")
        old = scanner.credential
        parties.runs[MessageType.TO2_HELLO_DEVICE] = lambda: LosesTheLast(parties.owner)
        scanner.onboard()
        pending = scanner.credentials.pending()
        assert pending is not None
        assert scanner.credential.guid == old.guid
        assert [voucher.header.guid for voucher in parties.owner.vouchers.all()] == [pending.guid]

        parties.runs[MessageType.TO2_HELLO_DEVICE] = parties.owner.begin
        scanner.wait()
        check_onboarded(scanner, parties.ca)
        assert scanner.credential.guid not in (old.guid, pending.guid)
