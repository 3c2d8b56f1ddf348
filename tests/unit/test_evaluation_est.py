"""The evaluation EST server wants what its options say, and nothing is issued to those who do not show it."""

from __future__ import annotations

import base64
import http.client
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.anchors import KeptAnchors
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import StateError
from enroll.evaluation.ca import ROOTS_LIMIT, EvaluationCa
from enroll.evaluation.est_approval import WAITING_LIMIT
from enroll.evaluation.est_attributes import CsrAttributes, csr_attributes
from enroll.evaluation.est_authentication import Authentication
from enroll.evaluation.est_server import EstServer
from enroll.statefile import StateFiles
from enroll.trust import verify_chain
from tests.support.est_client import REQUEST, Client, basic, client_file, connected, linked
from tests.support.pki import DEVICE, HospitalCa, name, new_key

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def ca(tmp_path: Path) -> EvaluationCa:
    return EvaluationCa.create_or_open(tmp_path / "ca", SystemClock())


def device_file(ca: EvaluationCa, folder: Path) -> Path:
    return client_file(folder, lambda key: ca.issue(build(key, REQUEST)))


# --- labels (RFC 7030 3.2.2)


def test_a_label_that_is_not_served_is_not_found(ca: EvaluationCa) -> None:
    with connected(ca, labels=("imaging",)) as client:
        assert client.get("imaging/cacerts").status == 200
        assert client.enroll(build(new_key(), REQUEST), "imaging/simpleenroll", basic(ca)).status == 200
        for other in ("", "other/", "/", "imaging/imaging/", "Imaging/"):
            assert client.get(f"{other}cacerts").status == 404
            assert client.enroll(build(new_key(), REQUEST), f"{other}simpleenroll", basic(ca)).status == 404


def test_several_labels_and_none(ca: EvaluationCa) -> None:
    with connected(ca, labels=("", "imaging")) as client:
        assert client.get("cacerts").status == client.get("imaging/cacerts").status == 200


# --- who asks (RFC 7030 3.2.3 and 3.3.2)


def test_a_password_that_is_asked_for_on_the_same_connection(ca: EvaluationCa) -> None:
    with connected(ca) as client:
        refused = client.enroll(build(new_key(), REQUEST))
        assert refused.status == 401
        assert refused.headers.get_all("WWW-Authenticate") == ['Basic realm="evaluation"']
        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 200


def test_nothing_is_asked_for(ca: EvaluationCa) -> None:
    with connected(ca, authentication=Authentication.NONE) as client:
        assert client.enroll(build(new_key(), REQUEST)).status == 200


@pytest.mark.parametrize("way", [Authentication.CERTIFICATE, Authentication.CERTIFICATE_AND_BASIC])
def test_a_password_alone_does_not_do(ca: EvaluationCa, way: Authentication) -> None:
    with connected(ca, authentication=way) as client:
        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 401


def test_a_certificate_alone_does(ca: EvaluationCa, tmp_path: Path) -> None:
    with connected(ca, device_file(ca, tmp_path), authentication=Authentication.CERTIFICATE) as client:
        assert client.enroll(build(new_key(), REQUEST)).status == 200


def test_certificate_and_password_together(ca: EvaluationCa, tmp_path: Path) -> None:
    with connected(ca, device_file(ca, tmp_path), authentication=Authentication.CERTIFICATE_AND_BASIC) as client:
        assert client.enroll(build(new_key(), REQUEST)).status == 401
        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 200


