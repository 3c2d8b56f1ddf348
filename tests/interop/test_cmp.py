"""CMP against the server of OpenSSL, which parses and verifies what this side sends, and signs what it answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.certificates import pem
from enroll.config import IdentitiesSettings, IdentitySettings, KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import CertificateRefused, EnrollmentRefused, ProtocolViolation, ServerUnreachable
from enroll.flows.base import Pending
from enroll.flows.cmp.revoke import revoke
from enroll.flows.settings import CmpFirstRequest, FlowName
from enroll.identity import Generation, IdentityName
from enroll.issue import NotAsked
from tests.support.cmp_scanner import Site, site
from tests.support.cmp_server import parsed_message
from tests.support.enrolling import Keyholder, settings, with_memory_key
from tests.support.openssl import openssl
from tests.support.pki import HospitalCa, new_key
from tests.support.softhsm import softhsm_of_this_process

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
NOT_ISSUED = ["-pkistatus", "2"]  # PKIStatus rejection


def ask(site: Site, identity: IdentityName = DEVICE) -> Generation | Pending | NotAsked:
    """One run of the enroller, as after a restart."""
    with Enroller(site.scanner.restarted().context) as enroller:
        return enroller.enroll(identity, FlowName.CMP)


def enrolled(site: Site, identity: IdentityName = DEVICE) -> Generation:
    answer = ask(site, identity)
    assert isinstance(answer, Generation)
    assert site.scanner.matching_pair(identity) == answer
    return answer


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as running:
        yield running


def signers(hospital: Site) -> list[int]:
    """The serial numbers of who signed, as another reader finds them: the first of extraCerts (RFC 9483 3.3)."""
    messages = map(parsed_message, hospital.server.requests)
    return [int(message["extraCerts"][0]["tbsCertificate"]["serialNumber"]) for message in messages]


def test_the_first_certificate_is_asked_for_with_the_factory_identity(hospital: Site) -> None:
    """RFC 9483 4.1.1."""
    generation = enrolled(hospital)

    assert hospital.server.bodies == ["ir", "certConf"]
    assert generation.flow == FlowName.CMP
    factory = hospital.current(IdentityName.IDEVID).certificate
    assert set(signers(hospital)) == {factory.serial_number}


def test_a_renewal_is_signed_by_the_certificate_that_is_renewed(hospital: Site) -> None:
    """RFC 9483 4.1.3; OpenSSL compares the control oldCertID."""
    first = enrolled(hospital)

    second = enrolled(hospital)

    assert hospital.server.bodies[2:] == ["kur", "certConf"]
    assert set(signers(hospital)[2:]) == {first.certificate.serial_number}
    assert second.key_uri != first.key_uri


def test_other_identities_are_asked_for_with_the_device_identity(hospital: Site) -> None:
    """RFC 9483 4.1.2. What signs images signs no messages, also when it is renewed."""
    device = enrolled(hospital)

    for _ in range(2):
        enrolled(hospital, SIGNING)

    assert hospital.server.bodies[2:] == ["cr", "certConf"] * 2
    assert set(signers(hospital)[2:]) == {device.certificate.serial_number}


def test_a_pkcs10_is_sent_where_the_ca_wants_one(hospital: Site) -> None:
    """RFC 9483 4.1.4."""
    with_pkcs10 = hospital.with_cmp(first_request=CmpFirstRequest.P10CR)

    enrolled(with_pkcs10)

    assert hospital.server.bodies == ["p10cr", "certConf"]


def test_a_key_that_only_the_agent_has_is_asked_for_by_pkcs10(tmp_path: Path) -> None:
    with site(tmp_path, changes=with_memory_key(settings(tmp_path))) as hospital:
        enrolled(hospital)
        keyholder = Keyholder(hospital.scanner)
        keyholder.offer()

        answer = ask(hospital, SIGNING)

        assert hospital.server.bodies[2:] == ["p10cr", "certConf"]
        assert keyholder.matching_pair() == answer


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384])
@pytest.mark.parametrize("first_request", list(CmpFirstRequest))
def test_every_kind_of_key(tmp_path: Path, algorithm: KeyAlgorithm, first_request: CmpFirstRequest) -> None:
    """Proof of possession, then protection, by the algorithms of RFC 9481 3."""
    wanted = IdentitySettings(key_algorithm=algorithm)
    changes = replace(settings(tmp_path), identity=IdentitiesSettings(device=wanted))
    with site(tmp_path, changes=changes) as hospital:
        chosen = hospital.with_cmp(first_request=first_request)

        enrolled(chosen)
        enrolled(chosen)

        assert hospital.server.bodies == [first_request, "certConf", "kur", "certConf"]


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256])
def test_the_factory_identity_may_be_in_a_token(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, algorithm: KeyAlgorithm
) -> None:
    """Keys that only sign are enough for CMP."""
    softhsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    token = Pkcs11StoreSettings(module=softhsm.proxy, token="through-proxy", pin_file=softhsm.pin_file)
    in_token = IdentitySettings(key_store=StoreName.PKCS11, key_algorithm=algorithm)
    plain = settings(tmp_path)
    keystore = KeyStoreSettings(software=plain.keystore.software, pkcs11=token)
    with site(tmp_path, changes=replace(plain, keystore=keystore), factory=in_token) as hospital:
        enrolled(hospital)

        assert hospital.current(IdentityName.IDEVID).key_uri.startswith("pkcs11:")


def test_a_ca_that_needs_no_confirmation_gets_none(tmp_path: Path) -> None:
    """Implicit confirmation, RFC 9483 4.1.1."""
    with site(tmp_path, "-grant_implicitconf") as hospital:
        enrolled(hospital.with_cmp(implicit_confirmation=True))

        assert hospital.server.bodies == ["ir"]


def test_a_ca_that_does_not_grant_implicit_confirmation_is_told(hospital: Site) -> None:
    enrolled(hospital.with_cmp(implicit_confirmation=True))

    assert hospital.server.bodies == ["ir", "certConf"]


def test_a_ca_that_decides_soon_is_waited_for(tmp_path: Path) -> None:
    """RFC 9483 4.4."""
    with site(tmp_path, "-poll_count", "3", "-check_after", "1") as hospital:
        enrolled(hospital)

        assert hospital.server.bodies == ["ir", "pollReq", "pollReq", "pollReq", "certConf"]


def test_a_transaction_that_waits_goes_on_after_a_restart(tmp_path: Path) -> None:
    """RFC 9483 4.4: by pollReq, not by a second request."""
    with site(tmp_path, "-poll_count", "2", "-check_after", "3600") as hospital:
        waiting = ask(hospital)
        assert isinstance(waiting, Pending)
        assert isinstance(ask(hospital), Pending)  # too early: nothing is sent
        assert hospital.server.bodies == ["ir", "pollReq"]

        hospital.scanner.forget_until(DEVICE)
        enrolled(hospital)

        assert hospital.server.bodies == ["ir", "pollReq", "pollReq", "certConf"]
        names = {bytes(parsed_message(message)["header"]["transactionID"]) for message in hospital.server.requests}
        assert len(names) == 1


def test_a_transaction_that_the_ca_forgot_begins_anew_with_the_same_key(tmp_path: Path) -> None:
    with site(tmp_path, "-poll_count", "2", "-check_after", "3600") as hospital:
        assert isinstance(ask(hospital), Pending)
        journal = hospital.scanner.identities.journal(DEVICE)
        waiting = journal.read()
        hospital.server.restart()
        hospital.server.options = []

        hospital.scanner.forget_until(DEVICE)
        generation = enrolled(hospital)

        assert waiting is not None
        assert generation.key_uri == waiting.key_uri
        assert hospital.server.bodies == ["ir", "pollReq", "pollReq", "ir", "certConf"]


def test_a_certificate_for_another_key_is_refused_and_the_ca_is_told(hospital: Site) -> None:
    """RFC 9810 5.3.18: certConf with the status rejection."""
    hospital.server.issue = lambda asked: hospital.server.as_asked(replace(asked, public_key=new_key().public_key()))

    with pytest.raises(CertificateRefused) as refused:
        ask(hospital)

    assert refused.value.code == "certificate-wrong-key"
    assert hospital.server.bodies == ["ir", "certConf"]
    confirmation = parsed_message(hospital.server.requests[-1])["body"]["certConf"][0]
    assert int(confirmation["statusInfo"]["status"]) == 2
    assert hospital.scanner.identities.current(DEVICE) is None


def test_a_rejection_says_why_and_who_must_act(tmp_path: Path) -> None:
    with site(tmp_path, *NOT_ISSUED, "-failure", "5", "-statusstring", "no\x07 such model") as hospital:
        with pytest.raises(EnrollmentRefused, match=r"badDataFormat: no  ?such model") as refused:
            ask(hospital)

        assert refused.value.who_must_act == "CA operator"
        assert hospital.scanner.identities.journal(DEVICE).read() is None


@pytest.mark.parametrize(
    ("failure", "who"), [("23", "CA operator"), ("20", "CA operator"), ("3", "hospital IT"), ("0", "hospital IT")]
)
def test_the_kind_of_failure_decides_who_must_act(tmp_path: Path, failure: str, who: str) -> None:
    with site(tmp_path, *NOT_ISSUED, "-failure", failure) as hospital:
        with pytest.raises(EnrollmentRefused) as refused:
            ask(hospital)

        assert refused.value.who_must_act == who
        assert refused.value.remedy


@pytest.mark.parametrize("failure", ["24", "25"])
def test_a_ca_that_cannot_issue_now_is_asked_again(tmp_path: Path, failure: str) -> None:
    """They are systemUnavail and systemFailure, which say nothing about the request."""
    with site(tmp_path, *NOT_ISSUED, "-failure", failure) as hospital:
        with pytest.raises(ServerUnreachable, match="cannot issue now"):
            ask(hospital)

        hospital.server.options = []
        enrolled(hospital)


def test_a_rejection_may_come_as_an_error_message(tmp_path: Path) -> None:
    """RFC 9483 3.6.2."""
    with (
        site(tmp_path, *NOT_ISSUED, "-failure", "23", "-send_error") as hospital,
        pytest.raises(EnrollmentRefused, match="badRequest"),
    ):
        ask(hospital)


def test_a_factory_identity_that_the_ca_does_not_know_is_refused(hospital: Site) -> None:
    (hospital.server.folder / "devices.pem").write_bytes((hospital.server.folder / "ca.pem").read_bytes())

    with pytest.raises(EnrollmentRefused, match=r"badRequest.*no suitable sender cert"):
        ask(hospital)


def test_an_error_without_a_signature_is_reported_and_not_believed(tmp_path: Path) -> None:
    with site(tmp_path, *NOT_ISSUED, "-failure", "23", "-send_error", "-send_unprotected") as hospital:
        with pytest.raises(ProtocolViolation, match=r"anybody could have sent.*badRequest"):
            ask(hospital)

        assert hospital.scanner.identities.journal(DEVICE).read() is not None  # the request is still under way


def test_a_certificate_without_a_signature_is_not_believed(tmp_path: Path) -> None:
    with site(tmp_path, "-send_unprotected") as hospital, pytest.raises(ProtocolViolation, match="without protection"):
        ask(hospital)


def test_a_server_of_another_ca_is_not_believed(hospital: Site) -> None:
    anchor_file = hospital.scanner.settings.cmp.anchor_file
    assert anchor_file is not None
    anchor_file.write_bytes(pem([HospitalCa("Another CA").certificate]))

    with (
        pytest.raises(ProtocolViolation, match="signer is not trusted"),
        Enroller(hospital.scanner.context) as enroller,
    ):
        enroller.enroll(DEVICE, FlowName.CMP)


def test_a_certificate_is_given_up(hospital: Site) -> None:
    """RFC 9483 4.2: signed by the certificate that is revoked, with the reason."""
    generation = enrolled(hospital)

    revoke(DEVICE, x509.ReasonFlags.superseded, hospital.scanner.context)

    assert hospital.server.bodies[-1] == "rr"
    assert signers(hospital)[-1] == generation.certificate.serial_number
    (extension,) = parsed_message(hospital.server.requests[-1])["body"]["rr"][0]["crlEntryDetails"]
    assert bytes(extension["extnValue"]) == bytes.fromhex("0a0104")  # superseded, RFC 5280 5.3.1


def test_a_ca_that_does_not_revoke_says_so(hospital: Site) -> None:
    enrolled(hospital)
    hospital.server.options = [*NOT_ISSUED, "-failure", "23"]
    hospital.server.restart()

    with pytest.raises(EnrollmentRefused, match="notAuthorized"):
        revoke(DEVICE, x509.ReasonFlags.unspecified, hospital.scanner.context)


def test_what_was_issued_before_a_kill_is_confirmed_after_it(hospital: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is on disk before certConf is sent; nothing is asked for twice."""

    class Killed(BaseException):
        pass

    @contextmanager
    def killed_before_confirming() -> Iterator[None]:
        with monkeypatch.context() as patch:

            def confirm(*_: object) -> None:
                raise Killed

            patch.setattr("enroll.flows.cmp.CmpFlow.confirm", confirm)
            yield

    with killed_before_confirming(), pytest.raises(Killed):
        ask(hospital)
    assert hospital.server.bodies == ["ir"]

    enrolled(hospital)

    assert hospital.server.bodies == ["ir", "certConf"]


