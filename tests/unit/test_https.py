"""HTTPS with the pinned trust and nothing else, whatever the environment of the process suggests."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.clock import Clock, SystemClock
from enroll.csr import CertificateRequest, Usage
from enroll.errors import (
    ConfigurationError,
    KeyMismatch,
    KeyNotFound,
    KeyStoreError,
    KeyStoreUnavailable,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.http import CLIENT_CERTIFICATE_REFUSED, Answer, HttpsSession, get_unverified
from enroll.keystore.base import KeyFile
from enroll.tls import ClientIdentity, client_context
from enroll.tls.connection import ClientContext
from tests.support.pki import DEVICE, Content, HospitalCa, new_key
from tests.support.scripted_server import ScriptedServer, answer

CA = HospitalCa()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(CA, tmp_path, lambda _: answer(b"hello", "200 OK", "Text/Plain; charset=utf-8")) as running:
        yield running


class ClockIn1970(SystemClock):
    """Which nobody believes."""

    def now(self) -> datetime:
        return datetime(1970, 1, 2, tzinfo=UTC)


def get(server: ScriptedServer, context: ClientContext, clock: Clock | None = None) -> Answer:
    with HttpsSession(context, clock or SystemClock(), 5) as session:
        return session.get(f"{server.url}/path", {"Accept": "text/plain"})


def identity(tmp_path: Path, *, passphrase: bytes = b"right", other_key: bool = False) -> ClientIdentity:
    key = new_key()
    content = Content.asked(CertificateRequest.for_device(DEVICE, Usage.DEVICE), datetime.now(UTC))
    certificate = CA.issue((new_key() if other_key else key).public_key(), content)
    chain_file, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.BestAvailableEncryption(b"right")
    pkcs8 = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, encryption))
    return ClientIdentity(chain_file, KeyFile(key_file, lambda: passphrase))


def test_an_answer_is_read(server: ScriptedServer) -> None:
    answered = get(server, client_context([CA.certificate]))

    assert (answered.status, answered.body, answered.content_type) == (200, b"hello", "text/plain")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_adds_no_trust(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(HospitalCa("Another CA").certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv(variable, str(bundle))
    context = client_context([CA.certificate])

    assert context.cert_store_stats()["x509"] == 1
    get(server, context)
    assert context.cert_store_stats()["x509"] == 1


def test_the_environment_makes_no_detour(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")

    assert get(server, client_context([CA.certificate])).status == 200


def test_a_password_file_of_the_user_is_not_looked_at(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login scanner password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    get(server, client_context([CA.certificate]))

    assert "authorization" not in server.requests[0].headers


def test_a_foreign_server_is_refused(server: ScriptedServer) -> None:
    with pytest.raises(ServerUnreachable, match="does not prove to be the right server"):
        get(server, client_context([HospitalCa("Another CA").certificate]))
    assert server.requests == []


@pytest.mark.parametrize("days", [-10, 10], ids=["has ended", "not begun"])
def test_a_server_is_refused_outside_of_its_certificate_and_a_clock_that_is_not_believed_is_named(
    tmp_path: Path, days: int
) -> None:
    """TLS goes by the clock of the machine: where that is wrong, so may be the refusal (ADR 36)."""
    context = client_context([CA.certificate])
    with ScriptedServer(CA, tmp_path, lambda _: answer(), certified=datetime.now(UTC) + timedelta(days=days)) as server:
        with pytest.raises(ServerUnreachable, match="does not prove to be the right server") as refused:
            get(server, context)
        with pytest.raises(ServerUnreachable, match="by the clock of this machine") as doubted:
            get(server, client_context([CA.certificate]), ClockIn1970())

    assert refused.value.code == ServerUnreachable.code
    assert doubted.value.code == "clock-suspect"
    assert "The clock shows 1970-01-02" in doubted.value.what
    assert "scanseal check --clock-is-right" in doubted.value.remedy
    assert server.requests == []


def test_a_foreign_server_is_not_blamed_on_the_clock(server: ScriptedServer) -> None:
    with pytest.raises(ServerUnreachable, match="does not prove to be the right server") as refused:
        get(server, client_context([HospitalCa("Another CA").certificate]), ClockIn1970())
    assert refused.value.code == ServerUnreachable.code


def test_an_old_root_without_key_usage_is_trusted_on_every_python(tmp_path: Path) -> None:
    """Python 3.13 would refuse it by default."""
    old = HospitalCa("Old root", usage=None)
    with ScriptedServer(old, tmp_path, lambda _: answer()) as server:
        assert get(server, client_context([old.certificate])).status == 200


def test_an_issuing_ca_can_be_pinned_alone(tmp_path: Path) -> None:
    issuing = HospitalCa("Issuing CA", CA)
    with ScriptedServer(issuing, tmp_path, lambda _: answer()) as server:
        assert get(server, client_context([issuing.certificate])).status == 200


def test_tls_is_1_2_or_later() -> None:
    context = client_context([CA.certificate])

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_device_proves_itself_with_its_certificate(
    server: ScriptedServer, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = client_context([CA.certificate], identity(tmp_path))
    context.minimum_version = context.maximum_version = version
    get(server, context)

    client = server.requests[0].client
    assert isinstance(client, x509.Certificate)
    assert client.subject == CertificateRequest.for_device(DEVICE, Usage.DEVICE).subject


def test_a_wrong_passphrase_is_an_error_and_no_question(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="passphrase"):
        client_context([CA.certificate], identity(tmp_path, passphrase=b"wrong"))


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyMismatch, match="not that of the certificate"):
        client_context([CA.certificate], identity(tmp_path, other_key=True))


def test_a_missing_key_file_is_an_error(tmp_path: Path) -> None:
    client = identity(tmp_path)
    (tmp_path / "key.pem").unlink()

    with pytest.raises(KeyNotFound, match="is gone"):
        client_context([CA.certificate], client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_the_server_does_not_know_is_named_as_the_cause(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """RFC 8446 6.2."""
    other = tmp_path / "other"
    other.mkdir()
    with ScriptedServer(HospitalCa("Another CA"), other, lambda _: answer()) as stranger:
        context = client_context([stranger.ca.certificate], identity(tmp_path))
        context.minimum_version = context.maximum_version = version
        for _ in range(10):  # with TLS 1.3 the alert is easily lost
            with pytest.raises(ServerUnreachable, match="certificate of this device") as error:
                get(stranger, context)
            assert error.value.code == CLIENT_CERTIFICATE_REFUSED


def test_a_server_that_speaks_no_tls_is_unreachable(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["python3", "-m", "http.server", "--bind", "127.0.0.1", "0"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as plain:
        assert plain.stdout
        port = plain.stdout.readline().split("port ")[1].split()[0]
        with (
            HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session,
            pytest.raises(ServerUnreachable, match="No TLS connection"),
        ):
            session.get(f"https://127.0.0.1:{port}/", {})
        plain.terminate()


def test_plain_http_is_not_spoken_unless_it_is_asked_for() -> None:
    with (
        HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session,
        pytest.raises(ServerUnreachable, match="No connection adapters"),
    ):
        session.get("http://127.0.0.1:1/", {})


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://127.0.0.1:9/"])
def test_however_a_connection_fails_the_server_is_unreachable(
    url: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: connect(2) may say all of these; urllib3 looks away from two of them where there is no TLS."""

    def connect(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "connect", connect)
    with (
        HttpsSession(client_context([CA.certificate]), SystemClock(), 5, plain=True) as session,
        pytest.raises(ServerUnreachable, match=os.strerror(number)),
    ):
        session.get(url, {})


