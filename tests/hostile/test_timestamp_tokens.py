"""Whatever stands in Certified Timestamp (0400,0310), or comes from an authority: it proves a time or has a code."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.dicom.stamping import StampableInstance
from agent.dicom.timestamp import verify_time_stamp
from agent.errors import DicomError
from enroll.clock import SystemClock
from enroll.der import OCTET_STRING, encode, object_identifier
from enroll.errors import ConfigurationError, ProtocolViolation, ScansealError, ServerUnreachable, TimeStampError
from enroll.time_stamp_authority import REPLY_TYPE, TimeStampAuthority, new_query, read_response
from enroll.trust import CLOCK_SKEW
from tests.support.certificates import Authority, rsa_key
from tests.support.dicom_samples import mutants, small_instance
from tests.support.pki import CA_KEY_USAGE, NOW, HospitalCa
from tests.support.product_signing import sign
from tests.support.scripted_server import ScriptedServer, answer
from tests.support.time_stamp_authority import Reply, Tsa, TsaContent, new_tsa, time_stamp_server
from tests.support.time_stamp_tokens import (
    CONTENT_TYPE,
    DATA,
    ECDSA,
    MESSAGE_DIGEST,
    NULL,
    RSA_ENCRYPTION,
    SIGNING_CERTIFICATE,
    SIGNING_CERTIFICATE_V2,
    Attributes,
    Recipe,
    algorithm,
    integer,
    sequence,
    token,
)

MUTANTS = 2_000
SIGNATURE = b"the value of a signature"
CA = HospitalCa()
TSA = new_tsa(CA)
OTHER = new_tsa(CA)
STRANGER = new_tsa(HospitalCa("Another CA"))
WEB_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
STAMPING = ExtendedKeyUsageOID.TIME_STAMPING
WEEK = timedelta(days=7)
SECONDS = 1.0  # the deadline of these tests


def code(made: bytes, stamped: bytes = SIGNATURE, now: datetime = NOW, nonce: int | None = None) -> str:
    """The code of the refusal; without the part that all have in common."""
    with pytest.raises(TimeStampError) as refused:
        verify_time_stamp(made, stamped, [CA.certificate], now, nonce=nonce)
    assert refused.value.what
    assert refused.value.remedy
    return refused.value.code.removeprefix("time-stamp-")


def without(*kinds: str) -> Callable[[Attributes], Attributes]:
    return lambda attributes: {kind: values for kind, values in attributes.items() if kind not in kinds}


def with_values(kind: str, *values: bytes) -> Callable[[Attributes], Attributes]:
    return lambda attributes: {**attributes, kind: list(values)}


GOOD = token(TSA, SIGNATURE, NOW)
CRITICAL = encode(0xA1, sequence(object_identifier("1.2.3.4"), b"\x01\x01\xff", encode(OCTET_STRING, NULL)))
ID_OF_NOBODY = sequence(sequence(sequence(encode(OCTET_STRING, bytes(32)))))
OLD_ID_OF_NOBODY = sequence(sequence(sequence(encode(OCTET_STRING, bytes(20)))))


def made(tsa: Tsa = TSA, **recipe: object) -> bytes:
    return token(tsa, SIGNATURE, NOW, replace(Recipe(), **recipe))  # type: ignore[arg-type]


def certified(**content: object) -> bytes:
    return made(new_tsa(CA, content=replace(TsaContent(), **content)))  # type: ignore[arg-type]


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    # what it is
    "empty": ("truncated", lambda: b""),
    "one byte": ("truncated", lambda: b"\x30"),
    "truncated": ("truncated", lambda: GOOD[:-1]),
    "indefinite length": ("truncated", lambda: b"\x30\x80" + GOOD[4:] + b"\0\0"),
    "trailing bytes": ("trailing-bytes", lambda: GOOD + b"\0\0"),
    "two tokens": ("trailing-bytes", lambda: GOOD + GOOD),
    "too large": ("too-large", lambda: encode(0x30, bytes(70_000))),
    "no DER inside": ("malformed", lambda: b"\x30\x02\x30\x80"),
    "something else in DER": ("malformed", lambda: sequence(integer(1))),
    "a response instead of its token": ("malformed", lambda: sequence(sequence(integer(0)), GOOD)),
    "other content": ("wrong-content", lambda: made(content_type=DATA)),
    "version 2": ("malformed", lambda: made(version=2)),
    "a critical extension": ("malformed", lambda: made(extra=CRITICAL)),
    "an accuracy of a century": ("malformed", lambda: made(accuracy=sequence(integer(3_155_760_000)))),
    "a negative accuracy": ("malformed", lambda: made(accuracy=sequence(integer(-1)))),
    # who signed
    "no signer": ("signers", lambda: made(signers=0)),
    "two signers": ("signers", lambda: made(signers=2)),
    "no certificate": ("certificate-missing", lambda: made(certificates=())),
    "the certificate of another": ("certificate-missing", lambda: made(certificates=(OTHER.certificate,))),
    "eleven certificates": ("certificate-missing", lambda: made(certificates=(TSA.certificate,) * 11)),
    "certificate not bound": ("certificate-unbound", lambda: made(attributes=without(SIGNING_CERTIFICATE_V2))),
    "bound to another": (
        "certificate-unbound",
        lambda: made(attributes=with_values(SIGNING_CERTIFICATE_V2, ID_OF_NOBODY)),
    ),
    "bound to another by one of two": (
        "certificate-unbound",
        lambda: made(attributes=with_values(SIGNING_CERTIFICATE, OLD_ID_OF_NOBODY)),
    ),
    "bound to nothing": (
        "malformed",
        lambda: made(attributes=with_values(SIGNING_CERTIFICATE_V2, sequence(sequence()))),
    ),
    # signed attributes
    "no signed attributes": ("malformed", lambda: made(attributes=lambda _: {})),
    "no content type": ("malformed", lambda: made(attributes=without(CONTENT_TYPE))),
    "another content type": ("malformed", lambda: made(attributes=with_values(CONTENT_TYPE, object_identifier(DATA)))),
    "no message digest": ("malformed", lambda: made(attributes=without(MESSAGE_DIGEST))),
    "two message digests": (
        "malformed",
        lambda: made(attributes=with_values(MESSAGE_DIGEST, encode(OCTET_STRING, b"1"), encode(OCTET_STRING, b"2"))),
    ),
    # strength
    "imprint by SHA-1": ("weak", lambda: made(imprint_hash="sha1")),
    "imprint by MD5": ("weak", lambda: made(imprint_hash="md5")),
    "signed with SHA-1": ("weak", lambda: made(new_tsa(CA, rsa_key(2048)), digest="sha1")),
    "a small key": ("weak", lambda: made(new_tsa(CA, rsa_key(1024)))),
    "RSA named, ECDSA meant": ("weak", lambda: made(signature_algorithm=algorithm(RSA_ENCRYPTION, NULL))),
    "another hash named": ("weak", lambda: made(signature_algorithm=algorithm(ECDSA["sha512"]))),
    "an unknown algorithm": ("weak", lambda: made(signature_algorithm=algorithm("1.2.3.4"))),
    # what is signed
    "time changed afterwards": ("changed", lambda: made(after_signing=lambda info: info.replace(b"2026", b"2016"))),
    "imprint changed afterwards": (
        "changed",
        lambda: made(imprint=bytes(32), after_signing=lambda info: info.replace(bytes(32), bytes([1] * 32))),
    ),
    "signed by another key": ("changed", lambda: made(TSA.signed_by(OTHER.key))),
    "wrong imprint": ("wrong-imprint", lambda: made(imprint=bytes(32))),
    "imprint of the wrong size": ("wrong-imprint", lambda: made(imprint=hashlib.sha256(SIGNATURE).digest()[:31])),
    "token of another signature": ("wrong-imprint", lambda: token(TSA, b"another signature", NOW)),
    # the certificate
    "no extended key usage": ("wrong-usage", lambda: certified(purposes=())),
    "another extended key usage": ("wrong-usage", lambda: certified(purposes=(WEB_SERVER,))),
    "a second extended key usage": ("wrong-usage", lambda: certified(purposes=(STAMPING, WEB_SERVER))),
    "extended key usage not critical": ("wrong-usage", lambda: certified(critical=False)),
    "key usage of a CA": ("wrong-usage", lambda: certified(key_usage=CA_KEY_USAGE)),
    "expired": ("certificate-expired", lambda: certified(end=NOW - WEEK)),
    "not yet valid": ("certificate-expired", lambda: certified(begin=NOW + WEEK)),
    "foreign CA": ("untrusted", lambda: made(STRANGER)),
    "anchor in the token": ("untrusted", lambda: made(replace(STRANGER, chain=(STRANGER.anchor,)))),
    # when
    "future": ("in-future", lambda: token(TSA, SIGNATURE, NOW + CLOCK_SKEW + timedelta(seconds=1))),
}


@pytest.mark.parametrize(("expected", "make"), CASES.values(), ids=CASES)
def test_each_defect_has_its_code(expected: str, make: Callable[[], bytes]) -> None:
    assert code(make()) == expected


def test_the_untouched_token_is_accepted() -> None:
    assert verify_time_stamp(GOOD, SIGNATURE, [CA.certificate], NOW).time == NOW


@pytest.mark.parametrize("stated", [None, 6, 2**64])
def test_a_token_that_answers_another_query_is_refused(stated: int | None) -> None:
    assert code(made(nonce=stated), nonce=7) == "wrong-nonce"


def test_without_anchors_nobody_is_trusted() -> None:
    with pytest.raises(TimeStampError, match="not trusted"):
        verify_time_stamp(GOOD, SIGNATURE, [], NOW)


def test_an_intermediate_that_is_given_is_not_trusted_by_itself() -> None:
    with pytest.raises(TimeStampError, match="not trusted"):
        verify_time_stamp(made(STRANGER), SIGNATURE, [CA.certificate], NOW, [STRANGER.anchor])


def test_a_ca_that_expired_before_the_token_vouches_for_nothing() -> None:
    old = HospitalCa("Old CA", end=NOW - WEEK)
    with pytest.raises(TimeStampError) as refused:
        verify_time_stamp(made(new_tsa(old)), SIGNATURE, [old.certificate], NOW)
    assert refused.value.code == "time-stamp-untrusted"


def test_a_certificate_with_an_unknown_kind_of_key_is_weak() -> None:
    class Edwards:
        """Signs with Ed25519 where the token says ECDSA."""

        def __init__(self) -> None:
            self.inner = ed25519.Ed25519PrivateKey.generate()

        def public_key(self) -> ed25519.Ed25519PublicKey:
            return self.inner.public_key()

        def sign(self, data: bytes, _: object) -> bytes:
            return self.inner.sign(data)

    assert code(made(new_tsa(CA, Edwards()))) == "weak"  # type: ignore[arg-type]


def test_every_beginning_of_a_token_is_truncated() -> None:
    assert {code(GOOD[:length]) for length in range(len(GOOD))} == {"truncated"}


def test_mutated_tokens_prove_nothing_or_what_the_whole_one_proves() -> None:
    codes = set()
    rich = made(nonce=7, accuracy=sequence(integer(1)), extra=encode(0xA0, encode(0xA4, CA.name.public_bytes())))
    for mutant in mutants(rich, MUTANTS, seed=3161):
        try:
            # What no signature covers may change: unknown certificates, the lists of algorithms.
            assert verify_time_stamp(mutant, SIGNATURE, [CA.certificate], NOW).time == NOW
        except TimeStampError as error:
            codes.add(error.code)
    assert len(codes) > 5


def test_every_flipped_bit_of_a_token_is_noticed_or_changes_nothing() -> None:
    codes = set()
    for bit in range(0, len(GOOD) * 8, 3):
        mutant = bytearray(GOOD)
        mutant[bit // 8] ^= 1 << bit % 8
        try:
            assert verify_time_stamp(bytes(mutant), SIGNATURE, [CA.certificate], NOW).time == NOW
        except TimeStampError as error:
            codes.add(error.code)
    assert {"time-stamp-changed", "time-stamp-malformed"} <= codes


# --- from an authority ---


def granted(inner: bytes = GOOD) -> bytes:
    return sequence(sequence(integer(0)), inner)


def test_a_response_gives_its_token() -> None:
    assert read_response(granted()) == GOOD


def test_a_refusal_says_why() -> None:
    text = sequence(encode(0x0C, b"no \x07 time"))
    rejection = sequence(sequence(integer(2), text, b"\x03\x03\x01\x00\x02"))
    with pytest.raises(TimeStampError, match="no   time, timeNotAvailable") as refused:
        read_response(rejection)
    assert refused.value.code == "time-stamp-refused"


@pytest.mark.parametrize(
    "response",
    [b"", b"\x30", granted()[:-1], granted() + b"\0", b"<html>", sequence(), bytes(200_000), sequence(GOOD)],
    ids=["empty", "one byte", "cut off", "trailing byte", "HTML", "no status", "too large", "status is a token"],
)
def test_what_is_no_response_is_told_apart(response: bytes) -> None:
    with pytest.raises(TimeStampError) as refused:
        read_response(response)
    assert refused.value.code == "time-stamp-response-malformed"


def test_granted_without_a_token_is_a_refusal() -> None:
    with pytest.raises(TimeStampError) as refused:
        read_response(sequence(sequence(integer(0))))
    assert refused.value.code == "time-stamp-refused"


def test_mutated_responses_give_a_token_or_a_code() -> None:
    codes = set()
    for mutant in mutants(granted(), MUTANTS, seed=1):
        try:
            verify_time_stamp(read_response(mutant), SIGNATURE, [CA.certificate], NOW)
        except TimeStampError as error:
            codes.add(error.code)
    assert {"time-stamp-response-malformed", "time-stamp-malformed"} <= codes


def asked(reply: Reply) -> bytes:
    with (
        time_stamp_server(reply) as url,
        TimeStampAuthority(url, [CA.certificate], SystemClock(), SECONDS) as authority,
    ):
        return authority.token(new_query(SIGNATURE, 7))


def slowly(_: bytes) -> tuple[int, str, bytes]:
    time.sleep(SECONDS * 2)
    return 200, REPLY_TYPE, granted()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (lambda _: (500, REPLY_TYPE, granted()), ServerUnreachable),
        (lambda _: (503, "text/html", b""), ServerUnreachable),
        (lambda _: (404, "text/html", b"not here"), ProtocolViolation),
        (lambda _: (200, "text/html", granted()), ProtocolViolation),
        (lambda _: (302, REPLY_TYPE, granted()), ProtocolViolation),
        (lambda _: (200, REPLY_TYPE, bytes(2 << 20)), ProtocolViolation),
        (lambda _: (200, REPLY_TYPE, bytes(500_000)), TimeStampError),
        (lambda _: (200, REPLY_TYPE, b""), TimeStampError),
        (slowly, ServerUnreachable),
    ],
    ids=["500", "503", "404", "wrong type", "redirect", "endless", "too large", "empty", "slow"],
)
def test_an_authority_may_answer_what_it_likes(reply: Reply, expected: type[ScansealError]) -> None:
    with pytest.raises(expected):
        asked(reply)


@pytest.mark.parametrize("trusted", [True, False])
def test_an_authority_with_https_has_to_be_the_one_it_says(tmp_path: Path, *, trusted: bool) -> None:
    anchors = [CA.certificate if trusted else STRANGER.anchor]
    with (
        ScriptedServer(CA, tmp_path, lambda _: answer(granted(), content_type=REPLY_TYPE)) as server,
        TimeStampAuthority(server.url, anchors, SystemClock(), SECONDS) as authority,
    ):
        if trusted:
            assert authority.token(new_query(SIGNATURE, 7)) == GOOD
            return
        with pytest.raises(ServerUnreachable, match="does not prove"):
            authority.token(new_query(SIGNATURE, 7))


@contextmanager
def dripping_server() -> Iterator[str]:
    """Sends a header that has no end, one byte every fifth of the deadline."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while not stop.wait(SECONDS / 5):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            stop.set()
            thread.join()


def test_an_authority_that_sends_a_byte_now_and_then_is_not_waited_for() -> None:
    """The deadline is that of the whole exchange, without TLS as well."""
    begun = time.monotonic()
    with dripping_server() as url, TimeStampAuthority(url, [CA.certificate], SystemClock(), SECONDS) as authority:
        with pytest.raises(ServerUnreachable):
            authority.token(new_query(SIGNATURE, 7))
        assert time.monotonic() - begun < SECONDS * 3


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tsa.example",
        "ftp://tsa.example/",
        "http://",
        "http://user:secret@tsa.example/",
        "http://[::1",
        "http://a:x/",
    ],
)
def test_an_address_that_is_none_is_a_matter_of_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError):
        TimeStampAuthority(url, [CA.certificate], SystemClock())


# --- in an instance ---


def test_mutated_instances_are_stamped_or_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    signer = Authority(tmp_path_factory.mktemp("ca"), datetime.now(NOW.tzinfo)).issue("signer", rsa_key(2048))
    signed = sign(small_instance(), signer)
    for mutant in mutants(signed, 500, seed=2):
        try:
            instance = StampableInstance.read(mutant)
            instance.edits(dict.fromkeys(range(len(instance.signatures)), GOOD))
        except DicomError:
            continue
