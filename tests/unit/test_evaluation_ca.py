"""The evaluation CA issues one profile, to those who may ask, and says that it is not for production."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.certificates import alternative_names, pem, private_key_usage_period
from enroll.clock import SystemClock
from enroll.csr import CertificateRequest, Usage, build
from enroll.errors import EnrollmentRefused, StateError
from enroll.evaluation.authority import BACKDATED
from enroll.evaluation.ca import (
    BANNER,
    DEFAULT_LIFETIME,
    DEFAULT_LONG_LIFETIME,
    OWNER,
    USERNAME,
    EvaluationCa,
)
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.https_server import CONNECTIONS_LIMIT, REQUEST_LIMIT
from enroll.keystore.base import PrivateKey, Protection
from tests.support.clocks import SteppedClock
from tests.support.mislabelled_key import mislabelled_key
from tests.support.pki import DEVICE, NOW, REQUEST, HospitalCa, name, new_key

EST = "/.well-known/est"


@pytest.fixture
def ca(tmp_path: Path) -> EvaluationCa:
    return EvaluationCa.create_or_open(tmp_path / "ca", SystemClock())


@pytest.fixture
def server(ca: EvaluationCa) -> Iterator[EstServer]:
    with EstServer(ca) as running:
        yield running


def test_it_says_what_it_is_for(ca: EvaluationCa) -> None:
    (common_name,) = ca.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)

    assert common_name.value == BANNER
    assert "NOT FOR PRODUCTION" in BANNER


def test_its_secrets_are_private(ca: EvaluationCa) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ca.directory.iterdir()}

    assert modes == {"root.key": 0o600, "root.pem": 0o644, "server.key": 0o600, "server.pem": 0o644, "password": 0o600}
    assert len(ca.password) >= 20


def test_it_is_the_same_when_it_is_opened_again(ca: EvaluationCa, tmp_path: Path) -> None:
    again = EvaluationCa.create_or_open(ca.directory, SystemClock())
    other = EvaluationCa.create_or_open(tmp_path / "other", SystemClock())

    assert (again.certificate, again.password) == (ca.certificate, ca.password)
    assert (other.certificate, other.password) != (ca.certificate, ca.password)


@pytest.mark.parametrize("content", [b"damaged", mislabelled_key()])
def test_a_damaged_key_is_a_state_error(ca: EvaluationCa, content: bytes) -> None:
    (ca.directory / "root.key").write_bytes(content)

    with pytest.raises(StateError, match=r"root\.key"):
        EvaluationCa.create_or_open(ca.directory, SystemClock())


# --- what it issues


def test_a_certificate_begins_before_it_is_issued_and_lives_as_long_as_told(tmp_path: Path) -> None:
    """A signature made in the first second of a certificate must not be "not yet valid"."""
    ca = EvaluationCa.create_or_open(tmp_path, SteppedClock(), timedelta(seconds=90))
    certificate = ca.issue(build(new_key(), REQUEST))

    assert certificate.not_valid_before_utc == NOW - BACKDATED
    assert certificate.not_valid_after_utc == NOW + timedelta(seconds=90)


@pytest.mark.parametrize("usage", list(Usage))
def test_the_certificate_has_the_names_and_the_usage_asked_for(ca: EvaluationCa, usage: Usage) -> None:
    request = CertificateRequest.for_device(DEVICE, usage)
    certificate = ca.issue(build(new_key(), request))

    assert certificate.subject == x509.Name([*name(ORGANIZATION_NAME=OWNER), *request.subject])
    assert alternative_names(certificate) == request.alternative_names
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [usage.extended_key_usage]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(ca.certificate)


# --- certificates that outlive their keys (PrivateKeyUsagePeriod, RFC 3280 4.2.1.4)


MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def stepped(tmp_path: Path) -> EvaluationCa:
    """Its clock stands still."""
    return EvaluationCa.create_or_open(tmp_path / "stepped", SteppedClock())


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ((NOW - 5 * MINUTE, NOW + 7 * DAY), (NOW - 5 * MINUTE, NOW + 7 * DAY)),
        ((NOW - 3 * DAY, NOW + 4 * DAY), (NOW - HOUR, NOW + 4 * DAY)),
        ((NOW - HOUR, NOW + 120 * DAY), (NOW - HOUR, NOW - HOUR + 90 * DAY)),
        ((NOW + 2 * DAY, NOW + 9 * DAY), (NOW + 2 * DAY, NOW + 9 * DAY)),
    ],
)
def test_a_usage_period_is_granted_within_bounds(
    stepped: EvaluationCa, asked: tuple[datetime, datetime], granted: tuple[datetime, datetime]
) -> None:
    certificate = stepped.issue(build(new_key(), REQUEST, usage_period=asked))

    assert private_key_usage_period(certificate) == granted
    assert certificate.not_valid_after_utc == NOW + DEFAULT_LONG_LIFETIME


def test_without_being_asked_it_grants_no_usage_period(stepped: EvaluationCa) -> None:
    certificate = stepped.issue(build(new_key(), REQUEST))

    assert private_key_usage_period(certificate) is None
    assert certificate.not_valid_after_utc == NOW + DEFAULT_LIFETIME


def test_no_certificate_outlives_the_ca(tmp_path: Path) -> None:
    """RFC 5280 6.1: the path would end with the CA's certificate."""
    clock = SteppedClock()
    EvaluationCa.create_or_open(tmp_path, clock)
    clock.advance(3000 * DAY)
    ca = EvaluationCa.create_or_open(tmp_path, clock, long_lifetime=3650 * DAY)
    now = clock.now()

    certificate = ca.issue(build(new_key(), REQUEST, usage_period=(now, now + 7 * DAY)))

    assert certificate.not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("usage", "asked"),
    [
        (Usage.DEVICE, (NOW, NOW + 7 * DAY)),
        (Usage.SIGNING, (NOW - 7 * DAY, NOW)),
        (Usage.SIGNING, (NOW - DAY, NOW)),
        (Usage.SIGNING, (NOW + 91 * DAY, NOW + 92 * DAY)),
        (Usage.SIGNING, (END_OF_TIME, END_OF_TIME)),
    ],
)
def test_a_usage_period_that_makes_no_sense_is_refused(
    stepped: EvaluationCa, usage: Usage, asked: tuple[datetime, datetime]
) -> None:
    with pytest.raises(EnrollmentRefused, match="usage period"):
        stepped.issue(build(new_key(), CertificateRequest.for_device(DEVICE, usage), usage_period=asked))