def test_the_head_alone_is_read(tmp_path: Path) -> None:
    """RFC 9110 9.3.2 and 5.3: no body follows, whatever the head says; headers of one name are one list."""
    links = 'Link: <https://ca.example/1>;rel="up"', 'Link: <https://ca.example/2>;rel="alternate"'
    said = answer(b"", "200 OK", "text/plain", "Replay-Nonce: abc", *links).replace(b"Length: 0", b"Length: 5")
    with (
        ScriptedServer(CA, tmp_path, lambda _: said) as server,
        HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session,
    ):
        answered = session.head(f"{server.url}/new-nonce")
        assert session.head(f"{server.url}/new-nonce").headers["replay-nonce"] == "abc"

    assert (server.requests[0].method, answered.body) == ("HEAD", b"")
    assert answered.headers["link"] == '<https://ca.example/1>;rel="up", <https://ca.example/2>;rel="alternate"'


# --- what is linked to the connection (RFC 5929 3, RFC 7030 3.5)


def linked(session: HttpsSession, server: ScriptedServer) -> Answer:
    return session.post_linked(
        f"{server.url}/enroll", {"Content-Type": "text/plain"}, lambda unique: unique.hex().encode()
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED])
def test_a_linked_body_holds_tls_unique_of_the_connection_that_it_goes_over(
    server: ScriptedServer, version: ssl.TLSVersion
) -> None:
    server._context.maximum_version = version
    with HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session:
        session.get(f"{server.url}/csrattrs", {})
        assert linked(session, server).status == 200
        assert linked(session, server).status == 200

    first, *posts = server.requests
    assert [post.tls_version for post in posts] == ["TLSv1.2", "TLSv1.2"]
    for post in posts:
        assert post.tls_unique
        assert post.body == post.tls_unique.hex().encode()
        assert int(post.headers["content-length"]) == len(post.body)
        assert "transfer-encoding" not in post.headers
    assert posts[0].tls_unique != first.tls_unique


