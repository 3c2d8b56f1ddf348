"""Whatever an EST server answers: nothing wrong is ever put into use, and the error says what happened.

The scanner of these tests has a device identity and asks for a new one. Afterwards the old one must be in use.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll import der
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage
from enroll.enroller import Enroller
from enroll.errors import (
    CertificateRefused,
    EnrollmentError,
    EnrollmentRefused,
    ProtocolViolation,
    ScansealError,
    ServerUnreachable,
)
from enroll.flows.base import Pending
from enroll.flows.settings import EstSettings, FlowName
from enroll.http import BODY_LIMIT
from enroll.identity import Generation, IdentityName
from tests.support.csr_attributes import EC_PUBLIC_KEY, P_384, csr_attributes, oid
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import DEVICE, Content, HospitalCa, name, new_key
from tests.support.scripted_server import (
    CERTS_ONLY,
    LOOPBACK,
    Request,
    Script,
    ScriptedServer,
    answer,
    bag,
    certs_only,
)

CA = HospitalCa()
ANCHORS = (CA.certificate,)
CSRATTRS = "application/csrattrs"
PASSWORD = "Tr0ub4dor&3"
REQUEST = CertificateRequest.for_device(DEVICE, Usage.DEVICE)
BASIC = f"Basic {base64.b64encode(f'scanner:{PASSWORD}'.encode()).decode()}"
SECONDS = 1  # the deadline of these tests

Enroll = Callable[[Request], bytes | Iterator[bytes]]


class Server:
    """Answers cacerts and csrattrs properly and an enrollment as `enroll` says."""

    def __init__(self) -> None:
        self.enroll: Enroll = honest
        self.cacerts: Enroll = lambda _: bag(CA.certificate)
        self.csrattrs: Enroll = lambda _: answer(status="204 No Content")

    def __call__(self, request: Request) -> bytes | Iterator[bytes]:
        operation = request.path.rpartition("/")[2]
        return {"cacerts": self.cacerts, "csrattrs": self.csrattrs}.get(operation, self.enroll)(request)


def issued(request: Request, issuer: HospitalCa = CA, **changes: Any) -> x509.Certificate:
    """What the device asked for, with changes."""
    content = Content.asked(REQUEST, datetime.now(UTC))
    key = request.csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return issuer.issue(key, content, **changes)


def honest(request: Request) -> bytes:
    """Who shows no certificate is asked for the password."""
    if request.client is None and "authorization" not in request.headers:
        return challenge('Basic realm="est"')
    return bag(issued(request))


def challenge(*challenges: str) -> bytes:
    headers = (f"WWW-Authenticate: {one}" for one in challenges)
    return answer(b"Who are you?", "401 Unauthorized", "text/plain", *headers)


def message(request: Request) -> bytes:
    return certs_only(issued(request))


def base64_of(data: bytes) -> bytes:
    return answer(base64.encodebytes(data))


@pytest.fixture
def script() -> Server:
    return Server()


@pytest.fixture
def server(script: Script, tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(CA, tmp_path, script) as running:
        yield running


@pytest.fixture
def new_scanner(server: ScriptedServer, tmp_path: Path) -> Scanner:
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o600)
    est = EstSettings(url=server.url, username="scanner", password_file=password_file, timeout=SECONDS)
    return Scanner(settings(tmp_path, est), ANCHORS, SystemClock())


@pytest.fixture
def scanner(new_scanner: Scanner) -> Scanner:
    new_scanner.enroll(IdentityName.DEVICE)
    return new_scanner


def refusal(scanner: Scanner) -> ScansealError:
    """Ask for a new device identity, which must fail and leave the old one in use."""
    before = scanner.matching_pair(IdentityName.DEVICE)
    with pytest.raises(EnrollmentError) as error:
        scanner.enroll(IdentityName.DEVICE)
    assert scanner.matching_pair(IdentityName.DEVICE) == before
    assert error.value.what
    assert error.value.remedy
    assert PASSWORD not in repr(error.value) + str(error.value)
    return error.value


# --- certificates that must not be used


def past(request: Request) -> bytes:
    now = datetime.now(UTC)
    return bag(issued(request, begin=now - timedelta(days=2), end=now - timedelta(days=1)))


def future(request: Request) -> bytes:
    return bag(issued(request, begin=datetime.now(UTC) + timedelta(days=1)))


@pytest.mark.parametrize(
    ("enroll", "code"),
    [
        pytest.param(
            lambda _: bag(CA.issue(new_key().public_key(), Content.asked(REQUEST, datetime.now(UTC)))),
            "certificate-wrong-key",
            id="wrong key",
        ),
        pytest.param(lambda r: bag(r.client), "certificate-wrong-key", id="the old certificate again"),
        pytest.param(lambda r: bag(issued(r), issued(r)), "certificate-wrong-key", id="two for our key"),
        pytest.param(lambda _: bag(CA.certificate), "certificate-wrong-key", id="only the CA"),
        pytest.param(lambda r: bag(issued(r, HospitalCa())), "certificate-untrusted", id="foreign CA of our CA's name"),
        pytest.param(lambda r: bag(issued(r, serial=r.client.serial_number)), "certificate-not-new", id="same number"),
        pytest.param(lambda r: bag(issued(r, ca=True)), "certificate-is-ca", id="CA certificate"),
        pytest.param(
            lambda r: bag(issued(r, subject=name(COMMON_NAME="x", SERIAL_NUMBER="CT-000124"))),
            "certificate-wrong-names",
            id="another scanner",
        ),
        pytest.param(
            lambda r: bag(issued(r, alternative_names=[*REQUEST.alternative_names, *LOOPBACK])),
            "certificate-wrong-names",
            id="additional names",
        ),
        pytest.param(
            lambda r: bag(issued(r, extended_usage=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
            "certificate-wrong-usage",
            id="any usage",
        ),
        pytest.param(past, "certificate-wrong-dates", id="past"),
        pytest.param(future, "certificate-wrong-dates", id="future"),
    ],
)
def test_a_wrong_certificate_is_never_put_into_use(scanner: Scanner, script: Server, enroll: Enroll, code: str) -> None:
    script.enroll = enroll

    error = refusal(scanner)

    assert isinstance(error, CertificateRefused)
    assert error.code == code
    assert len(scanner.stores.list()) == 1
    script.enroll = honest
    assert scanner.enroll(IdentityName.DEVICE).number == 2


# --- answers that are not EST


def huge_headers(request: Request) -> bytes:
    return answer(b"", "200 OK", CERTS_ONLY, *(f"X-{number}: {'x' * 1000}" for number in range(50)))


def without_certificates(certificates: bytes) -> bytes:
    """A certs-only message that holds none (RFC 5652 5.1)."""
    data = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.1"))
    signed_data = der.encode(der.SEQUENCE, b"\x02\x01\x01" + EMPTY_SET + data + certificates + EMPTY_SET)
    return der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.2") + der.encode(0xA0, signed_data))


EMPTY_SET = der.encode(0x31, b"")
EMPTY_BAG = without_certificates(der.encode(0xA0, b""))
NO_BAG = without_certificates(b"")


def inner_ber(data: bytes) -> bytes:
    """The same message with one length inside written the indefinite way, which BER allows and DER does not."""
    signed_data = data[data.index(b"\xa0") :]
    head = data[4 : data.index(b"\xa0")]
    return der.encode(der.SEQUENCE, head + b"\xa0\x80" + signed_data[4:] + b"\0\0")


@pytest.mark.parametrize(
    "enroll",
    [
        pytest.param(lambda _: base64_of(EMPTY_BAG), id="empty bag"),
        pytest.param(lambda _: base64_of(NO_BAG), id="no bag"),
        pytest.param(lambda r: base64_of(message(r) + b"\0"), id="trailing byte"),
        pytest.param(lambda r: base64_of(message(r)[:-1]), id="missing byte"),
        pytest.param(lambda r: base64_of(b"\x30\x80" + message(r)[4:] + b"\0\0"), id="BER outside"),
        pytest.param(lambda r: base64_of(inner_ber(message(r))), id="BER inside"),
        pytest.param(lambda r: answer(message(r)), id="DER without base64"),
        pytest.param(lambda _: answer(b""), id="nothing"),
        pytest.param(lambda _: base64_of(b"\x30\x03\x02\x01\x05"), id="another DER value"),
        pytest.param(
            lambda r: base64_of(issued(r).public_bytes(serialization.Encoding.DER)), id="certificate without its bag"
        ),
        pytest.param(lambda _: bag(*(HospitalCa(f"CA {n}").certificate for n in range(11))), id="eleven certificates"),
        pytest.param(
            lambda r: bag(issued(r, alternative_names=[x509.DNSName(f"a{n:019}") for n in range(900)])),
            id="certificate of 20 KiB",
        ),
        pytest.param(lambda _: answer(b"garbage" * 100), id="garbage"),
        pytest.param(lambda _: answer(b"<html>", content_type="text/html"), id="a web page"),
        pytest.param(lambda r: answer(base64.encodebytes(message(r)), content_type="application/pkix-cert"), id="type"),
        pytest.param(lambda _: answer(b"x" * (BODY_LIMIT + 1)), id="oversized"),
        pytest.param(lambda _: chunked(b"x" * BODY_LIMIT, b"xx"), id="oversized in chunks"),
        pytest.param(huge_headers, id="huge headers"),
        pytest.param(lambda _: answer(b"", "200 OK", CERTS_ONLY, "Content-Encoding: gzip"), id="compressed"),
        pytest.param(lambda _: answer(status="204 No Content"), id="204"),
        pytest.param(lambda _: answer(b"", "302 Found", CERTS_ONLY, "Location: https://127.0.0.1:1/"), id="redirect"),
        pytest.param(lambda _: b"SSH-2.0-OpenSSH_9.2p1\r\n", id="no HTTP"),
        pytest.param(lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="200 headers"),
    ],
)
def test_an_answer_that_is_not_est_is_a_protocol_violation(scanner: Scanner, script: Server, enroll: Enroll) -> None:
    script.enroll = enroll

    assert isinstance(refusal(scanner), ProtocolViolation)


def chunked(*chunks: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {CERTS_ONLY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.parametrize(
    "cacerts",
    [
        pytest.param(lambda _: answer(b"garbage"), id="garbage"),
        pytest.param(lambda _: answer(status="404 Not Found"), id="404"),
        pytest.param(lambda _: base64_of(EMPTY_BAG), id="empty bag"),
        pytest.param(lambda _: base64_of(NO_BAG), id="no bag"),
    ],
)
def test_the_same_holds_for_the_ca_certificates(scanner: Scanner, script: Server, cacerts: Enroll) -> None:
    script.cacerts = cacerts

    assert isinstance(refusal(scanner), ProtocolViolation)


@pytest.mark.parametrize(
    "csrattrs",
    [
        pytest.param(lambda _: answer(b"garbage", content_type="application/csrattrs"), id="garbage"),
        pytest.param(lambda _: answer(b"MAA=", content_type="text/html"), id="type"),
        pytest.param(lambda _: answer(base64.encodebytes(b"\x30\x80\0\0"), content_type=CSRATTRS), id="BER"),
        pytest.param(lambda _: answer(base64.encodebytes(b"\x30" * 60000), content_type=CSRATTRS), id="depth"),
        pytest.param(lambda _: answer(b"A" * 70000, content_type=CSRATTRS), id="oversized"),
        pytest.param(lambda _: answer(b"", "302 Found", CSRATTRS, "Location: serverkeygen"), id="redirect"),
    ],
)
def test_the_same_holds_for_the_wanted_attributes(scanner: Scanner, script: Server, csrattrs: Enroll) -> None:
    """RFC 7030 4.5.2, RFC 8951 4."""
    script.csrattrs = csrattrs

    assert isinstance(refusal(scanner), ProtocolViolation)


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found", "401 Unauthorized", "405 Method Not Allowed"])
def test_a_server_without_wanted_attributes_is_enrolled_at(scanner: Scanner, script: Server, status: str) -> None:
    """RFC 8951 4."""
    script.csrattrs = lambda _: answer(b"", status, "text/plain")

    assert scanner.enroll(IdentityName.DEVICE).number == 2


def test_a_server_that_cannot_say_now_what_it_wants_is_asked_again_later(scanner: Scanner, script: Server) -> None:
    script.csrattrs = lambda _: answer(b"", "503 Service Unavailable", "text/plain")

    assert isinstance(refusal(scanner), ServerUnreachable)


def test_a_refusal_names_the_kind_of_key_that_was_wanted(scanner: Scanner, script: Server) -> None:
    wanted = csr_attributes((EC_PUBLIC_KEY, oid(P_384)))
    script.csrattrs = lambda _: answer(base64.encodebytes(wanted), content_type=CSRATTRS)
    assert scanner.enroll(IdentityName.DEVICE).number == 2  # a wish, as long as the CA issues

    script.enroll = lambda _: answer(b"key too short", "400 Bad Request", "text/plain")
    error = refusal(scanner)

    assert "p-384" in error.remedy
    assert "[identity.device] key_algorithm" in error.remedy


@pytest.mark.parametrize(
    "enroll",
    [
        pytest.param(
            lambda _: answer(b"--x\r\n", content_type="multipart/mixed; boundary=x"), id="a key in the answer"
        ),
        pytest.param(lambda _: answer(b"", "307 Moved", "text/plain", "Location: serverkeygen"), id="a redirect"),
    ],
)
def test_a_key_made_by_the_server_is_not_taken(
    scanner: Scanner, script: Server, server: ScriptedServer, enroll: Enroll
) -> None:
    """RFC 7030 4.4: a key is born in its store."""
    script.enroll = enroll

    assert isinstance(refusal(scanner), ProtocolViolation)
    assert not [request for request in server.requests if request.path.endswith("serverkeygen")]


def test_a_redirect_is_not_followed(scanner: Scanner, script: Server, server: ScriptedServer) -> None:
    script.enroll = lambda _: answer(b"", "307 Temporary Redirect", CERTS_ONLY, f"Location: {server.url}/x")
    before = len(server.requests)

    refusal(scanner)

    assert [request.path.rpartition("/")[2] for request in server.requests[before:]] == [
        "cacerts",
        "csrattrs",
        "simplereenroll",
    ]


# --- answers that do not come


def drip(head: bytes, filler: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(100):
        time.sleep(0.1)
        yield filler


def silence() -> Iterator[bytes]:
    yield b"H"
    time.sleep(2 * SECONDS)


@pytest.mark.parametrize(
    "enroll",
    [
        pytest.param(lambda _: drip(answer(b"x" * 1000)[:-990], b"x"), id="body"),
        pytest.param(lambda _: drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="header"),
        pytest.param(lambda _: drip(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue"),
        pytest.param(lambda _: silence(), id="silence"),
    ],
)
def test_a_slow_server_is_given_up_at_the_deadline(scanner: Scanner, script: Server, enroll: Enroll) -> None:
    script.enroll = enroll
    begin = time.monotonic()

    assert isinstance(refusal(scanner), ServerUnreachable)
    assert time.monotonic() - begin < 4 * SECONDS


@pytest.mark.parametrize("operation", ["cacerts", "csrattrs"])
def test_so_it_is_in_the_exchanges_before(scanner: Scanner, script: Server, operation: str) -> None:
    setattr(script, operation, lambda _: drip(answer(b"x" * 1000)[:-990], b"x"))
    begin = time.monotonic()

    assert isinstance(refusal(scanner), ServerUnreachable)
    assert time.monotonic() - begin < 4 * SECONDS


@pytest.mark.parametrize(
    "enroll",
    [
        pytest.param(lambda _: iter([b""]), id="before the answer"),
        pytest.param(lambda _: iter([b"HTTP/1.1 200 OK\r\nContent", b""]), id="in the head"),
        pytest.param(lambda r: iter([honest(r)[:-100], b""]), id="in the body"),
        pytest.param(lambda _: iter([chunked(b"abc")[:-7], b""]), id="in a chunk"),
    ],
)
def test_a_cut_connection_leaves_the_request_for_later(scanner: Scanner, script: Server, enroll: Enroll) -> None:
    script.enroll = enroll

    refusal(scanner)
    waiting = scanner.identities.journal(IdentityName.DEVICE).read()
    assert waiting is not None

    script.enroll = honest
    assert scanner.enroll(IdentityName.DEVICE).key_uri == waiting.key_uri


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
def test_a_server_that_cannot_answer_now_is_asked_again_later(scanner: Scanner, script: Server, status: str) -> None:
    script.enroll = lambda _: answer(b"try later", status, "text/plain")

    error = refusal(scanner)

    assert isinstance(error, ServerUnreachable)
    assert "try later" in error.what


def test_a_server_that_is_gone_is_unreachable(scanner: Scanner, server: ScriptedServer) -> None:
    server.__exit__()

    assert isinstance(refusal(scanner), ServerUnreachable)


# --- refusals


@pytest.mark.parametrize(
    ("status", "who"),
    [("400 Bad Request", "CA operator"), ("401 Unauthorized", "hospital IT"), ("403 Forbidden", "CA operator")],
)
def test_a_refusal_says_who_must_act_and_what_the_ca_says(
    scanner: Scanner, script: Server, status: str, who: str
) -> None:
    script.enroll = lambda _: answer(b"Scanner\x1b[2J unknown\r\n\0" + b"x" * 5000, status, "text/plain")

    error = refusal(scanner)

    assert isinstance(error, EnrollmentRefused)
    assert error.who_must_act == who
    assert error.remedy
    assert "Scanner [2J unknown" in error.what
    assert error.what.isprintable()
    assert len(error.what) < 400


def test_a_refused_password_is_named_by_its_options_and_not_shown(new_scanner: Scanner, script: Server) -> None:
    """RFC 7030 3.2.3."""
    script.enroll = lambda _: challenge('Basic realm="est"')

    error = refusal(new_scanner)

    password_file = new_scanner.settings.est.password_file
    expected = f"Compare [est] username and the content of {password_file} with what the CA has."
    assert error.remedy.endswith(expected)


def test_a_refused_certificate_of_the_device_has_nothing_to_do_with_the_password(
    scanner: Scanner, script: Server
) -> None:
    script.enroll = lambda _: answer(b"", "401 Unauthorized", "text/plain")

    assert "username" not in refusal(scanner).remedy


def test_a_web_page_is_not_quoted(scanner: Scanner, script: Server) -> None:
    script.enroll = lambda _: answer(b"<h1>Forbidden</h1>", "403 Forbidden", "text/html")

    assert "<h1>" not in refusal(scanner).what


# --- 202


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7200"], 7200),
        (["Retry-After: 0"], 60),
        (["Retry-After: 999999999"], 86400),
        (["Retry-After: " + "9" * 100], 3600),
        (["Retry-After: -5"], 3600),
        (["Retry-After: soon"], 3600),
        (["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"], 60),
        (["Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"], 86400),
        (["Retry-After: Fri, 31 Dec 9999 23:59:59 -9999"], 3600),
        ([], 3600),
    ],
)
def test_a_202_is_waited_for_within_sensible_bounds(
    scanner: Scanner, script: Server, headers: list[str], seconds: int
) -> None:
    """RFC 7030 4.2.3, RFC 9110 10.2.3."""
    script.enroll = lambda _: answer(b"", "202 Accepted", "text/plain", *headers)
    begin = datetime.now(UTC)

    with scanner.connect(IdentityName.DEVICE) as flow:
        pending = scanner.issue(flow, IdentityName.DEVICE)

    assert isinstance(pending, Pending)
    assert begin + timedelta(seconds=seconds) <= pending.until <= datetime.now(UTC) + timedelta(seconds=seconds)


# --- forms that are tolerated


def pem_armour(request: Request) -> bytes:
    return b"-----BEGIN PKCS7-----\n" + base64.encodebytes(message(request)) + b"-----END PKCS7-----\n"


@pytest.mark.parametrize(
    "enroll",
    [
        pytest.param(lambda r: answer(base64.b64encode(message(r))), id="one line"),
        pytest.param(lambda r: answer(base64.encodebytes(message(r)).replace(b"\n", b"\r\n")), id="CRLF"),
        pytest.param(lambda r: answer(pem_armour(r)), id="PEM"),
        pytest.param(
            lambda r: answer(base64.encodebytes(message(r)), "200 OK", CERTS_ONLY, "Content-Transfer-Encoding: 8bit"),
            id="wrong encoding header",
        ),
        pytest.param(
            lambda r: answer(base64.encodebytes(message(r)), content_type="Application/PKCS7-MIME"),
            id="type in capitals",
        ),
        pytest.param(lambda r: bag(CA.certificate, HospitalCa("Rollover").certificate, issued(r)), id="shuffled"),
        pytest.param(lambda r: chunked(base64.encodebytes(message(r))), id="chunked"),
    ],
)
def test_what_rfc_8951_tolerates_is_tolerated(scanner: Scanner, script: Server, enroll: Enroll) -> None:
    script.enroll = enroll

    assert scanner.enroll(IdentityName.DEVICE).number == 2
    assert isinstance(scanner.matching_pair(IdentityName.DEVICE), Generation)


# --- who gets the password


def test_the_password_goes_to_the_verified_server_only(new_scanner: Scanner, script: Server, tmp_path: Path) -> None:
    with ScriptedServer(HospitalCa("Impostor"), tmp_path, script) as impostor:
        deceived = new_scanner.restarted(est=replace(new_scanner.settings.est, url=impostor.url))
        with pytest.raises(ServerUnreachable, match="anchor file"):
            deceived.enroll(IdentityName.DEVICE)

    assert impostor.requests == []


def test_whoever_shows_the_certificate_with_the_fingerprint_has_to_prove_that_it_is_the_server(
    new_scanner: Scanner, script: Server, tmp_path: Path
) -> None:
    """The CA certificate is public: an impostor can show it and is given nothing for it (RFC 7030 4.1.1)."""
    fingerprint = CA.certificate.fingerprint(hashes.SHA256()).hex()
    with ScriptedServer(HospitalCa("Impostor"), tmp_path, script) as impostor:
        est = replace(new_scanner.settings.est, url=impostor.url, anchor_file=None, anchor_fingerprint=fingerprint)
        context = replace(new_scanner.context, settings=replace(new_scanner.settings, est=est))
        with Enroller(context) as enroller, pytest.raises(ServerUnreachable, match="right server"):
            enroller.enroll(IdentityName.DEVICE, FlowName.EST)

    (fetched,) = impostor.requests
    assert fetched.path.endswith("/cacerts")
    assert "authorization" not in fetched.headers
    assert fetched.client is None


def test_what_an_impostor_shows_instead_is_not_trusted(new_scanner: Scanner, script: Server, tmp_path: Path) -> None:
    """Nor is anything kept."""
    impostors_ca = HospitalCa()
    script.cacerts = lambda _: bag(impostors_ca.certificate)
    fingerprint = CA.certificate.fingerprint(hashes.SHA256()).hex()
    with ScriptedServer(impostors_ca, tmp_path, script) as impostor:
        est = replace(new_scanner.settings.est, url=impostor.url, anchor_file=None, anchor_fingerprint=fingerprint)
        context = replace(new_scanner.context, settings=replace(new_scanner.settings, est=est))
        with Enroller(context) as enroller, pytest.raises(CertificateRefused, match="fingerprint"):
            enroller.enroll(IdentityName.DEVICE, FlowName.EST)

    assert len(impostor.requests) == 1
    assert not (new_scanner.settings.state_directory / "anchors").exists()


def test_a_web_server_that_knows_no_such_certificate_gets_the_password_instead(
    new_scanner: Scanner, script: Server, server: ScriptedServer
) -> None:
    """As nginx says it: every request over a connection with that certificate is answered with 400."""
    new_scanner.issue(CaFlow(CA, new_scanner.clock, "vendor"), IdentityName.IDEVID)
    script.cacerts = lambda r: answer(status="400 Bad Request") if r.client else bag(CA.certificate)

    assert new_scanner.enroll(IdentityName.DEVICE).number == 1

    assert server.requests[0].client is not None
    assert (server.requests[-1].client, server.requests[-1].headers["authorization"]) == (None, BASIC)


def test_a_server_of_another_name_does_not_get_it_either(new_scanner: Scanner, script: Server, tmp_path: Path) -> None:
    with ScriptedServer(CA, tmp_path, script, names=(x509.DNSName("other.example"),)) as other:
        deceived = new_scanner.restarted(est=replace(new_scanner.settings.est, url=other.url))
        with pytest.raises(ServerUnreachable, match="IP address mismatch"):
            deceived.enroll(IdentityName.DEVICE)

    assert other.requests == []


def test_it_is_sent_with_the_first_enrollment_and_never_again(scanner: Scanner, server: ScriptedServer) -> None:
    scanner.enroll(IdentityName.DEVICE)

    sent = [(request.path.rpartition("/")[2], request.headers.get("authorization")) for request in server.requests]
    assert sent == [
        ("cacerts", None),
        ("csrattrs", None),
        ("simpleenroll", None),  # RFC 7030 3.2.3: the server asks first
        ("simpleenroll", BASIC),
        ("cacerts", None),
        ("csrattrs", None),
        ("simplereenroll", None),
    ]


@pytest.mark.parametrize(
    ("challenges", "schemes"),
    [
        (['Basic realm="est"'], ["Basic"]),
        (['Basic realm="est"', 'Digest realm="est", qop="auth", nonce="n", algorithm=MD5'], ["Digest"]),
        (['Digest realm="est", qop="auth", nonce="n", stale=true'], ["Digest"]),
        (['Digest realm="est", qop="auth-int", nonce="n"'], []),
        (["Negotiate", 'Bearer realm="est"'], []),
        (["x" * 20000], []),
    ],
)
def test_a_challenge_is_answered_once(
    new_scanner: Scanner, script: Server, server: ScriptedServer, challenges: list[str], schemes: list[str]
) -> None:
    """RFC 7616 3.3, RFC 9110 11.6.1: a server that asks for ever gets one answer."""
    script.enroll = lambda _: challenge(*challenges)

    assert isinstance(refusal(new_scanner), EnrollmentRefused)

    sent = [request.headers["authorization"] for request in server.requests if "authorization" in request.headers]
    assert [text.partition(" ")[0] for text in sent] == schemes


def test_a_server_that_wants_both_gets_the_password_beside_the_certificate(
    scanner: Scanner, script: Server, server: ScriptedServer
) -> None:
    """RFC 7030 3.3.2: certificate and password may be wanted together."""
    script.enroll = lambda r: bag(issued(r)) if "authorization" in r.headers else challenge('Basic realm="est"')

    scanner.enroll(IdentityName.DEVICE)

    assert server.requests[-1].headers["authorization"] == BASIC
    assert server.requests[-1].client is not None


def test_the_form_of_a_request(scanner: Scanner, server: ScriptedServer) -> None:
    """RFC 7030 4.2.1 and RFC 8951 3.1; some servers refuse base64 without line ends."""
    enrollment = server.requests[-1]

    assert (enrollment.method, enrollment.path) == ("POST", "/.well-known/est/simpleenroll")
    assert enrollment.headers["content-type"] == "application/pkcs10"
    assert enrollment.body.endswith(b"\n")
    assert max(map(len, enrollment.body.splitlines())) <= 76


def test_a_label_is_part_of_the_address(scanner: Scanner, server: ScriptedServer) -> None:
    """RFC 7030 3.2.2."""
    labelled = scanner.restarted(est=replace(scanner.settings.est, label="imaging"))
    labelled.enroll(IdentityName.DEVICE)

    assert server.requests[-1].path == "/.well-known/est/imaging/simplereenroll"
