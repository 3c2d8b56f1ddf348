"""A certificate request that the keyholder offers to the enroller, for a key that nobody else can use.

    pending/offer.json     the name of the key, and the request signed with it

A key in memory (`enroll.keystore.memory`) cannot be loaded by the enroller, and the keyholder has no network. So the
keyholder writes the request, and the enroller sends it. The file is written and replaced as a whole; the enroller only
reads and removes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import PARSE_ERRORS
from enroll.keystore.memory import MemoryKeyStore
from enroll.record import damaged, read_record, write_record
from enroll.statefile import StateFiles

FILE_NAME = "offer.json"

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
    values = read_record(path, _FIELDS, files)
    if not values["key_uri"].startswith(f"{MemoryKeyStore.scheme}:"):
        raise damaged(path)
    try:
        request = x509.load_pem_x509_csr(values["request"].encode("ascii"))
        signed = request.is_signature_valid
    except (*PARSE_ERRORS, UnicodeEncodeError) as error:
        raise damaged(path) from error
    if not signed:
        raise damaged(path)
    return Offer(values["key_uri"], request)
