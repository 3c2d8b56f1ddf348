"""The owner's side of fdo.csr and scanseal.renewal, word by word (fdo-sim, fdo.csr); nothing is sent over a network."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from enroll.certificates import alternative_names, public_key_info
from enroll.clock import SystemClock
from enroll.csr import HARDWARE_MODULE_NAME, CertificateRequest, Usage, build, hardware_module_name
from enroll.errors import ConfigurationError, EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.est.attributes import WantedAttributes
from enroll.est.attributes import read as read_attributes
from enroll.est.authentication import Password
from enroll.est.client import address
from enroll.evaluation.ca import OWNER, USERNAME, EvaluationCa
from enroll.evaluation.est_attributes import CsrAttributes
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.evaluation.fdo.certificate_sources import CaBehind, CertificateSource, EstBridge
from enroll.evaluation.fdo.fdo_csr import REQUESTS_LIMIT, CertificateOwnerModule, Enrollments, Refusal
from enroll.evaluation.fdo.issued_certificates import IssuedCertificates
from enroll.evaluation.fdo.owner_module import OnboardedDevice
from enroll.evaluation.fdo.owner_modules import OwnerModules, RenewalOwnerModule
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.fault import Fault
from enroll.fdo.hand_over import Renewal, RenewalModule
from enroll.fdo.service_info import ACTIVE, Modules, Statement
from enroll.flows.settings import FlowName
from enroll.keystore.base import PrivateKey
from enroll.statefile import StateFiles
from tests.support.est_peer import ATTRIBUTES, BAGS, BODIES, EstPeer, Oddities
from tests.support.pki import DEVICE, new_key

REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
SCANNER = OnboardedDevice(bytes(16), DEVICE.model, DEVICE.serial_number)
Make = Callable[[], x509.CertificateSigningRequest]
Write = Callable[[x509.CertificateSigningRequest], str | bytes]

LOG = logging.getLogger(__name__)
RENEWAL = Renewal(FlowName.EST, "https://est.hospital.example", "imaging")


@pytest.fixture
def ca(tmp_path: Path) -> EvaluationCa:
    return EvaluationCa.create_or_open(tmp_path / "ca", SystemClock())


@pytest.fixture
def enrollments(ca: EvaluationCa, tmp_path: Path) -> Enrollments:
    return Enrollments(CaBehind(ca), IssuedCertificates(tmp_path / "certificates", StateFiles()), LOG.info)


@pytest.fixture
def owner(enrollments: Enrollments) -> CertificateOwnerModule:
    return CertificateOwnerModule(SCANNER, enrollments)


def say(owner: CertificateOwnerModule, name: str, value: cbor.Encodable) -> Statement:
    """What the owner answers to one word."""
    (answer,) = owner.receive(name, cbor.read(cbor.encode(value)))
    return answer


def text(request: x509.CertificateSigningRequest) -> str:
    return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode("ascii")


def content(answer: Statement, name: str) -> bytes:
    assert (answer.module, answer.name) == ("fdo.csr", name)
    assert isinstance(answer.value, str), "a tstr"
    return base64.b64decode(answer.value, validate=True)


def error(answer: Statement) -> cbor.Encodable:
    assert (answer.module, answer.name) == ("fdo.csr", "error")
    return answer.value


def onboard(owner: OwnerModules, device: Sequence[CertificateModule | RenewalModule]) -> None:
    """What a session does with the modules of both sides, without messages."""
    known = Modules(device)
    for module in owner(SCANNER):
        said = [Statement(module.name, ACTIVE, value=True), *module.begin()]
        while said:
            answers = [
                answer
                for each in said
                for answer in known.receive(each.module, each.name, cbor.read(cbor.encode(each.value)))
            ]
            said = [
                each
                for answer in answers
                if (answer.name, answer.value) != (ACTIVE, True)
                for each in module.receive(answer.name, cbor.read(cbor.encode(answer.value)))
            ]
        assert module.is_complete


def device_module(key: PrivateKey, renews: x509.Certificate | None = None) -> CertificateModule:
    def request(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
        return build(key, REQUEST, renews, owners_names=wanted.owners_names)

    return CertificateModule(request, renews=renews is not None)


def certificate_of(module: CertificateModule, key: PrivateKey) -> x509.Certificate:
    (certificate,) = module.certificates
    assert public_key_info(certificate.public_key()) == public_key_info(key.public_key())
    (issuer,) = (each for each in module.ca_certificates if each.subject == certificate.issuer)
    certificate.verify_directly_issued_by(issuer)
    return certificate


# --- the device talks to the owner


def test_a_device_gets_a_certificate_and_renews_it(enrollments: Enrollments) -> None:
    first_key, next_key = new_key(), new_key()
    first, following = device_module(first_key), RenewalModule()
    owner = OwnerModules(enrollments, RENEWAL)

    onboard(owner, [first, following])
    before = certificate_of(first, first_key)
    assert following.renewal == RENEWAL
    renewing = device_module(next_key, before)
    onboard(owner, [renewing, RenewalModule()])

    after = certificate_of(renewing, next_key)
    assert (after.subject, alternative_names(after)) == (before.subject, alternative_names(before))
    assert after.serial_number != before.serial_number


def test_a_device_that_does_not_know_the_module_of_renewal_gets_its_certificate(enrollments: Enrollments) -> None:
    key = new_key()
    module = device_module(key)

    onboard(OwnerModules(enrollments, RENEWAL), [module])

    assert certificate_of(module, key) in module.certificates


def test_without_a_place_for_renewals_nothing_is_said_of_them(enrollments: Enrollments) -> None:
    assert [module.name for module in OwnerModules(enrollments)(SCANNER)] == ["fdo.csr"]


# --- cacerts


def test_ca_certificates_come_as_pkcs7(owner: CertificateOwnerModule, ca: EvaluationCa) -> None:
    answer = content(say(owner, "cacerts-req", 281), "cacerts-res")

    assert pkcs7.load_der_pkcs7_certificates(answer) == [ca.certificate]


def test_a_single_ca_certificate_comes_as_such_where_that_is_asked_for(
    owner: CertificateOwnerModule, ca: EvaluationCa
) -> None:
    answer = content(say(owner, "cacerts-req", 287), "cacerts-res")

    assert x509.load_der_x509_certificate(answer) == ca.certificate


def test_several_ca_certificates_do_not_go_into_pkix_cert(owner: CertificateOwnerModule, ca: EvaluationCa) -> None:
    ca.roll_over()

    assert error(say(owner, "cacerts-req", 287)) == Refusal.UNSUPPORTED_FORMAT
    answer = content(say(owner, "cacerts-req", 281), "cacerts-res")
    assert set(pkcs7.load_der_pkcs7_certificates(answer)) == set(ca.certificates)


@pytest.mark.parametrize("wanted", [0, 280, 62, 2**64 - 1])
def test_another_format_is_error_5(owner: CertificateOwnerModule, wanted: int) -> None:
    assert error(say(owner, "cacerts-req", wanted)) == 5


# --- csrattrs


@pytest.mark.parametrize("ignored", [0, 7, None, "", b"", []], ids=repr)
def test_nothing_wanted_is_an_empty_list(owner: CertificateOwnerModule, ignored: cbor.Encodable) -> None:
    """RFC 7030 4.5.2; what the device says with it means nothing."""
    assert say(owner, "csrattrs-req", ignored).value == "MAA="


def test_what_the_ca_wants_is_said(enrollments: Enrollments, ca: EvaluationCa) -> None:
    wanting = replace(enrollments, source=CaBehind(ca, CsrAttributes.TEMPLATE))

    said = say(CertificateOwnerModule(SCANNER, wanting), "csrattrs-req", 0)

    assert isinstance(said.value, str)
    assert read_attributes(said.value.encode()).keys


# --- simpleenroll and simplereenroll


def as_lines(request: x509.CertificateSigningRequest) -> str:
    return base64.encodebytes(request.public_bytes(serialization.Encoding.DER)).decode("ascii")


def as_pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


@pytest.mark.parametrize(
    "written",
    [
        text,
        as_lines,
        as_pem,
        lambda request: text(request).encode("ascii"),
        lambda request: as_lines(request).encode("ascii"),
        lambda request: as_pem(request).encode("ascii"),
        lambda request: request.public_bytes(serialization.Encoding.DER),
    ],
    ids=["text", "text in lines", "armoured text", "bytes", "bytes in lines", "armoured bytes", "DER"],
)
def test_a_request_is_read_however_it_is_written(owner: CertificateOwnerModule, written: Write) -> None:
    key = new_key()

    answer = content(say(owner, "simpleenroll-req", written(build(key, REQUEST))), "simpleenroll-res")

    certificate = x509.load_der_x509_certificate(answer)  # one certificate, without its chain
    assert public_key_info(certificate.public_key()) == public_key_info(key.public_key())
    (organization,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert organization.value == OWNER


def altered(request: x509.CertificateSigningRequest) -> bytes:
    """One bit of its signature."""
    encoded = bytearray(request.public_bytes(serialization.Encoding.DER))
    encoded[-1] ^= 1
    return bytes(encoded)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        b"",
        "no base64!",
        b"0",
        "AAAA",
        0,
        None,
        ["request"],
        altered(build(new_key(), REQUEST)),
        build(new_key(), REQUEST).public_bytes(serialization.Encoding.DER) + b"\x00",
        build(new_key(), REQUEST).public_bytes(serialization.Encoding.DER)[:-1],
    ],
    ids=[
        "empty text",
        "no bytes",
        "no base64",
        "a tag alone",
        "zeros",
        "a number",
        "null",
        "an array",
        "another signature",
        "something behind it",
        "cut off",
    ],
)
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
def test_what_is_no_request_is_error_1(owner: CertificateOwnerModule, operation: str, wrong: cbor.Encodable) -> None:
    assert error(say(owner, f"{operation}-req", wrong)) == 1


def named_otherwise() -> x509.CertificateSigningRequest:
    return build(new_key(), CertificateRequest("A scanner", "CT-000124", "", Usage.DEVICE))


def unnamed() -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A scanner")])
    return x509.CertificateSigningRequestBuilder(subject).sign(new_key(), hashes.SHA256())


def with_alternative_name(name: x509.GeneralName) -> x509.CertificateSigningRequest:
    """The subject is its own."""
    builder = x509.CertificateSigningRequestBuilder(REQUEST.subject)
    return builder.add_extension(x509.SubjectAlternativeName([name]), critical=False).sign(new_key(), hashes.SHA256())


def with_name_of_another() -> x509.CertificateSigningRequest:
    return with_alternative_name(hardware_module_name(DEVICE.hardware_type, "CT-000999"))


def with_name_that_ends_like_its_own() -> x509.CertificateSigningRequest:
    number = DEVICE.serial_number
    return with_alternative_name(hardware_module_name(DEVICE.hardware_type, f"CT-9\x04{chr(len(number))}{number}"))


def with_name_that_cannot_be_read() -> x509.CertificateSigningRequest:
    return with_alternative_name(x509.OtherName(HARDWARE_MODULE_NAME, b"\x04\x02CT"))


def with_host_name() -> x509.CertificateSigningRequest:
    return build(new_key(), replace(REQUEST, host_name="scanner.hospital.example"))


def for_unknown_kind_of_key() -> x509.CertificateSigningRequest:
    return x509.CertificateSigningRequestBuilder(REQUEST.subject).sign(ed25519.Ed25519PrivateKey.generate(), None)


@pytest.mark.parametrize(
    "make",
    [
        named_otherwise,
        unnamed,
        with_name_of_another,
        with_name_that_ends_like_its_own,
        with_name_that_cannot_be_read,
        with_host_name,
        for_unknown_kind_of_key,
    ],
)
def test_a_device_gets_nothing_but_what_it_may_have(owner: CertificateOwnerModule, make: Make) -> None:
    """Error 2: other names than its own, and what the CA issues to nobody."""
    assert error(say(owner, "simpleenroll-req", text(make()))) == 2


def test_a_device_whose_key_names_no_serial_number_gets_nothing(enrollments: Enrollments) -> None:
    nobody = CertificateOwnerModule(replace(SCANNER, serial_number=""), enrollments)

    assert error(say(nobody, "simpleenroll-req", text(build(new_key(), REQUEST)))) == 2


def test_what_was_never_given_is_not_renewed(owner: CertificateOwnerModule) -> None:
    assert error(say(owner, "simplereenroll-req", text(build(new_key(), REQUEST)))) == 2


def test_other_names_are_no_renewal(owner: CertificateOwnerModule) -> None:
    """RFC 7030 4.2.2: subject and alternative names are those of the certificate that is renewed."""
    given = content(say(owner, "simpleenroll-req", text(build(new_key(), REQUEST))), "simpleenroll-res")
    before = x509.load_der_x509_certificate(given)
    fewer = build(new_key(), replace(REQUEST, hardware_type=""), None, owners_names=())

    assert error(say(owner, "simplereenroll-req", text(build(new_key(), REQUEST)))) == 2
    assert error(say(owner, "simplereenroll-req", text(fewer))) == 2
    renewed = build(new_key(), REQUEST, before)
    assert say(owner, "simplereenroll-req", text(renewed)).name == "simplereenroll-res"


def test_the_newest_certificate_of_each_device_is_kept(enrollments: Enrollments, owner: CertificateOwnerModule) -> None:
    for _ in range(2):
        given = content(say(owner, "simpleenroll-req", text(build(new_key(), REQUEST))), "simpleenroll-res")
        assert enrollments.issued.of(DEVICE.serial_number) == x509.load_der_x509_certificate(given)
    assert enrollments.issued.of("CT-000124") is None


def test_who_asks_too_often_is_told_so(owner: CertificateOwnerModule) -> None:
    """Error 4; of refused requests as well."""
    for number in range(REQUESTS_LIMIT):
        answer = say(owner, "simpleenroll-req", text(build(new_key(), REQUEST)) if number else "")
        assert answer.name == ("simpleenroll-res" if number else "error")

    assert error(say(owner, "simpleenroll-req", text(build(new_key(), REQUEST)))) == 4
    assert error(say(owner, "simplereenroll-req", text(build(new_key(), REQUEST)))) == 4


def test_nothing_that_is_signed_can_be_changed(enrollments: Enrollments) -> None:
    request = build(new_key(), REQUEST)
    encoded, signed = request.public_bytes(serialization.Encoding.DER), request.tbs_certrequest_bytes
    first = encoded.index(signed)
    for position in range(first, first + len(signed)):
        changed = encoded[:position] + bytes([encoded[position] ^ 1]) + encoded[position + 1 :]
        answer = say(CertificateOwnerModule(SCANNER, enrollments), "simpleenroll-req", changed)
        assert error(answer) == 1, position


# --- the rest


@pytest.mark.parametrize("value", ["", text(build(new_key(), REQUEST)), 0, None])
def test_keys_are_made_by_no_server(owner: CertificateOwnerModule, value: cbor.Encodable) -> None:
    assert error(say(owner, "serverkeygen-req", value)) == 3


def test_the_device_ends_it(owner: CertificateOwnerModule) -> None:
    assert not owner.is_complete
    say(owner, "simpleenroll-req", text(build(new_key(), REQUEST)))
    assert not owner.is_complete

    assert owner.receive(ACTIVE, cbor.read(cbor.encode(value=False))) == []

    assert owner.is_complete
    with pytest.raises(Fault):
        say(owner, "cacerts-req", 281)


def test_a_device_that_has_its_certificate_and_says_nothing_more_has_what_it_wants(
    owner: CertificateOwnerModule,
) -> None:
    """fdo.csr closes with `active` = false, which not every device says; one that thinks it over may ask again."""
    owner.pause()
    say(owner, "cacerts-req", 281)
    owner.pause()
    assert error(say(owner, "simpleenroll-req", "MAA=")) == 1
    owner.pause()
    assert not owner.is_complete

    say(owner, "simpleenroll-req", text(build(new_key(), REQUEST)))
    owner.pause()

    assert owner.is_complete


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cacerts-req", "281"),
        ("cacerts-req", None),
        ("cacerts-req", -281),
        ("cacerts-res", "MAA="),
        ("simpleenroll-res", "MAA="),
        ("fullcmc-req", "MAA="),
        ("-req", 0),
        ("", 0),
        ("error", 3),
        (ACTIVE, 1),
        (ACTIVE, True),
    ],
)
def test_what_is_no_word_of_it_ends_the_session(
    owner: CertificateOwnerModule, name: str, value: cbor.Encodable
) -> None:
    with pytest.raises(Fault):
        say(owner, name, value)


@pytest.mark.parametrize("word", ["cacerts-req", "csrattrs-req", "simpleenroll-req"])
def test_a_ca_that_does_not_answer_is_no_refusal(enrollments: Enrollments, word: str) -> None:
    """The device shall ask again later, so it is not told that it may not have a certificate."""

    class Silent:
        def ca_certificates(self) -> Sequence[x509.Certificate]:
            raise ServerUnreachable("No answer.")

        def csr_attributes(self) -> bytes:
            raise ServerUnreachable("No answer.")

        def issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
            raise ServerUnreachable("No answer.")

    owner = CertificateOwnerModule(SCANNER, replace(enrollments, source=Silent()))

    with pytest.raises(ServerUnreachable):
        say(owner, word, 281 if word == "cacerts-req" else text(build(new_key(), REQUEST)))


def test_each_request_is_in_the_log_and_cannot_write_it(enrollments: Enrollments) -> None:
    lines: list[str] = []
    owner = CertificateOwnerModule(replace(SCANNER, serial_number="CT\n1"), replace(enrollments, log=lines.append))

    say(owner, "simpleenroll-req", text(named_otherwise()))

    (line,) = lines
    assert "refused, error 2" in line
    assert line.isprintable()


def test_of_renewal_the_owner_alone_speaks() -> None:
    module = RenewalOwnerModule(RENEWAL)

    assert [each.value for each in module.begin()] == [["est", RENEWAL.url, RENEWAL.label]]
    assert module.receive(ACTIVE, cbor.read(cbor.encode(value=False))) == []
    for name, value in (("renewal", "x"), (ACTIVE, True)):
        with pytest.raises(Fault):
            module.receive(name, cbor.read(cbor.encode(value)))


# --- a bridge to an EST server (RFC 7030)


def bridge(ca: EvaluationCa, server: EstServer, label: str = "") -> EstBridge:
    password = Password(USERNAME, ca.password)
    return EstBridge(address(server.url, label), [ca.certificate], SystemClock(), 10, authorization=password)


@pytest.fixture
def est(ca: EvaluationCa) -> Iterator[EstServer]:
    with EstServer(ca) as server:
        yield server


def onboarded(source: CertificateSource, enrollments: Enrollments) -> x509.Certificate:
    key = new_key()
    module = device_module(key)
    onboard(OwnerModules(replace(enrollments, source=source)), [module])
    return certificate_of(module, key)


def test_through_the_bridge_a_device_gets_a_certificate_and_renews_it(
    enrollments: Enrollments, ca: EvaluationCa, est: EstServer
) -> None:
    source = bridge(ca, est)
    source.check()
    before = onboarded(source, enrollments)
    key = new_key()
    renewing = device_module(key, before)

    onboard(OwnerModules(replace(enrollments, source=source)), [renewing])

    assert certificate_of(renewing, key).subject == before.subject


def test_the_request_goes_over_the_bridge_as_it_came(ca: EvaluationCa, est: EstServer) -> None:
    request = build(new_key(), REQUEST)
    est.options = EstOptions(approve_by_hand=True)

    with pytest.raises(EnrollmentRefused, match="has not decided yet"):
        bridge(ca, est).issue(request)

    (name,) = est.approvals.waiting()
    waiting = (ca.directory / "waiting" / f"{name}.pem").read_bytes()
    assert x509.load_pem_x509_csr(waiting) == request


def test_what_the_server_wants_in_requests_goes_over_the_bridge(ca: EvaluationCa) -> None:
    with EstServer(ca, options=EstOptions(attributes=CsrAttributes.TEMPLATE)) as server:
        encoded = bridge(ca, server).csr_attributes()

    assert read_attributes(base64.b64encode(encoded)).keys


def test_over_a_bridge_no_request_is_linked_to_its_connection(enrollments: Enrollments, ca: EvaluationCa) -> None:
    """RFC 7030 3.5: the connection is not that of the device. That is said before a device asks."""
    with EstServer(ca, options=EstOptions(proof_of_possession=True)) as server:
        source = bridge(ca, server)
        with pytest.raises(ConfigurationError, match="linked"):
            source.check()
        with pytest.raises(EnrollmentRefused):
            onboarded(source, enrollments)


def test_a_server_that_says_no_is_error_2(enrollments: Enrollments, ca: EvaluationCa, est: EstServer) -> None:
    est.options = EstOptions(refused_serial_numbers=frozenset({DEVICE.serial_number}))
    owner = CertificateOwnerModule(SCANNER, replace(enrollments, source=bridge(ca, est)))

    assert error(say(owner, "simpleenroll-req", text(build(new_key(), REQUEST)))) == 2


def test_a_server_that_is_not_there_is_no_refusal(enrollments: Enrollments, ca: EvaluationCa) -> None:
    with EstServer(ca) as server:
        source = bridge(ca, server)

    with pytest.raises(ServerUnreachable):
        onboarded(source, enrollments)


@pytest.mark.parametrize(
    "odd",
    [
        *(Oddities(body=form.value) for form in BODIES.values() if form.usable),
        *(Oddities(issue=form.value) for form in BAGS.values() if form.usable),
        *(Oddities(attributes=form.value) for form in ATTRIBUTES.values() if form.usable),
    ],
    ids=[name for forms in (BODIES, BAGS, ATTRIBUTES) for name, form in forms.items() if form.usable],
)
def test_the_bridge_leads_to_servers_with_oddities(enrollments: Enrollments, ca: EvaluationCa, odd: Oddities) -> None:
    """RFC 8951 3 and 4: each was seen in a real server. The device gets proper base64, DER and one certificate."""
    with EstPeer(ca, odd) as server:
        assert onboarded(bridge(ca, server), enrollments).issuer == ca.certificate.subject


@pytest.mark.parametrize(
    "odd",
    [
        *(Oddities(body=form.value) for form in BODIES.values() if not form.usable),
        *(Oddities(issue=form.value) for form in BAGS.values() if not form.usable),
        *(Oddities(attributes=form.value) for form in ATTRIBUTES.values() if not form.usable),
    ],
    ids=[name for forms in (BODIES, BAGS, ATTRIBUTES) for name, form in forms.items() if not form.usable],
)
def test_what_no_est_server_may_send_does_not_get_to_the_device(
    enrollments: Enrollments, ca: EvaluationCa, odd: Oddities
) -> None:
    with EstPeer(ca, odd) as server, pytest.raises((ProtocolViolation, EnrollmentRefused)):
        onboarded(bridge(ca, server), enrollments)
