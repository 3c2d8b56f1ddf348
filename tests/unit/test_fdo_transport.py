"""Messages over HTTP: FDO 1.1, 4.3. What the certificates of the server have to be is in the rendezvous directive."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.errors import CertificateRefused, EnrollmentRefused, KeyStoreError, ProtocolViolation, ServerUnreachable
from enroll.fdo import cbor
from enroll.fdo.conversation import Conversation
from enroll.fdo.fault import ErrorCode, Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import MESSAGE_LIMIT, TEXT_LIMIT, ErrorMessage, MessageType
from enroll.fdo.transport import TOKEN_LIMIT, ErrorReceived, HttpChannel, Pins, context_for
from tests.support.pki import CA_KEY_USAGE, Content, HospitalCa, certify, name, new_key
from tests.support.scripted_server import LOOPBACK, Request, Script, ScriptedServer, answer

ROOT = HospitalCa("Root CA")
ISSUING = HospitalCa("Issuing CA", ROOT)
HELLO = MessageType.TO1_HELLO_RV
TOKEN = "Authorization: Bearer abc.DEF-123"
BODY = cbor.encode([b"n" * 16])
NO_PINS = Pins()


def said(number: int, *headers: str, body: bytes = BODY, status: str = "200 OK") -> bytes:
    """A message over HTTP."""
    return answer(body, status, "application/cbor", f"Message-Type: {number}", *headers)


def number_of(request: Request) -> int:
    return int(request.path.rpartition("/")[2])


def good(request: Request) -> bytes:
    """What a server answers that has nothing to object to."""
    number = number_of(request)
    return said(200, body=b"") if number == MessageType.ERROR else said(number + 1, TOKEN)


@dataclass
class Party(ScriptedServer):
    """A server whose TLS shows its own certificate and those in `above`."""

    above: tuple[x509.Certificate, ...] = ()
    purposes: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,)
    life: timedelta = timedelta(days=1)

    def _tls(self) -> ssl.SSLContext:
        key, now = new_key(), datetime.now(UTC)
        self.own = self.ca.issue(
            key.public_key(),
            subject=name(COMMON_NAME="rendezvous"),
            alternative_names=LOOPBACK,
            extended_usage=self.purposes,
            begin=now - timedelta(days=2),
            end=now - timedelta(days=2) + self.life,
        )
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = self.folder / f"party-{id(self)}.pem"
        chain.write_bytes(pem([self.own, *self.above]) + encoded)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def party(folder: Path, script: Script = good, ca: HospitalCa = ISSUING, **more: Any) -> Party:
    return Party(ca, folder, script, **{"above": (ISSUING.certificate, ROOT.certificate), **more})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Party]:
    with party(tmp_path) as running:
        yield running


def channel(url: str, pins: Pins = NO_PINS, timeout: float = 2) -> HttpChannel:
    return HttpChannel(url, context_for(pins), SystemClock(), timeout)


def ask(server: Party, pins: Pins = NO_PINS) -> None:
    with channel(server.url, pins) as opened:
        assert opened.exchange(HELLO, BODY).body == BODY


def pin(certificate: x509.Certificate, algorithm: HashAlgorithm = HashAlgorithm.SHA256) -> Hash:
    return Hash.of(algorithm, certificate.public_bytes(serialization.Encoding.DER))


def assert_not_asked(server: Party, pins: Pins) -> None:
    """Nothing of HTTP reaches a server that is not the pinned one."""
    with pytest.raises(ServerUnreachable) as refused:
        ask(server, pins)
    assert refused.value.code == "server-not-pinned"
    assert refused.value.remedy
    assert server.requests == []


# --- the certificates of the server: FDO 1.1, 3.3.2, RVSvCertHash and RVClCertHash


each_hash = pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA256, HashAlgorithm.SHA384])


def test_without_pins_any_server_will_do_and_nothing_is_warned_of(server: Party) -> None:
    """The messages prove themselves. Warnings are errors in these tests."""
    ask(server)


@each_hash
def test_the_certificate_of_the_server_can_be_pinned(server: Party, algorithm: HashAlgorithm) -> None:
    ask(server, Pins(server=pin(server.own, algorithm)))

    assert len(server.requests) == 1


@each_hash
@pytest.mark.parametrize("above", [ISSUING, ROOT], ids=["issuing", "root"])
def test_a_certificate_above_it_can_be_pinned(server: Party, above: HospitalCa, algorithm: HashAlgorithm) -> None:
    ask(server, Pins(issuer=pin(above.certificate, algorithm)))
    ask(server, Pins(pin(server.own), pin(above.certificate, algorithm)))


def test_another_certificate_is_refused_before_anything_is_sent(server: Party) -> None:
    own, other = pin(server.own), pin(HospitalCa("Another CA").certificate)

    for pins in (
        Pins(server=other),
        Pins(issuer=other),
        Pins(own, other),
        Pins(other, pin(ROOT.certificate)),
        Pins(server=pin(ISSUING.certificate)),
        Pins(issuer=own),
        Pins(server=Hash(HashAlgorithm.SHA384, own.value)),
        Pins(server=Hash(HashAlgorithm.HMAC_SHA256, own.value)),
        Pins(server=Hash(HashAlgorithm.SHA256, own.value[:31])),
    ):
        assert_not_asked(server, pins)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pins_hold_in_every_version_of_tls(server: Party, version: ssl.TLSVersion) -> None:
    server._context.minimum_version = server._context.maximum_version = version

    ask(server, Pins(pin(server.own), pin(ROOT.certificate)))
    server.requests.clear()
    assert_not_asked(server, Pins(server=pin(ROOT.certificate)))


def test_a_pinned_certificate_that_did_not_issue_that_of_the_server_proves_nothing(tmp_path: Path) -> None:
    """Anybody can show the certificate of a CA beside one of his own."""
    impostor = HospitalCa("Issuing CA", ROOT, key=new_key())
    stranger = HospitalCa("Stranger")
    for ca in (stranger, HospitalCa("Root CA")):
        with party(tmp_path, ca=ca) as server:
            assert_not_asked(server, Pins(issuer=pin(ROOT.certificate)))
            assert_not_asked(server, Pins(issuer=pin(ISSUING.certificate)))
    with party(tmp_path, ca=impostor, above=(ISSUING.certificate, ROOT.certificate)) as server:
        assert_not_asked(server, Pins(issuer=pin(ISSUING.certificate)))


def test_a_certificate_of_a_device_issues_none(tmp_path: Path) -> None:
    """RFC 5280 4.2.1.9: who got a certificate from the pinned CA is no CA."""
    device = HospitalCa("Device", ROOT, ca=False, usage=None)
    with party(tmp_path, ca=device, above=(device.certificate, ROOT.certificate)) as server:
        assert_not_asked(server, Pins(issuer=pin(ROOT.certificate)))
        assert_not_asked(server, Pins(issuer=pin(device.certificate)))


def test_a_certificate_that_is_not_for_servers_is_none_of_a_server(tmp_path: Path) -> None:
    """RFC 5280 4.2.1.12: the CA may have issued certificates for other scanners, too."""
    with party(tmp_path, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]) as server:
        assert_not_asked(server, Pins(issuer=pin(ISSUING.certificate)))
        ask(server, Pins(server=pin(server.own)))
    with party(tmp_path, purposes=[]) as server:
        ask(server, Pins(issuer=pin(ISSUING.certificate)))


def test_pins_do_not_ask_the_clock(tmp_path: Path) -> None:
    """That of a new scanner may be wrong."""
    with party(tmp_path, life=timedelta(days=1)) as server:
        ask(server, Pins(pin(server.own), pin(ROOT.certificate)))


def test_a_pinned_certificate_has_to_be_shown(tmp_path: Path) -> None:
    with party(tmp_path, above=()) as server:
        assert_not_asked(server, Pins(issuer=pin(ISSUING.certificate)))


def test_a_long_chain_is_not_looked_at_for_long(tmp_path: Path) -> None:
    """It is the other side that decides how long it is."""
    key = new_key()
    usage = Content(name(COMMON_NAME="Issuing CA"), (), CA_KEY_USAGE, (), ca=True)
    many = tuple(certify(usage, key.public_key(), usage.subject, key) for _ in range(150))
    with party(tmp_path, above=(*many, ISSUING.certificate)) as server:
        begin = time.monotonic()
        assert_not_asked(server, Pins(issuer=pin(ISSUING.certificate)))
        assert time.monotonic() - begin < 2


# --- the token: FDO 1.1, 4.3


def test_the_newest_token_goes_along_until_the_protocol_begins_anew(tmp_path: Path) -> None:
    tokens = iter(("bearer one", "Bearer two", None, "Bearer four", None))

    def script(request: Request) -> bytes:
        token = next(tokens)
        return said(number_of(request) + 1, *([f"Authorization: {token}"] if token else []))

    with party(tmp_path, script) as server, channel(server.url) as opened:
        for number in (60, 62, 64, 60, 62):
            opened.exchange(MessageType(number), BODY)

    assert [r.headers.get("authorization") for r in server.requests] == [
        None,
        "bearer one",
        "Bearer two",
        None,
        "Bearer four",
    ]


@pytest.mark.parametrize("number", [10, 20, 30, 60])
@pytest.mark.parametrize(
    "header",
    [
        (),
        ("Authorization:",),
        ("Authorization: Bearer",),
        ("Authorization: abc",),
        ("Authorization: Basic abc",),
        ("Authorization: Bearer a b",),
        ("Authorization: Bearer a", "Authorization: Bearer b"),
        (f"Authorization: Bearer {'a' * (TOKEN_LIMIT + 1)}",),
    ],
    ids=["missing", "empty", "alone", "bare", "basic", "three-words", "twice", "huge"],
)
def test_a_first_answer_without_a_proper_token_is_none(tmp_path: Path, number: int, header: tuple[str, ...]) -> None:
    with (
        party(tmp_path, lambda _: said(number + 1, *header)) as server,
        channel(server.url) as opened,
        pytest.raises(ProtocolViolation, match="token"),
    ):
        opened.exchange(MessageType(number), BODY)


def test_a_token_that_cannot_be_sent_back_is_refused_later_on_as_well(tmp_path: Path) -> None:
    def script(request: Request) -> bytes:
        return said(number_of(request) + 1, TOKEN if number_of(request) == HELLO else "Authorization:")

    with party(tmp_path, script) as server, channel(server.url) as opened:
        opened.exchange(HELLO, BODY)
        with pytest.raises(ProtocolViolation, match="token"):
            opened.exchange(MessageType.TO1_PROVE_TO_RV, BODY)


# --- HTTP


def test_a_message_is_posted_whole_and_says_what_it_is(server: Party) -> None:
    """Some servers refuse a body without a length."""
    ask(server)

    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/fdo/101/msg/30", BODY)
    assert request.headers["content-type"] == "application/cbor"
    assert request.headers["content-length"] == str(len(BODY))


def test_a_scheme_without_tls_is_spoken(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            for header in ("Content-Type: application/cbor", "Message-Type: 31", TOKEN, f"Content-Length: {len(BODY)}"):
                self.send_header(*header.split(": "))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as plain:
        thread = threading.Thread(target=plain.handle_request, daemon=True)
        thread.start()
        with channel(f"http://127.0.0.1:{plain.server_port}/") as opened:
            assert opened.exchange(HELLO, BODY).number == 31
        thread.join(5)


def test_proxies_of_the_environment_are_not_used(server: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")

    ask(server)


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def without_length(head: bytes, more: bytes = b"") -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join([*lines[:-2], *([more] if more else []), b"", b""])


@pytest.mark.parametrize("form", ["chunked", "closed"])
def test_a_length_need_not_be_said(tmp_path: Path, form: str) -> None:
    head = said(31, TOKEN, body=b"")

    def script(_: Request) -> Iterator[bytes]:
        if form == "chunked":
            yield without_length(head, b"Transfer-Encoding: chunked") + chunked(BODY, 3)
        else:
            yield without_length(head, b"Connection: close") + BODY
            yield b""

    with party(tmp_path, script) as server:
        ask(server)


@pytest.mark.parametrize("form", ["length", "chunked", "closed"])
def test_the_largest_message_is_read_and_no_larger_one(tmp_path: Path, form: str) -> None:
    """A uint16 says how much the other side may send."""

    def script(request: Request) -> Iterator[bytes]:
        body = b"x" * (MESSAGE_LIMIT if "fits" in request.path else MESSAGE_LIMIT + 1)
        head = said(31, TOKEN, body=b"")
        if form == "length":
            yield said(31, TOKEN, body=body)
        elif form == "chunked":
            yield without_length(head, b"Transfer-Encoding: chunked") + chunked(body, 1000)
        else:
            yield without_length(head, b"Connection: close") + body
            yield b""

    with party(tmp_path, script) as server:
        with channel(f"{server.url}/fits") as opened:
            assert len(opened.exchange(HELLO, BODY).body) == MESSAGE_LIMIT
        with channel(server.url) as opened, pytest.raises(ProtocolViolation, match="more than 65535 bytes"):
            opened.exchange(HELLO, BODY)


def test_a_body_that_is_cut_off_is_no_answer(tmp_path: Path) -> None:
    def script(_: Request) -> Iterator[bytes]:
        yield said(31, TOKEN)[:-4]
        yield b""

    with party(tmp_path, script) as server, pytest.raises(ServerUnreachable):
        ask(server)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_ends_at_the_deadline(tmp_path: Path, part: str) -> None:
    def script(_: Request) -> Iterator[bytes]:
        whole = said(31, TOKEN, body=b"x" * 1000)
        begin = 0 if part == "head" else len(whole) - 1000
        yield whole[:begin] or whole[:1]
        for place in range(begin or 1, len(whole)):
            time.sleep(0.05)
            yield whole[place : place + 1]

    with party(tmp_path, script) as server, channel(server.url, timeout=0.5) as opened:
        begin = time.monotonic()
        with pytest.raises(ServerUnreachable):
            opened.exchange(HELLO, BODY)
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirection_is_not_followed(tmp_path: Path, status: str) -> None:
    with party(tmp_path, good) as other:
        location = f"Location: {other.url}/fdo/101/msg/30"
        with party(tmp_path, lambda _: said(31, TOKEN, location, status=status)) as server:
            with pytest.raises(ProtocolViolation, match="redirects"):
                ask(server)
            assert len(server.requests) == 1
        assert other.requests == []


@pytest.mark.parametrize("number", ["", "30", "32", "33", "031", "31, 31", "thirty-one", "31.0", "٣١"])
def test_an_answer_of_another_message_type_is_refused(tmp_path: Path, number: str) -> None:
    reply = answer(BODY, "200 OK", "application/cbor", "Message-Type: XX", TOKEN).replace(b"XX", number.encode())
    with party(tmp_path, lambda _: reply) as server, pytest.raises(ProtocolViolation, match="answers message 30 with"):
        ask(server)


@pytest.mark.parametrize(
    ("status", "content_type"),
    [("200 OK", "text/html"), ("200 OK", ""), ("201 Created", "application/cbor"), ("500 Oops", "application/cbor")],
)
def test_what_is_no_message_is_refused(tmp_path: Path, status: str, content_type: str) -> None:
    reply = answer(BODY, status, content_type, "Message-Type: 31", TOKEN)
    with party(tmp_path, lambda _: reply) as server, pytest.raises(ProtocolViolation, match="no message"):
        ask(server)


def test_what_is_compressed_is_refused(tmp_path: Path) -> None:
    with (
        party(tmp_path, lambda _: said(31, TOKEN, "Content-Encoding: gzip")) as server,
        pytest.raises(ProtocolViolation),
    ):
        ask(server)


# --- message 255: FDO 1.1, 3.7


ERROR = ErrorMessage(6, 30, "not found")
FORMS = {
    "int": (cbor.encode([6, 30, "not found", 1_700_000_000, 5]), ERROR),
    "nulls": (cbor.encode([6, 30, "not found", None, None]), ERROR),
    "tag": (cbor.encode([6, 30, "not found", cbor.Tagged(1, 1_700_000_000), None]), ERROR),
    "date": (cbor.encode([6, 30, "not found", cbor.Tagged(0, "2026-11-22T12:00:00Z"), 1]), ERROR),
    "no-correlation": (cbor.encode([6, 30, "not found", None]), ERROR),
    "three-parts": (cbor.encode([6, 30, "not found"]), ERROR),
    "long": (cbor.encode([6, 30, "ä" * 5000, None, None]), ErrorMessage(6, 30, "ä" * (TEXT_LIMIT // 2))),
    "map": (cbor.encode({"error": 6}), ErrorMessage(0, 0, "")),
    "empty": (b"", ErrorMessage(0, 0, "")),
    "html": (b"<html>Not found</html>", ErrorMessage(0, 0, "")),
    "two": (cbor.encode([6, 30]), ErrorMessage(0, 0, "")),
    "large-code": (cbor.encode([70000, 30, "", None, None]), ErrorMessage(0, 0, "")),
    "zeros": (b"\0" * 200, ErrorMessage(0, 0, "")),
    "bomb": (b"\x9b" + b"\xff" * 8, ErrorMessage(0, 0, "")),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "401 No", "405 No", "415 No", "500 Oops"])
def test_an_error_comes_with_any_status_and_in_any_form(tmp_path: Path, form: str, status: str) -> None:
    body, expected = FORMS[form]
    with (
        party(tmp_path, lambda _: said(255, body=body, status=status)) as server,
        pytest.raises(ErrorReceived) as error,
    ):
        ask(server)

    assert error.value.said == expected
    assert isinstance(error.value, EnrollmentRefused)
    assert ("the error 6" in error.value.what) == (expected.code == 6)
    assert len(error.value.what) < 1000


@pytest.mark.parametrize("content_type", ["text/plain", ""])
def test_an_error_may_be_of_any_content_type(tmp_path: Path, content_type: str) -> None:
    reply = answer(ERROR.encode(), "500 Oops", content_type, "Message-Type: 255")
    with party(tmp_path, lambda _: reply) as server, pytest.raises(ErrorReceived, match="the error 6: not found"):
        ask(server)


def test_an_error_text_reaches_the_screen_without_control_characters(tmp_path: Path) -> None:
    body = ErrorMessage(500, 30, "a\x1b[2Jb\nc").encode()
    with party(tmp_path, lambda _: said(255, body=body)) as server, pytest.raises(ErrorReceived) as error:
        ask(server)

    assert error.value.what.isprintable()


def test_an_error_of_ours_goes_out_with_the_token_and_fits(server: Party) -> None:
    with channel(server.url) as opened:
        opened.exchange(HELLO, BODY)
        opened.report(ErrorMessage(101, 31, "ä" * 5000))

    reported = server.requests[-1]
    assert reported.path == "/fdo/101/msg/255"
    assert reported.headers["authorization"] == TOKEN.partition(": ")[2]
    assert ErrorMessage.read(reported.body) == ErrorMessage(101, 31, "ä" * (TEXT_LIMIT // 2))


@pytest.mark.parametrize("reply", [b"", b"nonsense", answer(b"", "404 Not Found"), answer(b"", "302 Found")])
def test_whether_an_error_of_ours_arrives_does_not_matter(tmp_path: Path, reply: bytes) -> None:
    with party(tmp_path, lambda _: reply) as server:
        url = server.url
        with channel(url) as opened:
            opened.report(ErrorMessage(101, 31, "wrong"))
    with channel(url) as opened:
        opened.report(ErrorMessage(101, 31, "nobody listens any more"))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", ["a" * 64 + ".example", "rendezvous..example"], ids=["long label", "empty label"])
def test_a_name_that_no_host_can_have_is_a_server_that_is_not_there(scheme: str, name: str) -> None:
    """RFC 1035 2.3.4. A name in a redirection comes from a server that has proved nothing."""
    with channel(f"{scheme}://{name}:8080") as opened, pytest.raises(ServerUnreachable):
        opened.exchange(HELLO, BODY)


# --- a run of a protocol


def run(server: Party, error: Exception | None = None) -> None:
    """Ask once; then something is wrong."""
    with channel(server.url) as opened, Conversation(opened) as conversation:
        conversation.ask(HELLO, BODY)
        if error:
            raise error


def test_what_breaks_the_protocol_is_reported_with_the_message_that_does(server: Party) -> None:
    with pytest.raises(ProtocolViolation, match="in message 31: Wrong") as violation:
        run(server, Fault("Wrong.", ErrorCode.INVALID_GUID))

    assert isinstance(violation.value.__cause__, Fault)
    assert ErrorMessage.read(server.requests[-1].body) == ErrorMessage(ErrorCode.INVALID_GUID, 31, "Wrong.")


def test_an_answer_that_is_no_message_is_reported(tmp_path: Path) -> None:
    with party(tmp_path, lambda _: said(33, TOKEN)) as server:
        with pytest.raises(ProtocolViolation):
            run(server)

        reported = ErrorMessage.read(server.requests[-1].body)
    assert (reported.code, reported.previous) == (ErrorCode.INVALID_MESSAGE, 30)


def test_what_is_our_own_trouble_is_reported_without_its_cause(server: Party) -> None:
    with pytest.raises(KeyStoreError):
        run(server, KeyStoreError("The token of the scanner is locked."))

    reported = ErrorMessage.read(server.requests[-1].body)
    assert reported.code == ErrorCode.INTERNAL
    assert "token" not in reported.text


def test_a_certificate_that_is_refused_is_the_trouble_of_who_gave_it(server: Party) -> None:
    with pytest.raises(CertificateRefused):
        run(server, CertificateRefused("The CA sent no certificate for this key.", remedy="None.", code="c"))

    reported = ErrorMessage.read(server.requests[-1].body)
    assert (reported.code, reported.text) == (ErrorCode.INVALID_MESSAGE, "The CA sent no certificate for this key.")


def test_an_error_of_the_other_side_is_not_answered(tmp_path: Path) -> None:
    with party(tmp_path, lambda _: said(255, body=ERROR.encode())) as server, pytest.raises(ErrorReceived):
        run(server)

    assert len(server.requests) == 1