def test_a_factory_identity_enrolls_for_its_serial_number_and_renews_nothing(ca: EvaluationCa, tmp_path: Path) -> None:
    vendor = HospitalCa("Vendor CA")
    subject = name(ORGANIZATION_NAME="Vendor", SERIAL_NUMBER=DEVICE.serial_number)
    factory = client_file(tmp_path, lambda key: vendor.issue(key.public_key(), subject=subject, extended_usage=()))
    options: dict[str, Any] = {"authentication": Authentication.CERTIFICATE, "vendors": (vendor.certificate,)}

    with connected(ca, factory, None, **options) as client:
        assert client.enroll(build(new_key(), REQUEST)).status == 200
        other = CertificateRequest("x", "CT-000124", "", Usage.DEVICE)
        assert client.enroll(build(new_key(), other)).status == 403
        assert client.enroll(build(new_key(), REQUEST), "simplereenroll").status == 401
    with pytest.raises((OSError, http.client.HTTPException)), connected(ca, factory) as client:
        client.enroll(build(new_key(), REQUEST))  # of a vendor who is not known


def test_a_client_whose_certificate_is_refused_reads_why(ca: EvaluationCa, tmp_path: Path) -> None:
    """RFC 8446 6.2. Where a socket is closed with the request unread, one alert in three is lost."""
    vendor = HospitalCa("Vendor CA")
    factory = client_file(tmp_path, lambda key: vendor.issue(key.public_key(), extended_usage=()))
    with EstServer(ca) as server:
        for _ in range(20):
            client = Client(server, factory, TLS_1_3)
            with pytest.raises(ssl.SSLError, match="unknown ca"):
                client.get("cacerts")
            client.connection.close()


def test_a_vendor_wide_certificate_enrolls_nobody(ca: EvaluationCa, tmp_path: Path) -> None:
    vendor = HospitalCa("Vendor CA")
    subject = name(ORGANIZATION_NAME="Vendor")
    wide = client_file(tmp_path, lambda key: vendor.issue(key.public_key(), subject=subject, extended_usage=()))

    with connected(ca, wide, vendors=(vendor.certificate,)) as client:
        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 403


def test_a_device_that_is_refused_gets_nothing(ca: EvaluationCa) -> None:
    with connected(ca, refused_serial_numbers=frozenset({DEVICE.serial_number})) as client:
        answer = client.enroll(build(new_key(), REQUEST), authorization=basic(ca))
        assert (answer.status, answer.headers.get_content_type()) == (403, "text/plain")
        other = CertificateRequest("x", "CT-000124", "", Usage.DEVICE)
        assert client.enroll(build(new_key(), other), authorization=basic(ca)).status == 200


# --- proof of possession (RFC 7030 3.5)


def test_a_request_has_to_be_linked_to_its_connection(ca: EvaluationCa) -> None:
    with (
        connected(ca, version=TLS_1_2, proof_of_possession=True) as client,
        connected(ca, version=TLS_1_2) as another,
    ):
        assert base64.b64decode(client.get("csrattrs").body) == csr_attributes(CsrAttributes.NONE, linked=True)
        for wrong in (build(new_key(), REQUEST), linked(another.unique), linked("x")):
            assert client.enroll(wrong, authorization=basic(ca)).status == 401
        assert client.enroll(linked(client.unique), authorization=basic(ca)).status == 200


def test_what_is_stated_of_the_connection_must_be_true_even_where_nobody_asked(ca: EvaluationCa) -> None:
    with connected(ca, version=TLS_1_2) as client:
        assert client.enroll(linked("x"), authorization=basic(ca)).status == 401
        assert client.enroll(linked(client.unique), authorization=basic(ca)).status == 200


def test_there_is_no_link_over_tls_1_3(ca: EvaluationCa) -> None:
    """RFC 9266 1. Python gives something by the name of tls-unique there, too."""
    with connected(ca, version=TLS_1_3, proof_of_possession=True) as client:
        assert client.unique
        for request in (build(new_key(), REQUEST), linked(client.unique)):
            answer = client.enroll(request, authorization=basic(ca))
            assert answer.status == 401
            assert b"TLS 1.2 only" in answer.body