def test_on_a_new_connection_it_is_another_one(tmp_path: Path) -> None:
    """A server that closes the connection after each answer."""

    def closing(_: object) -> Iterator[bytes]:
        yield answer(b"", "200 OK", "text/plain", "Connection: close")
        yield b""

    with (
        ScriptedServer(CA, tmp_path, closing) as server,
        HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session,
    ):
        for _ in range(2):
            linked(session, server)

    bodies = [post.body for post in server.requests]
    assert bodies == [post.tls_unique.hex().encode() for post in server.requests if post.tls_unique]
    assert len(set(bodies)) == 2


def test_with_tls_1_3_alone_nothing_linked_is_sent(server: ScriptedServer) -> None:
    """RFC 9266 1: TLS 1.3 has no tls-unique, though Python gives one."""
    server._context.minimum_version = ssl.TLSVersion.TLSv1_3
    with HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session:
        session.get(f"{server.url}/csrattrs", {})
        with pytest.raises(ProtocolViolation, match="has to be linked") as violation:
            linked(session, server)

    assert violation.value.code == "proof-of-possession-impossible"
    assert [request.method for request in server.requests] == ["GET"]


def test_a_key_that_does_not_sign_ends_the_exchange(server: ScriptedServer) -> None:
    def refuse(_: bytes) -> bytes:
        raise KeyStoreUnavailable("The token is away.")

    with (
        HttpsSession(client_context([CA.certificate]), SystemClock(), 5) as session,
        pytest.raises(KeyStoreUnavailable, match="away"),
    ):
        session.post_linked(f"{server.url}/enroll", {}, refuse)
    assert server.requests == []


def test_many_addresses_that_do_not_answer_take_the_time_of_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the name decides how many addresses it has."""
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):  # its queue is full then, and Linux answers no further one
            early = waiting.enter_context(socket.socket())
            early.settimeout(0)
            early.connect_ex(deaf.getsockname())
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", deaf.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address] * 50)
        begin = time.monotonic()
        with (
            HttpsSession(client_context([CA.certificate]), SystemClock(), 1, plain=True) as session,
            pytest.raises(ServerUnreachable),
        ):
            session.get("https://many.example/", {})

    assert time.monotonic() - begin < 5


# --- what proves itself (RFC 7030 4.1.1)


def test_without_an_anchor_something_can_be_fetched_once(tmp_path: Path) -> None:
    """From anybody; over a connection that carries neither a certificate nor anything else of ours."""
    with ScriptedServer(HospitalCa("Stranger"), tmp_path, lambda _: answer(b"x")) as stranger:
        answered = get_unverified(f"{stranger.url}/cacerts", {"Accept": "a/b"}, SystemClock(), 5)

    assert answered.body == b"x"
    (request,) = stranger.requests
    assert request.client is None
    assert set(request.headers) == {"host", "user-agent", "accept-encoding", "accept"}


def test_an_anchor_that_tls_cannot_use_is_a_matter_of_configuration() -> None:
    class Unusable:
        def public_bytes(self, _: object) -> bytes:
            return b"\x30\x00"

    with pytest.raises(ConfigurationError, match="anchor_file"):
        client_context([Unusable()])  # type: ignore[list-item]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    assert "right" not in repr(identity(tmp_path))


def test_what_another_library_left_in_openssl_does_not_matter() -> None:
    """Libraries of tokens use the same OpenSSL and leave their errors in the queue of the thread."""
    _ssl = pytest.importorskip("_ssl")
    libcrypto = ctypes.CDLL(getattr(_ssl, "__file__", None))
    if not hasattr(libcrypto, "ERR_set_error"):
        pytest.skip("OpenSSL cannot be reached from here: use a Python that loads OpenSSL 3 as a library")
    libcrypto.ERR_new()
    libcrypto.ERR_set_error(38, 116, None)  # ERR_LIB_ENGINE, ENGINE_R_NO_SUCH_ENGINE

    assert len(client_context([CA.certificate]).get_ca_certs()) == 1