@pytest.mark.parametrize("protection", list(Protection))
def test_it_writes_down_where_a_key_lives_by_its_own_account(ca: EvaluationCa, protection: Protection) -> None:
    certificate = ca.issue(build(new_key(), REQUEST, protection=protection))

    written = json.loads((ca.directory / "issued" / f"{certificate.serial_number:x}.json").read_bytes())
    assert written["protection"] == protection
    assert "CT-000123" in written["subject"]


def test_a_request_without_that_is_served_as_well(ca: EvaluationCa) -> None:
    certificate = ca.issue(request())

    written = json.loads((ca.directory / "issued" / f"{certificate.serial_number:x}.json").read_bytes())
    assert written["protection"] == "unstated"


def request(
    subject: x509.Name = REQUEST.subject,
    extended_usage: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    names: tuple[x509.GeneralName, ...] = (),
    key: PrivateKey | None = None,
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if extended_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended_usage), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key or new_key(), hashes.SHA256())


def test_nothing_but_the_names_of_the_device_is_copied(ca: EvaluationCa) -> None:
    subject = x509.Name([*name(ORGANIZATION_NAME="Impostor", EMAIL_ADDRESS="a@b.example"), *REQUEST.subject])

    certificate = ca.issue(request(subject))

    assert certificate.subject == x509.Name([*name(ORGANIZATION_NAME=OWNER), *REQUEST.subject])
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