@pytest.mark.parametrize(("spoken", "other"), [(TLS_1_2, TLS_1_3), (TLS_1_3, TLS_1_2)])
def test_one_version_of_tls(ca: EvaluationCa, spoken: ssl.TLSVersion, other: ssl.TLSVersion) -> None:
    with connected(ca, version=spoken, tls_version=spoken) as client:
        assert client.get("cacerts").status == 200
    with pytest.raises(ssl.SSLError), connected(ca, version=other, tls_version=spoken):
        pass


# --- csrattrs (RFC 7030 4.5.2, RFC 9908), read by another library


@pytest.mark.parametrize("form", list(CsrAttributes))
@pytest.mark.parametrize("link", [False, True], ids=["not linked", "linked"])
def test_what_is_wanted_can_be_read_by_others(ca: EvaluationCa, form: CsrAttributes, *, link: bool) -> None:
    with connected(ca, attributes=form, proof_of_possession=link) as client:
        answer = client.get("csrattrs")
    if form is CsrAttributes.NONE and not link:
        assert (answer.status, answer.body) == (204, b"")
        return

    modules = "pyasn1_alt_modules is missing: pip install pyasn1-alt-modules"
    rfc7030, rfc9908 = (pytest.importorskip(f"pyasn1_alt_modules.rfc{rfc}", reason=modules) for rfc in (7030, 9908))
    decoder = pytest.importorskip("pyasn1.codec.der.decoder", reason=modules)
    assert answer.headers.get_content_type() == "application/csrattrs"
    wanted, rest = decoder.decode(base64.b64decode(answer.body), asn1Spec=rfc7030.CsrAttrs())
    assert not rest
    named = [str(item["oid"] if item.getName() == "oid" else item["attribute"]["attrType"]) for item in wanted]
    assert ("1.2.840.113549.1.9.7" in named) == link
    if form is CsrAttributes.ATTRIBUTES:
        (value,) = wanted[len(wanted) - 1]["attribute"]["attrValues"]
        (extension,) = decoder.decode(bytes(value), asn1Spec=rfc9908.rfc5280.Extensions())[0]
        assert str(extension["extnID"]) == "2.5.29.15"
    if form is CsrAttributes.TEMPLATE:
        (value,) = wanted[len(wanted) - 1]["attribute"]["attrValues"]
        template, rest = decoder.decode(bytes(value), asn1Spec=rfc9908.CertificationRequestInfoTemplate())
        assert not rest
        kinds = [str(attribute["type"]) for attribute in template["attributes"]]
        assert kinds == ["1.2.840.113549.1.9.7"] * link + ["1.2.840.113549.1.9.16.2.62"]


# --- approval by hand (RFC 7030 4.2.3)


def test_a_request_waits_until_it_is_approved(ca: EvaluationCa) -> None:
    request = build(new_key(), REQUEST)
    with connected(ca, approve_by_hand=True, retry_after="600") as client:
        approvals = client.server.approvals
        waiting = client.enroll(request, authorization=basic(ca))
        assert (waiting.status, waiting.headers["Retry-After"]) == (202, "600")
        assert client.enroll(request, authorization=basic(ca)).status == 202
        (known,) = approvals.waiting()
        assert x509.load_pem_x509_csr((ca.directory / "waiting" / f"{known}.pem").read_bytes()) == request

        (ca.directory / "approved" / known).touch()

        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 202
        answer = client.enroll(request, authorization=basic(ca))
        assert answer.certificates[0].public_key() == request.public_key()
        assert known not in approvals.waiting()


def test_without_proof_nothing_waits(ca: EvaluationCa) -> None:
    with connected(ca, approve_by_hand=True) as client:
        assert client.enroll(build(new_key(), REQUEST)).status == 401
        assert client.server.approvals.waiting() == []


def test_the_log_says_how_to_approve(ca: EvaluationCa) -> None:
    lines: list[str] = []
    with connected(ca, approve_by_hand=True) as client:
        client.server.log = lines.append
        client.enroll(build(new_key(), REQUEST), authorization=basic(ca))

    (line,) = (line for line in lines if "To approve" in line)
    assert f"touch {ca.directory}/approved/" in line


