"""fdo.csr of the device: each step, each error, each way in which implementations write what is binary (fdo-sim).

And what of it is RFC 7030: csrattrs (4.5.2, RFC 8951 4), cacerts (4.1.3), simpleenroll and simplereenroll (4.2).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from enroll.errors import EnrollmentRefused
from enroll.est.attributes import WantedAttributes
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.messages import ErrorMessage
from enroll.fdo.service_info import Statement
from enroll.trust import CERTIFICATES_LIMIT
from tests.support.csr_attributes import (
    CHALLENGE_PASSWORD,
    EC_PUBLIC_KEY,
    EMAIL_ADDRESS,
    ORGANIZATION,
    P_384,
    csr_attributes,
    oid,
    text,
)
from tests.support.fdo import reference_codec as codec
from tests.support.fdo.in_process import Onboarding, ScriptedChannel
from tests.support.fdo.scripted_csr import ScriptedCsr, in_base64
from tests.support.fdo.scripted_owner import Said
from tests.support.pki import HospitalCa, name, new_key

ROOT = HospitalCa()
ISSUING = HospitalCa("Issuing CA", parent=ROOT)
KEY = new_key()
CERTIFICATE = ISSUING.issue(KEY.public_key())
CA_CERTIFICATES = pkcs7.serialize_certificates([ROOT.certificate, ISSUING.certificate], Encoding.DER)
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(name(COMMON_NAME="CT")).sign(KEY, hashes.SHA256())
EMPTY_LIST = bytes.fromhex("302306092a864886f70d010702a0163014020101310030 0b06092a864886f70d010701 3100")
BEGIN, CA_CERTS, ATTRIBUTES, ENROLL = range(4)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def armoured(data: bytes, label: str) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n"


WAYS: dict[str, Callable[[bytes], Any]] = {
    "base64": in_base64,
    "base64 with line breaks": lambda data: base64.encodebytes(data).decode(),
    "base64 with other line breaks": lambda data: "\r\n" + base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "PEM": lambda data: armoured(data, "PKCS7"),
    "base64 as bytes": base64.b64encode,
    "PEM as bytes": lambda data: armoured(data, "CERTIFICATE").encode(),
    "DER": lambda data: data,
}
each_way = pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)


class Device:
    """The module, with what it says in the words of the wire."""

    def __init__(self, *, renews: bool = False) -> None:
        self.wanted: list[WantedAttributes] = []
        self.module = CertificateModule(self._request, renews=renews)

    def _request(self, wanted: WantedAttributes) -> x509.CertificateSigningRequest:
        self.wanted.append(wanted)
        return REQUEST

    def begin(self) -> list[tuple[str, Any]]:
        return _words(self.module.begin())

    def hears(self, word: str, value: Any) -> list[tuple[str, Any]]:
        return _words(self.module.receive(word, cbor.read(codec.write(value))))

    def at(self, step: int) -> Device:
        """After so many steps."""
        steps: list[Callable[[], object]] = [
            self.begin,
            lambda: self.hears("cacerts-res", in_base64(CA_CERTIFICATES)),
            lambda: self.hears("csrattrs-res", "MAA="),
            lambda: self.hears("simpleenroll-res", in_base64(der(CERTIFICATE))),
        ]
        for take in steps[: step + 1]:
            take()
        return self


def _words(statements: Sequence[Statement]) -> list[tuple[str, Any]]:
    assert all(each.module == "fdo.csr" for each in statements)
    return [(each.name, each.value) for each in statements]


def refuses(device: Device, word: str, value: Any) -> str:
    with pytest.raises(Fault) as raised:
        device.hears(word, value)
    return raised.value.what


# --- the steps


def test_first_the_ca_certificates_are_asked_for() -> None:
    assert Device().begin() == [("cacerts-req", 281)]


def test_then_the_attributes() -> None:
    device = Device().at(BEGIN)
    assert device.hears("cacerts-res", in_base64(CA_CERTIFICATES)) == [("csrattrs-req", 0)]
    assert set(device.module.ca_certificates) == {ROOT.certificate, ISSUING.certificate}


def test_then_a_certificate() -> None:
    said = Device().at(CA_CERTS).hears("csrattrs-res", "MAA=")
    assert said == [("simpleenroll-req", in_base64(REQUEST.public_bytes(Encoding.DER)))]


def test_and_then_it_ends() -> None:
    device = Device().at(ATTRIBUTES)
    assert not device.module.is_complete
    assert device.hears("simpleenroll-res", in_base64(der(CERTIFICATE))) == [("active", False)]
    assert device.module.is_complete
    assert device.module.certificates == (CERTIFICATE,)


def test_a_renewal_is_a_simplereenroll() -> None:
    device = Device(renews=True).at(CA_CERTS)
    ((word, _),) = device.hears("csrattrs-res", "MAA=")
    assert word == "simplereenroll-req"
    assert device.hears("simplereenroll-res", in_base64(der(CERTIFICATE))) == [("active", False)]


@pytest.mark.parametrize("renews", [True, False])
def test_the_answer_is_to_what_was_asked(*, renews: bool) -> None:
    device = Device(renews=renews).at(ATTRIBUTES if not renews else CA_CERTS)
    if renews:
        device.hears("csrattrs-res", "MAA=")
    refuses(device, "simpleenroll-res" if renews else "simplereenroll-res", in_base64(der(CERTIFICATE)))
    assert device.module.certificates == ()


ANSWERS = {
    "cacerts-res": in_base64(CA_CERTIFICATES),
    "csrattrs-res": "MAA=",
    "simpleenroll-res": in_base64(der(CERTIFICATE)),
    "simplereenroll-res": in_base64(der(CERTIFICATE)),
    "serverkeygen-res": "--fdo\r\n\r\n--fdo--",
    "cacerts-req": 281,
    "simpleenroll-req": "MAA=",
    "something": True,
    "": True,
}
EXPECTED = {BEGIN: "cacerts-res", CA_CERTS: "csrattrs-res", ATTRIBUTES: "simpleenroll-res", ENROLL: ""}


@pytest.mark.parametrize(
    ("step", "word"),
    [(step, word) for step, expected in EXPECTED.items() for word in ANSWERS if word != expected or not word],
)
def test_what_was_not_asked_for_is_refused(step: int, word: str) -> None:
    device = Device().at(step)
    assert "not asked for" in refuses(device, word, ANSWERS[word])


@pytest.mark.parametrize("word", ANSWERS)
def test_nothing_is_taken_before_the_module_is_active(word: str) -> None:
    refuses(Device(), word, ANSWERS[word])


def test_a_key_of_the_owner_is_never_asked_for_and_never_taken() -> None:
    for step in (BEGIN, CA_CERTS, ATTRIBUTES):
        refuses(Device().at(step), "serverkeygen-res", ANSWERS["serverkeygen-res"])


# --- the ways of writing


@each_way
def test_ca_certificates_are_read_however_they_are_written(write: Callable[[bytes], Any]) -> None:
    device = Device().at(BEGIN)
    device.hears("cacerts-res", write(CA_CERTIFICATES))
    assert set(device.module.ca_certificates) == {ROOT.certificate, ISSUING.certificate}


@each_way
def test_ca_certificates_may_be_one_certificate(write: Callable[[bytes], Any]) -> None:
    device = Device().at(BEGIN)
    device.hears("cacerts-res", write(der(ROOT.certificate)))
    assert device.module.ca_certificates == (ROOT.certificate,)


@each_way
def test_a_certificate_is_read_however_it_is_written(write: Callable[[bytes], Any]) -> None:
    device = Device().at(ATTRIBUTES)
    device.hears("simpleenroll-res", write(der(CERTIFICATE)))
    assert device.module.certificates == (CERTIFICATE,)


@each_way
def test_a_certificate_may_come_with_its_chain(write: Callable[[bytes], Any]) -> None:
    device = Device().at(ATTRIBUTES)
    chain = pkcs7.serialize_certificates([CERTIFICATE, ISSUING.certificate], Encoding.DER)
    device.hears("simpleenroll-res", write(chain))
    assert set(device.module.certificates) == {CERTIFICATE, ISSUING.certificate}


def altered(old: bytes, new: bytes) -> x509.Certificate:
    """A certificate of a CA that can be loaded, and parts of which cannot be read."""
    return x509.load_der_x509_certificate(der(HospitalCa("Strange CA").certificate).replace(old, new))


P_256_OID = bytes.fromhex("2a8648ce3d030107")
UNREADABLE = {
    "no UTF-8": altered(b"Strange", b"\xff" * 7),
    "unknown curve": altered(P_256_OID, P_256_OID[:-1] + b"\x77"),
}


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
def test_a_certificate_that_cannot_be_read_is_left_out(unreadable: x509.Certificate) -> None:
    """`cryptography` reads names and keys when they are asked for, which is anywhere."""
    device = Device().at(BEGIN)
    refuses(device, "cacerts-res", der(unreadable))
    device.hears("cacerts-res", pkcs7.serialize_certificates([ROOT.certificate, unreadable], Encoding.DER))
    assert device.module.ca_certificates == (ROOT.certificate,)


def test_each_certificate_came_once() -> None:
    device = Device().at(ATTRIBUTES)
    chain = pkcs7.serialize_certificates([CERTIFICATE, ISSUING.certificate], Encoding.DER)
    device.hears("simpleenroll-res", in_base64(chain))
    assert len(device.module.came) == 3
    assert set(device.module.came) == {CERTIFICATE, ISSUING.certificate, ROOT.certificate}


@pytest.mark.parametrize("fits", [True, False])
def test_those_of_the_ca_and_the_one_that_is_issued_are_as_many_as_are_taken(*, fits: bool) -> None:
    """More would be refused afterwards, when the owner has gone: `enroll.trust`, check 1."""
    count = CERTIFICATES_LIMIT - 1 if fits else CERTIFICATES_LIMIT
    others = [HospitalCa(f"CA {number}").certificate for number in range(count)]
    device = Device().at(BEGIN)
    device.hears("cacerts-res", in_base64(pkcs7.serialize_certificates(others, Encoding.DER)))
    device.hears("csrattrs-res", "MAA=")
    if fits:
        device.hears("simpleenroll-res", in_base64(der(CERTIFICATE)))
        assert len(device.module.came) == CERTIFICATES_LIMIT
    else:
        assert "more than 10 certificates" in refuses(device, "simpleenroll-res", in_base64(der(CERTIFICATE)))
        assert not device.module.is_complete


@each_way
def test_attributes_are_read_however_they_are_written(write: Callable[[bytes], Any]) -> None:
    device = Device().at(CA_CERTS)
    device.hears("csrattrs-res", write(csr_attributes((ORGANIZATION, text("Example Hospital")))))
    ((wanted,),) = [each.owners_names for each in device.wanted]
    assert (wanted.rfc4514_attribute_name, wanted.value) == ("O", "Example Hospital")


@pytest.mark.parametrize("nothing", ["", b"", "\r\n", "MAA=", b"\x30\x00"])
def test_attributes_may_want_nothing(nothing: str | bytes) -> None:
    device = Device().at(CA_CERTS)
    ((word, _),) = device.hears("csrattrs-res", nothing)
    assert (word, device.wanted) == ("simpleenroll-req", [WantedAttributes()])


def test_what_the_ca_wants_and_does_not_get_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    device = Device().at(CA_CERTS)
    device.hears("csrattrs-res", csr_attributes(EMAIL_ADDRESS, CHALLENGE_PASSWORD, (EC_PUBLIC_KEY, oid(P_384))))
    assert "the CA wants it: emailAddress, challengePassword" in caplog.text
    assert "another kind of key: p-384" in caplog.text


def test_where_another_kind_of_key_is_wanted_a_refusal_says_so() -> None:
    device = Device().at(CA_CERTS)
    device.hears("csrattrs-res", csr_attributes((EC_PUBLIC_KEY, oid(P_384))))
    with pytest.raises(EnrollmentRefused) as refusal:
        device.hears("error", 2)
    assert "The CA wants keys of this kind: p-384." in refusal.value.remedy


GARBAGE: dict[str, Any] = {
    "nothing": "",
    "no bytes": b"",
    "blanks": " \n",
    "no base64": "!!!!",
    "half of base64": in_base64(der(CERTIFICATE))[:-3],
    "base64 of text": in_base64(b"certificate"),
    "an empty sequence": b"\x30\x00",
    "DER cut off": der(CERTIFICATE)[:-1],
    "DER with a byte more": der(CERTIFICATE) + b"\x00",
    "two certificates": der(CERTIFICATE) * 2,
    "two in PEM": armoured(der(CERTIFICATE), "CERTIFICATE") * 2,
    "a list that is empty": EMPTY_LIST,
    "a list that is too long": pkcs7.serialize_certificates([CERTIFICATE] * (CERTIFICATES_LIMIT + 1), Encoding.DER),
    "a request": REQUEST.public_bytes(Encoding.DER),
    "zeros": bytes(60_000),
    "a number": 281,
    "null": None,
    "true": True,
    "an array": [der(CERTIFICATE)],
    "a map": {1: der(CERTIFICATE)},
    "a tag": codec.read(b"\xd9\xd9\xf6\x40"),
}


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize(("step", "word"), [(BEGIN, "cacerts-res"), (ATTRIBUTES, "simpleenroll-res")])
def test_what_is_no_certificate_is_refused(step: int, word: str, value: Any) -> None:
    device = Device().at(step)
    refuses(device, word, value)
    assert device.module.certificates == ()
    assert not device.module.is_complete


NO_ATTRIBUTES = {name: value for name, value in GARBAGE.items() if name not in ("nothing", "no bytes", "blanks")}
NO_ATTRIBUTES.pop("an empty sequence")


@pytest.mark.parametrize("value", NO_ATTRIBUTES.values(), ids=NO_ATTRIBUTES)
def test_what_are_no_attributes_is_refused(value: Any) -> None:
    device = Device().at(CA_CERTS)
    refuses(device, "csrattrs-res", value)
    assert device.wanted == []


# --- the errors

REASONS = {
    1: "does not understand",
    2: "may not have",
    3: "does not do that",
    4: "too often",
    5: "another format",
    6: "error 6",
    255: "error 255",
}


@pytest.mark.parametrize(("code", "reason"), REASONS.items())
def test_an_error_instead_of_a_certificate_is_a_refusal(code: int, reason: str) -> None:
    with pytest.raises(EnrollmentRefused, match=reason):
        Device().at(ATTRIBUTES).hears("error", code)


@pytest.mark.parametrize("code", REASONS)
def test_attributes_need_not_be_known(code: int) -> None:
    device = Device().at(CA_CERTS)
    ((word, _),) = device.hears("error", code)
    assert (word, device.wanted) == ("simpleenroll-req", [WantedAttributes()])


def test_where_there_is_no_list_of_ca_certificates_one_is_asked_for() -> None:
    device = Device().at(BEGIN)
    assert device.hears("error", 5) == [("cacerts-req", 287)]
    assert device.hears("cacerts-res", in_base64(der(ROOT.certificate))) == [("csrattrs-req", 0)]
    assert device.module.ca_certificates == (ROOT.certificate,)


def test_where_there_is_neither_it_is_a_refusal() -> None:
    device = Device().at(BEGIN)
    device.hears("error", 5)
    with pytest.raises(EnrollmentRefused, match="another format"):
        device.hears("error", 5)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_without_ca_certificates_it_is_a_refusal(code: int) -> None:
    with pytest.raises(EnrollmentRefused):
        Device().at(BEGIN).hears("error", code)


@pytest.mark.parametrize("code", [256, -1, "1", None, 2**63])
def test_an_error_is_a_small_number(code: Any) -> None:
    refuses(Device().at(ATTRIBUTES), "error", code)


def test_an_error_without_a_question_is_refused() -> None:
    refuses(Device(), "error", 1)
    refuses(Device().at(ENROLL), "error", 1)


# --- in a session


def onboard(owner: ScriptedCsr, *, renews: bool = False) -> tuple[Onboarding, list[ErrorMessage], CertificateModule]:
    case = Onboarding.new(new_key(), new_key(), new_key(), owner)
    channel = ScriptedChannel(case.owner)
    module = CertificateModule(lambda _: REQUEST, renews=renews)
    try:
        case.run(channel, [module])
    finally:
        assert case.owner.is_done is module.is_complete
    return case, channel.reported, module


@pytest.mark.parametrize("renews", [True, False])
def test_a_certificate_comes_from_an_owner_written_from_the_facts_alone(*, renews: bool) -> None:
    owner = ScriptedCsr()
    _, reported, module = onboard(owner, renews=renews)
    assert (reported, len(owner.requests), len(module.certificates)) == ([], 1, 1)
    assert module.certificates[0].public_key() == KEY.public_key()


class Refusing(ScriptedCsr):
    """Says no instead of a certificate."""

    def _hear(self, key: str, value: Any) -> None:
        if key == "fdo.csr:simpleenroll-req":
            self.say("fdo.csr:error", 2)
        else:
            super()._hear(key, value)


def test_a_refusal_of_the_ca_ends_the_session_and_the_owner_is_told() -> None:
    case = Onboarding.new(new_key(), new_key(), new_key(), Refusing())
    channel = ScriptedChannel(case.owner)
    with pytest.raises(EnrollmentRefused, match="may not have"):
        case.run(channel)
    assert [(each.previous, each.code) for each in channel.reported] == [(69, ErrorCode.INTERNAL)]
    assert not case.owner.is_done


class Hasty(ScriptedCsr):
    """Is done as soon as it has heard a request, without an answer to it."""

    def reply(self, pieces: Sequence[tuple[str, bytes]], *, is_more: bool) -> Said:
        said = super().reply(pieces, is_more=is_more)
        return Said(is_more=False, is_done=True) if self.requests else said


def test_a_session_does_not_end_without_the_certificate() -> None:
    case = Onboarding.new(new_key(), new_key(), new_key(), Hasty())
    channel = ScriptedChannel(case.owner)
    with pytest.raises(Exception, match="has not given a certificate"):
        case.run(channel)
    assert [(each.previous, each.code) for each in channel.reported] == [(69, ErrorCode.INVALID_MESSAGE)]