SMALL_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - this is what is refused


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(request(name(COMMON_NAME="no serial number")), id="no serial number"),
        pytest.param(request(x509.Name([*REQUEST.subject, *name(SERIAL_NUMBER="2")])), id="two serial numbers"),
        pytest.param(request(x509.Name([*REQUEST.subject, *name(ORGANIZATIONAL_UNIT_NAME="x")])), id="a unit"),
        pytest.param(request(extended_usage=()), id="no usage"),
        pytest.param(request(extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)), id="server"),
        pytest.param(
            request(extended_usage=(Usage.DEVICE.extended_key_usage, Usage.SIGNING.extended_key_usage)),
            id="both usages",
        ),
        pytest.param(request(names=(x509.DNSName("pacs.example"),)), id="name of a server"),
        pytest.param(request(key=SMALL_RSA), id="small RSA key"),
        pytest.param(request(key=ec.generate_private_key(ec.SECP224R1())), id="small curve"),
    ],
)
def test_anything_else_is_refused(ca: EvaluationCa, wrong: x509.CertificateSigningRequest) -> None:
    with pytest.raises(EnrollmentRefused):
        ca.issue(wrong)


def forged() -> bytes:
    """A request whose signature is of another one."""
    data = bytearray(request().public_bytes(serialization.Encoding.DER))
    data[data.index(b"CT-000123")] ^= 1
    return bytes(data)


def test_a_request_proves_possession_of_its_key(ca: EvaluationCa) -> None:
    """RFC 7030 3.4."""
    with pytest.raises(EnrollmentRefused, match="not signed with its key"):
        ca.issue(x509.load_der_x509_csr(forged()))


# --- who may ask


def ask(
    ca: EvaluationCa,
    server: EstServer,
    path: str,
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    client: Path | None = None,
) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=ca.anchor_file)
    if client:
        context.load_cert_chain(client)
    connection = http.client.HTTPSConnection(server.url.removeprefix("https://"), context=context, timeout=10)
    try:
        kind = {} if body is None else {"Content-Type": "application/pkcs10"}
        connection.request("GET" if body is None else "POST", path, body, {**kind, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def with_password(ca: EvaluationCa) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(USERNAME.encode() + b':' + ca.password).decode()}"}


def body_of(request: x509.CertificateSigningRequest) -> bytes:
    return base64.encodebytes(request.public_bytes(serialization.Encoding.DER))


def client_file(ca: EvaluationCa, folder: Path, usage: Usage) -> Path:
    key, path = new_key(), folder / "client.pem"
    certificate = ca.issue(build(key, CertificateRequest.for_device(DEVICE, usage)))
    pkcs8 = serialization.PrivateFormat.PKCS8
    key_bytes = key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    path.write_bytes(pem([certificate]) + key_bytes)
    return path


def test_a_device_enrolls_for_its_own_serial_number_only(ca: EvaluationCa, server: EstServer, tmp_path: Path) -> None:
    client = client_file(ca, tmp_path, Usage.DEVICE)
    other = request(name(COMMON_NAME="x", SERIAL_NUMBER="CT-000124"))

    assert ask(ca, server, f"{EST}/simpleenroll", body_of(request()), client=client)[0] == 200
    assert ask(ca, server, f"{EST}/simpleenroll", body_of(other), client=client)[0] == 403
    assert ask(ca, server, f"{EST}/simplereenroll", body_of(other), client=client)[0] == 403


def test_a_signing_certificate_authenticates_nobody(ca: EvaluationCa, server: EstServer, tmp_path: Path) -> None:
    client = client_file(ca, tmp_path, Usage.SIGNING)

    with pytest.raises((OSError, http.client.HTTPException)):
        ask(ca, server, f"{EST}/simpleenroll", body_of(request()), client=client)


def test_a_client_certificate_of_another_ca_is_refused(ca: EvaluationCa, server: EstServer, tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "client.pem"
    certificate = HospitalCa().issue(key.public_key(), extended_usage=[ExtendedKeyUsageOID.CLIENT_AUTH])
    pkcs8 = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        pem([certificate]) + key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    )

    with pytest.raises((OSError, http.client.HTTPException)):
        ask(ca, server, f"{EST}/simpleenroll", body_of(request()), client=path)


@pytest.mark.parametrize("given", ["", "Basic", "Basic Zm9vOmJhcg==", "Bearer x", "Basic \xff"])
def test_a_wrong_password_is_refused(ca: EvaluationCa, server: EstServer, given: str) -> None:
    status, _ = ask(ca, server, f"{EST}/simpleenroll", body_of(request()), headers={"Authorization": given})

    assert status == 401


# --- what it bears


def test_csrattrs_are_empty(ca: EvaluationCa, server: EstServer) -> None:
    """RFC 7030 4.5.2."""
    assert ask(ca, server, f"{EST}/csrattrs") == (204, b"")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"garbage", 400),
        (base64.encodebytes(b"\x30\x03\x02\x01\x05"), 400),
        (base64.encodebytes(forged()), 400),
    ],
)
def test_a_wrong_body_is_refused(ca: EvaluationCa, server: EstServer, body: bytes, status: int) -> None:
    assert ask(ca, server, f"{EST}/simpleenroll", body, headers=with_password(ca))[0] == status