def test_the_number_of_those_that_wait_is_bounded(ca: EvaluationCa) -> None:
    with connected(ca, approve_by_hand=True) as client:
        codes = [client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status for _ in range(WAITING_LIMIT)]
        assert set(codes) == {202}
        assert client.enroll(build(new_key(), REQUEST), authorization=basic(ca)).status == 400


# --- a new key of the CA (RFC 7030 4.1.3, RFC 9810 4.4)


def test_after_a_roll_over_each_root_leads_to_the_other(ca: EvaluationCa) -> None:
    before = ca.issue(build(new_key(), REQUEST))
    ca.roll_over()
    after = ca.issue(build(new_key(), REQUEST))

    with connected(ca) as client:  # who knows nothing but the first root
        offered = client.get("cacerts").certificates
    links = set(offered) - set(ca.roots)
    assert (len(offered), len(links)) == (4, 2)
    for root in ca.roots:
        for certificate in (before, after):
            verify_chain(certificate, links, [root], ca.clock.now())


def test_who_was_away_for_several_roll_overs_finds_the_way(ca: EvaluationCa, tmp_path: Path) -> None:
    before = ca.issue(build(new_key(), REQUEST))
    for _ in range(ROOTS_LIMIT - 1):
        ca.roll_over()

    with connected(ca) as client:
        offered = client.get("cacerts").certificates
    anchors = KeptAnchors(tmp_path, StateFiles()).roll_over("est", ca.roots[:1], offered, ca.clock.now())

    assert anchors == ca.roots
    for certificate in (before, ca.issue(build(new_key(), REQUEST))):
        verify_chain(certificate, offered, anchors, ca.clock.now())


def test_it_is_the_same_when_it_is_opened_again(ca: EvaluationCa) -> None:
    ca.roll_over()

    again = EvaluationCa.create_or_open(ca.directory, SystemClock())

    assert (again.roots, again.certificate) == (ca.roots, ca.certificate)
    assert again.certificate != x509.load_pem_x509_certificate(again.anchor_file.read_bytes())


def test_devices_of_the_old_root_are_known_after_a_roll_over(ca: EvaluationCa, tmp_path: Path) -> None:
    device = device_file(ca, tmp_path)
    certificate = x509.load_pem_x509_certificate(device.read_bytes())
    ca.roll_over()

    with connected(ca, device) as client:
        renewed = client.enroll(build(new_key(), REQUEST, certificate), "simplereenroll")

    assert renewed.status == 200
    renewed.certificates[0].verify_directly_issued_by(ca.roots[1])


def test_keys_come_to_an_end(ca: EvaluationCa) -> None:
    for _ in range(ROOTS_LIMIT - 1):
        ca.roll_over()

    with pytest.raises(StateError, match="no more"):
        ca.roll_over()


# --- bodies (RFC 8951 3)


def test_bodies_are_base64_with_any_white_space_and_nothing_else(ca: EvaluationCa) -> None:
    request = build(new_key(), REQUEST).public_bytes(serialization.Encoding.DER)
    wrapped, one_line = base64.encodebytes(request), base64.b64encode(request)
    armoured = b"-----BEGIN CERTIFICATE REQUEST-----\n" + wrapped + b"-----END CERTIFICATE REQUEST-----\n"
    headers = {"Content-Type": "application/pkcs10", "Authorization": basic(ca)}
    with connected(ca) as client:
        for body in (wrapped, one_line, wrapped.replace(b"\n", b" \t\r\n")):
            assert client.send("POST", "simpleenroll", body, headers).status == 200
        for body in (armoured, request, one_line[:-8], base64.b64encode(request + b"\x00")):
            assert client.send("POST", "simpleenroll", body, headers).status == 400
        other = {**headers, "Content-Type": "application/octet-stream"}
        assert client.send("POST", "simpleenroll", wrapped, other).status == 415
