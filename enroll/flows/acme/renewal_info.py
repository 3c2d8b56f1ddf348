"""When the CA wants a renewal: ACME renewal information, RFC 9773.

    GET renewalInfo/CERTIFICATE  ->  {"suggestedWindow": {"start": ..., "end": ...}}, Retry-After

A random moment in the window is chosen once and kept until the CA suggests another window. Retry-After is both the
shortest and the longest time between two questions (4.3). Whatever cannot be used means that the scanner renews by its
own schedule (`enroll.renewal`).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509

from enroll.certificates import PARSE_ERRORS
from enroll.clock import Clock
from enroll.errors import ConfigurationError, EnrollmentError, ServerUnreachable, StateError
from enroll.flows.acme.client import AcmeClient
from enroll.flows.acme.jws import base64url
from enroll.flows.base import FlowContext
from enroll.identity import Generation
from enroll.renewal.due import latest_renewal
from enroll.renewal.silence import Purpose, Silences
from enroll.suggestion import Suggestion, Window, read_suggestion, write_suggestion

USUAL_PAUSE = timedelta(hours=6)  # RFC 9773 4.3.3: without a usable answer
SHORTEST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(days=1)  # 4.3.2

_LOG = logging.getLogger(__name__)


def certificate_id(certificate: x509.Certificate) -> str:
    """How the CA calls a certificate (4.1): the key identifier of its issuer, and its serial number as in DER.

    Empty where the certificate does not name the key of its issuer.
    """
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        issuer = None
    if not issuer:
        return ""
    number = certificate.serial_number
    return f"{base64url(issuer)}.{base64url(number.to_bytes(number.bit_length() // 8 + 1, 'big'))}"


def refresh(generation: Generation, context: FlowContext) -> None:
    """Ask the CA when it wants this certificate renewed, where it is time to, and keep what it says.

    Nothing fails with it: without an answer the scanner goes by what it knows.

    Args:
        generation: In use, and issued over ACME.
        context: Of the enroller.
    """
    now = context.clock.now()
    kept = read_suggestion(generation, context.identities, context.files)
    waits = kept is not None and now < kept.ask_again_at <= now + LONGEST_PAUSE
    if waits or now > generation.certificate.not_valid_after_utc:  # RFC 9773 4.3: not after it has expired
        return
    url, serial_number = context.settings.acme.directory_url, context.settings.device.serial_number
    silences = Silences(context.settings.state_directory, context.files)
    silence = silences.of(url, Purpose.ENROLLMENT)
    if silence is not None and silence.at <= now < silence.ask_again_at(None, serial_number):
        return
    try:
        with AcmeClient.configured(context) as client:
            client.directory()
            silences.forget(url, Purpose.ENROLLMENT)
            said = ask(client, generation.certificate, kept, context.clock, secrets.SystemRandom().random)
        write_suggestion(said, generation, context.identities, context.files)
    except ServerUnreachable as error:
        silences.note(url, Purpose.ENROLLMENT, now, error.retry_after)
        _LOG.warning("The CA does not say when it wants a renewal: %s", error)
    except (ConfigurationError, EnrollmentError, StateError) as error:
        _LOG.warning("The CA is not asked when it wants %s renewed: %s", generation.identity, error)


def ask(
    client: AcmeClient,
    certificate: x509.Certificate,
    kept: Suggestion | None,
    clock: Clock,
    fraction: Callable[[], float],
) -> Suggestion:
    """What the CA suggests now; what it suggested before where it gives no answer.

    Args:
        client: The server.
        certificate: The one in use.
        kept: What it said before.
        clock: The time.
        fraction: A random number from 0 up to 1.
    """
    name = certificate_id(certificate)
    try:
        base = client.directory().renewal_info
        if not base or not name:
            return Suggestion(clock.now() + LONGEST_PAUSE)
        reply = client.get(f"{base.rstrip('/')}/{name}")
        window = read_window(reply.document())
    except EnrollmentError as error:
        _LOG.warning("The CA does not say when it wants a renewal: %s", error)
        return replace(kept or Suggestion(clock.now()), ask_again_at=clock.now() + USUAL_PAUSE)
    pause = USUAL_PAUSE if reply.retry_after is None else reply.retry_after
    again = clock.now() + min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
    if window is None:
        return Suggestion(again)
    same = kept is not None and kept.window == window
    return Suggestion(again, window, kept.renew_at if same and kept else moment(window, certificate, fraction()))


def read_window(document: Mapping[str, object]) -> Window | None:
    """The window of an answer (4.2); None where it is none."""
    window = document.get("suggestedWindow")
    if not isinstance(window, Mapping):
        return None
    begin, end = _time(window.get("start")), _time(window.get("end"))
    return Window(begin, end) if begin and end and begin < end else None


def moment(window: Window, certificate: x509.Certificate, fraction: float) -> datetime:
    """The moment in a window that is chosen (4.2): any, but with time left before the certificate ends."""
    end = max(min(window.end, latest_renewal(certificate)), window.begin)
    return window.begin + (end - window.begin) * fraction


def _time(text: object) -> datetime | None:
    """RFC 3339, with a zone; in UTC."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
        return moment.astimezone(UTC) if moment and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