def test_a_confirmation_that_the_ca_no_longer_wants_does_not_stop_the_certificate(
    hospital: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def forget_before_confirming(answer: bytes) -> bytes:
        hospital.server.restart()
        return answer

    hospital.server.rewrite = forget_before_confirming

    with caplog.at_level(logging.WARNING):
        enrolled(hospital)

    assert "its confirmation failed" in caplog.text


def reads_as(hospital: Site, index: int) -> str:
    path = hospital.server.folder / "message.der"
    path.write_bytes(hospital.server.requests[index])
    return openssl("asn1parse", "-inform", "DER", "-in", path)


def test_others_read_the_messages(hospital: Site) -> None:
    """A second and a third reader beside the server: `openssl asn1parse`, and pyasn1 with the modules of RFC 9810."""
    enrolled(hospital)
    enrolled(hospital)

    for index, message in enumerate(hospital.server.requests):
        assert "CT-000123" in reads_as(hospital, index)
        header = parsed_message(message)["header"]
        assert int(header["pvno"]) == 2
        assert len(bytes(header["transactionID"])) == len(bytes(header["senderNonce"])) == 16


def test_nothing_to_sign_with_is_said_before_anything_is_sent(hospital: Site) -> None:
    hospital.scanner.identities.wipe(IdentityName.IDEVID)

    with pytest.raises(Exception, match="scanseal enroll vendor"):
        ask(hospital)

    assert hospital.server.bodies == []
