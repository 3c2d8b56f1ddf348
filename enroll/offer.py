"""A certificate request that the keyholder offers to the enroller, for a key that nobody else can use.

    pending/offer.json     the name of the key, and the request signed with it

A key in memory (`enroll.keystore.memory`) cannot be loaded by the enroller, and the keyholder has no network. So the
keyholder writes the request, and the enroller sends it. The file is written and replaced as a whole, and belongs to the
keyholder alone: the enroller only reads it, so an offer that is made while it works is never lost. An offer is over
when its key has a certificate, or when the key's time is.

What is offered is compared with what this identity asks for: whoever can write the file gets no other certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll import csr
from enroll.algorithms import KeyAlgorithm
from enroll.certificates import PARSE_ERRORS, private_key_usage_period, public_key_info
from enroll.config import SigningIdentitySettings
from enroll.csr import CertificateRequest
from enroll.errors import StateError, UnsupportedKey
from enroll.keystore.base import KEY_NAME, Protection, PublicKey
from enroll.keystore.keys import CURVES, RSA_BITS, RSA_EXPONENT
from enroll.keystore.memory import MemoryKeyStore
from enroll.record import damaged, read_record, write_record
from enroll.statefile import StateFiles

FILE_NAME = "offer.json"
PERIOD_MARGIN = timedelta(hours=1)  # a key may be used from some time before it was made on, for slow clocks

_FIELDS = ("key_uri", "request")


@dataclass(frozen=True)
class Offer:
    """One request.

    Args:
        key_uri: Names the key in the keyholder's memory.
        request: Signed with it.
    """

    key_uri: str
    request: x509.CertificateSigningRequest

    @property
    def public_key(self) -> PublicKey:
        """Of the key.

        Raises:
            UnsupportedKey: It is of no kind that we make.
        """
        key = self.request.public_key()
        if not isinstance(key, PublicKey):
            raise UnsupportedKey("A key of this kind is never used.", remedy="Restart the agent: it makes another.")
        return key

    def is_over(self, in_use: x509.Certificate | None, now: datetime) -> bool:
        """Whether there is nothing left to do: the key has a certificate, or its time is over.

        Args:
            in_use: The certificate of the generation in use, where there is one.
            now: The time of the decision.
        """
        if in_use is not None and public_key_info(in_use.public_key()) == public_key_info(self.public_key):
            return True
        _, end = private_key_usage_period(self.request) or (None, None)
        return end is not None and end < now


def write_offer(offer: Offer, pending: Path, files: StateFiles) -> None:
    """Put an offer into the `pending` directory of an identity, in place of the one before.

    Raises:
        StateError: The disk refused.
    """
    files.make_directory(pending)
    text = offer.request.public_bytes(serialization.Encoding.PEM).decode("ascii")
    write_record(pending / FILE_NAME, {"key_uri": offer.key_uri, "request": text}, files)


def read_offer(pending: Path, files: StateFiles) -> Offer | None:
    """The offer in the `pending` directory of an identity; None where there is none.

    Raises:
        StateError: There is one, and it is damaged, not signed with its own key, or for a key of another store.
    """
    path = pending / FILE_NAME
    if not files.exists(path):
        return None
    try:
        values = read_record(path, _FIELDS, files)
    except StateError:
        if files.exists(path):
            raise
        return None  # taken back by the keyholder at this very moment
    scheme, _, name = values["key_uri"].partition(":")
    if scheme != MemoryKeyStore.scheme or not KEY_NAME.fullmatch(name):
        raise damaged(path)
    try:
        offer = Offer(values["key_uri"], x509.load_pem_x509_csr(values["request"].encode("ascii")))
        private_key_usage_period(offer.request)
        signed = offer.request.is_signature_valid and public_key_info(offer.public_key)
    except (*PARSE_ERRORS, UnicodeEncodeError, UnsupportedKey) as error:
        raise damaged(path) from error
    if not signed:
        raise damaged(path)
    return offer


def check_offer(offer: Offer, request: CertificateRequest, settings: SigningIdentitySettings) -> None:
    """Refuse an offer that is not exactly what the keyholder makes with this configuration.

    Args:
        offer: As read.
        request: What the identity asks for.
        settings: How its keys are made.

    Raises:
        StateError: It is another one (`offer-unfit`).
    """
    if not _is_of_kind(offer.public_key, settings.key_algorithm):
        raise _unfit(f"its key is not of the kind {settings.key_algorithm}")
    if different := csr.difference(offer.request, request, Protection.MEMORY):
        raise _unfit(f"not as configured: {different}")
    begin, end = private_key_usage_period(offer.request) or (None, None)
    if begin is None or end is None or end - begin > timedelta(days=settings.key_lifetime) + PERIOD_MARGIN:
        raise _unfit(f"its key is to be used for longer than {settings.key_lifetime} days")


def _is_of_kind(key: PublicKey, algorithm: KeyAlgorithm) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size == RSA_BITS.get(algorithm) and key.public_numbers().e == RSA_EXPONENT
    return algorithm in CURVES and key.curve.name == CURVES[algorithm].name


def _unfit(why: str) -> StateError:
    return StateError(
        f"The certificate request in {FILE_NAME} is not sent: {why}.",
        remedy="Restart the agent, so that it reads the configuration and makes another key. If that does not help, "
        "somebody else wrote the request.",
        code="offer-unfit",
    )
