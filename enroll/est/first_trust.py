"""The CA certificate that everything begins with: from a file, or by the fingerprint that somebody typed from paper.

Never on first use: without one of the two there is no EST. With the fingerprint, the CA certificates are fetched once
over a connection that proves nothing; the one with that fingerprint is kept, and from then on every connection is
verified with it (RFC 7030 4.1.1).

    anchors/est-by-fingerprint.pem     what was found by the fingerprint; compared with it at each use
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from enroll.anchors import by_fingerprint
from enroll.certificates import name_text, read_kept, write_kept
from enroll.errors import CertificateRefused, ConfigurationError, StateDamaged
from enroll.flows.settings import EstSettings
from enroll.foreign import printable
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import read_ca_certificates

_LOG = logging.getLogger(__name__)
_FILE_MODE = 0o640
_LABEL = re.compile(r"\s*SHA-?256( Fingerprint)?\s*[=:]?", re.IGNORECASE)  # as `openssl x509 -fingerprint` prints it
_SHA256_DIGITS, _SHA1_DIGITS = 64, 40


@dataclass(frozen=True)
class FirstTrust:
    """What is pinned for an EST server.

    Args:
        settings: `[est]`.
        directory: Where what was found by a fingerprint is kept.
        files: Reads and writes it.
    """

    settings: EstSettings
    directory: Path
    files: StateFiles

    def pinned(self) -> tuple[x509.Certificate, ...]:
        """The pinned CA certificates; none where the one with the fingerprint has not been fetched yet.

        Raises:
            ConfigurationError: Nothing is pinned, or two things are, or the fingerprint is none.
            StateUnreadable: Not for the user who runs this.
        """
        if self.settings.anchor_file and self.settings.anchor_fingerprint:
            raise ConfigurationError(
                "Both [est] anchor_file and anchor_fingerprint are set.", remedy="Decide which of them counts."
            )
        if self.settings.anchor_file:
            return read_ca_certificates(self.settings.anchor_file, self.files)
        if not self.settings.anchor_fingerprint:
            raise ConfigurationError(
                "Neither [est] anchor_file nor anchor_fingerprint is set.",
                remedy="Name the file with the certificate of the CA, or type its SHA-256 fingerprint from paper.",
            )
        wanted = sha256_digits(self.settings.anchor_fingerprint)
        if not self.files.exists(self._path):
            return ()
        try:
            return (by_fingerprint(read_kept(self._path, self.files), wanted),)
        except (StateDamaged, CertificateRefused) as error:
            _LOG.info("The CA certificate is fetched anew: %s", error.what)
            return ()

    def pin(self, fetched: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        """The CA certificate with the fingerprint, which is kept and pinned from now on.

        Args:
            fetched: From a server of which nothing is believed.

        Raises:
            CertificateRefused: None has the fingerprint.
            StateError: The disk refused.
        """
        found = by_fingerprint(fetched, sha256_digits(self.settings.anchor_fingerprint))
        self.files.make_directory(self.directory, GROUP_DIRECTORY)
        write_kept(self._path, [found], self.files, _FILE_MODE)
        _LOG.info("The CA %s has the fingerprint that is configured.", name_text(found.subject))
        return (found,)

    @property
    def _path(self) -> Path:
        return self.directory / "est-by-fingerprint.pem"


def sha256_digits(typed: str) -> str:
    """The hexadecimal digits of a fingerprint that somebody typed from paper, or copied from the output of openssl.

    Raises:
        ConfigurationError: It is no SHA-256.
    """
    digits = re.sub(r"[\s:]", "", _LABEL.sub("", typed, count=1))
    where = "[est] anchor_fingerprint"
    if re.fullmatch(r"[0-9A-Fa-f]+", digits) is None:
        raise ConfigurationError(
            f"{where} is {printable(typed)!r}.",
            remedy="Write the SHA-256 of the CA certificate: 64 digits from 0 to 9 and A to F, with or without colons.",
        )
    if len(digits) == _SHA1_DIGITS:
        raise ConfigurationError(
            f"{where} has {_SHA1_DIGITS} digits: that is a SHA-1.", remedy="Ask the CA's operator for the SHA-256."
        )
    if len(digits) != _SHA256_DIGITS:
        raise ConfigurationError(
            f"{where} has {len(digits)} digits; {_SHA256_DIGITS} are needed.",
            remedy="Compare it with the paper: a digit is missing or too much.",
        )
    return digits.lower()
