"""Asking a time stamp authority for a token (RFC 3161): the query, the response, and HTTP between them (section 3.4).

Whether a token proves anything is not decided here: `agent.dicom.timestamp` judges it, wherever it came from. That is
why the connection may be one without TLS.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509

from enroll import der
from enroll import time_stamp_syntax as syntax
from enroll.clock import Clock
from enroll.errors import ConfigurationError, ProtocolViolation, ServerUnreachable, TimeStampError
from enroll.foreign import printable
from enroll.http import HttpsSession
from enroll.tls import client_context

QUERY_TYPE = "application/timestamp-query"
REPLY_TYPE = "application/timestamp-reply"
TIMEOUT = 30.0  # seconds for one exchange
RESPONSE_LIMIT = 128 * 1024  # bytes
NONCE_BITS = 64

_GRANTED = (0, 1)  # granted, grantedWithMods
_FAILURES = {  # PKIFailureInfo, RFC 3161 2.4.2
    0: "badAlg",
    2: "badRequest",
    5: "badDataFormat",
    14: "timeNotAvailable",
    15: "unacceptedPolicy",
    16: "unacceptedExtension",
    17: "addInfoNotAvailable",
    25: "systemFailure",
}


def new_query(message: bytes, nonce: int | None) -> bytes:
    """The DER of a query for a token that holds the authority's certificate. The authority sees the hash only.

    Args:
        message: What is to be stamped.
        nonce: A random number of `NONCE_BITS` bits that comes back in the token; None for a query that is answered
            later, by somebody who no longer knows it.
    """
    algorithm = syntax.AlgorithmIdentifier(algorithm=syntax.SHA_256, parameters=syntax.NULL)
    imprint = syntax.MessageImprint(hash_algorithm=algorithm, hashed_message=hashlib.sha256(message).digest())
    query = syntax.TimeStampReq(version=1, message_imprint=imprint, req_policy=None, nonce=nonce, cert_req=True)
    return syntax.encoded(query)


def read_response(response: bytes) -> bytes:
    """The token in a response, not judged.

    Raises:
        TimeStampError: It is no response (`time-stamp-response-malformed`), or the authority refused
            (`time-stamp-refused`).
    """
    decoded = _decoded(response)
    if decoded.status.status not in _GRANTED or decoded.time_stamp_token is None:
        reasons = ", ".join(_reasons(decoded.status)) or "no reason given"
        raise TimeStampError(
            f"The time stamp authority refuses, with status {decoded.status.status}: {reasons}.",
            remedy="Ask its operator.",
            code="time-stamp-refused",
        )
    return der.encode(der.SEQUENCE, b"".join(map(syntax.whole, decoded.time_stamp_token)))


def _decoded(response: bytes) -> syntax.TimeStampResp:
    malformed = TimeStampError(
        "The answer is not the response of a time stamp authority.",
        remedy="Check the address, or that the file is a TimeStampResp in DER, as `openssl ts -reply` writes it.",
        code="time-stamp-response-malformed",
    )
    if len(response) > RESPONSE_LIMIT or not der.is_one_value(response):
        raise malformed
    try:
        return syntax.decoded(syntax.TimeStampResp, response)
    except ValueError as error:
        raise malformed from error


def _reasons(status: syntax.PkiStatusInfo) -> Iterator[str]:
    yield from map(printable, (status.status_string or ())[:3])
    if status.fail_info is not None:
        octets = status.fail_info.as_bytes()
        bits = (bit for bit in range(len(octets) * 8) if octets[bit // 8] & 0x80 >> bit % 8)
        yield from (_FAILURES[bit] for bit in bits if bit in _FAILURES)


class TimeStampAuthority:
    """A connection to one authority, kept open between queries.

    Args:
        url: Its address, of plain HTTP or HTTPS.
        anchors: CA certificates that, beside those of this machine, may vouch for its HTTPS server.
        clock: Measures the deadline.
        timeout: Seconds for one exchange.

    Raises:
        ConfigurationError: The address cannot be used.
    """

    def __init__(self, url: str, anchors: Sequence[x509.Certificate], clock: Clock, timeout: float = TIMEOUT) -> None:
        if not _is_address(url):
            raise ConfigurationError(
                f"{printable(url)!r} is no address of a time stamp authority.", remedy="Give it as http://host/path."
            )
        context = client_context(anchors)
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        self._url = url
        self._session = HttpsSession(context, clock, timeout, plain=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def token(self, query: bytes) -> bytes:
        """The token that answers a query, not judged.

        Raises:
            ServerUnreachable: No complete answer in time, or the server cannot give one now.
            ProtocolViolation: Not the answer of a time stamp authority.
            TimeStampError: The authority refuses.
        """
        answer = self._session.post(self._url, {"Content-Type": QUERY_TYPE, "Accept": REPLY_TYPE}, query)
        server = urlsplit(self._url).hostname
        if answer.status >= 500:  # noqa: PLR2004 - RFC 9110 15.6: the server is at fault
            raise ServerUnreachable(
                f"{server} cannot answer now, with HTTP status {answer.status}.", remedy="Try again later."
            )
        if answer.status != 200 or answer.content_type != REPLY_TYPE:  # noqa: PLR2004 - RFC 9110 15.3.1: OK
            raise ProtocolViolation(
                f"{server} answers with HTTP status {answer.status} and {answer.content_type or 'no type'!r}.",
                remedy="Check the address of the time stamp authority.",
            )
        return read_response(answer.body)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        return usable and parts.username is None  # a password would stand in the list of processes
    except ValueError:
        return False