def test_an_oversized_body_is_not_read(ca: EvaluationCa, server: EstServer) -> None:
    announced = {**with_password(ca), "Content-Length": str(REQUEST_LIMIT + 1)}

    assert ask(ca, server, f"{EST}/simpleenroll", b"", headers=announced)[0] == 413


@pytest.mark.parametrize("path", ["/", f"{EST}/serverkeygen", f"{EST}/x/simpleenroll", f"{EST}/cacerts/../x"])
def test_there_is_nothing_else(ca: EvaluationCa, server: EstServer, path: str) -> None:
    assert ask(ca, server, path)[0] == 404
    assert ask(ca, server, path, b"", headers=with_password(ca))[0] == 404


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "-1"}, {"Content-Length": "x"}, {"Transfer-Encoding": "chunked"}]
)
def test_the_length_must_be_told(ca: EvaluationCa, server: EstServer, headers: dict[str, str]) -> None:
    assert ask(ca, server, f"{EST}/simpleenroll", b"", headers={**with_password(ca), **headers})[0] == 411


def test_connections_that_do_nothing_hold_up_nobody(ca: EvaluationCa, server: EstServer) -> None:
    host, _, port = server.url.removeprefix("https://").partition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS_LIMIT - 1)]

    assert ask(ca, server, f"{EST}/cacerts")[0] == 200
    for connection in idle:
        connection.close()


def test_requests_are_logged_without_control_characters(ca: EvaluationCa) -> None:
    lines: list[str] = []
    with EstServer(ca, log=lines.append) as server:
        ask(ca, server, f"{EST}/cacerts")
        context = ssl.create_default_context(cafile=ca.anchor_file)
        host, _, port = server.url.removeprefix("https://").partition(":")
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.sendall(b"GET /\x1b[2J HTTP/1.0\r\n\r\n")
            connection.recv(1000)

    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "cacerts" in lines[0]


def test_the_loopback_addresses_are_served(ca: EvaluationCa) -> None:
    with EstServer(ca, ("localhost", 0)) as server:
        assert ask(ca, server, f"{EST}/cacerts")[0] == 200
    if socket.has_ipv6:
        with EstServer(ca, ("::1", 0)) as server:
            assert server.url.startswith("https://[::1]:")
            assert ask(ca, server, f"{EST}/cacerts")[0] == 200
