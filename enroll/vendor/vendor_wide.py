"""Takes a certificate into use that the vendor made for all its devices, with its key: the identity `vendor`.

    PLANNED    the name of the key is written down
    GENERATED  the key is in its store
    (commit)   the new generation is in use, by one rename

The same key lies on many machines. So its certificate must name none of them, and proves the vendor only; everything
else is judged as of a certificate that was asked for (`enroll.trust`). A key that is an object of a token already stays
where it is, and is never removed by scanseal.

A request of this identity that is under way is given up: what is imported is wanted instead. What is in use already is
not imported once more, unless its key was lost.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from enroll.certificates import check_pair
from enroll.collector import collect
from enroll.config import StoreName
from enroll.errors import (
    VENDOR,
    CertificateRefused,
    ConfigurationError,
    KeyDamaged,
    KeyNotFound,
    UnsupportedKey,
)
from enroll.failure import Failures
from enroll.flows.base import FlowContext
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.journal import Journal, PendingRequest, Step
from enroll.trust import VerifiedCertificate, check_issued, read_anchors

_ASKED = json.dumps({"flow": FlowName.VENDOR, "import": True})

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyToImport:
    """A key that came in a file; a copy of it is kept."""

    key: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True)
class KeyInToken:
    """A key that is in a token already.

    Args:
        uri: Its name (RFC 7512).
    """

    uri: str


def import_vendor_wide(
    found: KeyToImport | KeyInToken, certificates: Sequence[x509.Certificate], context: FlowContext
) -> Generation:
    """Take a certificate and its key into use, after every check has passed.

    Args:
        found: The key.
        certificates: Its certificate, and the intermediates up to `[vendor]` anchor_file; in any order.
        context: The parts of an enroller.

    Raises:
        CertificateRefused: It must not be used; `code` says which check failed.
        ConfigurationError: No anchor is pinned, or keys of this identity have to be made elsewhere.
        EnrollerBusy: Another process is enrolling.
        KeyStoreError: The key is not there, does not fit the certificate, or cannot be kept.
        StateError: The disk refused; the generation before is still in use.
    """
    noted = Failures(context.identities).noted(IdentityName.VENDOR, FlowName.VENDOR, context.clock)
    with noted, context.identities.lock():
        return _Import(found, tuple(certificates), context, context.clock.now()).run()


@dataclass(frozen=True)
class _Import:
    found: KeyToImport | KeyInToken
    certificates: tuple[x509.Certificate, ...]
    context: FlowContext
    now: datetime

    def run(self) -> Generation:
        current = self.context.identities.readable(IdentityName.VENDOR)
        key = self._key()
        verified = self._verified(key)
        check_pair(key, verified.certificate)
        self._give_up_pending()
        if current is not None and current.certificate == verified.certificate and self._has_key(current):
            return current
        uri = self.found.uri if isinstance(self.found, KeyInToken) else self._kept(self.found.key)
        generation = self.context.identities.commit(
            IdentityName.VENDOR,
            verified,
            uri,
            protection=self.context.stores.protection(uri),
            flow=FlowName.VENDOR,
            now=self.now,
        )
        self._journal.clear()
        collect(self.context.identities, self.context.stores)
        return generation

    def _key(self) -> rsa.RSAPrivateKey:
        if isinstance(self.found, KeyToImport):
            store = self.context.settings.identity.vendor.key_store
            if store is not StoreName.SOFTWARE:
                raise ConfigurationError(
                    f'[identity.vendor] key_store is "{store}", and a key that came in a file can be kept in files '
                    "only.",
                    remedy="Put it into the token with the token's own tool and import it by --key-uri; or set "
                    'key_store = "software".',
                )
            return self.found.key
        if self.found.uri.partition(":")[0] != StoreName.PKCS11:
            raise ConfigurationError("This URI names no key in a token.", remedy="It begins with pkcs11: (RFC 7512).")
        key = self.context.stores.load(self.found.uri)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UnsupportedKey("The key is not an RSA key.", remedy="Image signatures need RSA (PS3.15 C.2).")
        return key

    def _verified(self, key: rsa.RSAPrivateKey) -> VerifiedCertificate:
        anchors = read_anchors(self.context.settings.vendor.anchor_file, self.context.files, "[vendor]")
        try:
            return check_issued(
                self.certificates,
                (),
                anchors,
                public_key=key.public_key(),
                request=None,
                now=self.now,
                seen=self.context.identities.certificates(),
            )
        except CertificateRefused as error:
            # The advice of the check is about a CA that was asked; nobody was.
            remedy = "It is not imported. Get a certificate for document signing, for all devices, from the vendor."
            raise CertificateRefused(
                error.what, remedy=remedy, code=error.code, who_must_act=VENDOR, what_next="Nothing was changed."
            ) from error

    def _has_key(self, generation: Generation) -> bool:
        try:
            self.context.stores.load(generation.key_uri)
        except (KeyNotFound, KeyDamaged):
            return False
        return True

    def _give_up_pending(self) -> None:
        self._journal.clear()
        collect(self.context.identities, self.context.stores)

    def _kept(self, key: rsa.RSAPrivateKey) -> str:
        name = f"{IdentityName.VENDOR}-{secrets.token_hex(8)}"
        planned = self._journal.write(PendingRequest(Step.PLANNED, name, "", _ASKED, self.now))
        uri = self.context.stores.import_key(StoreName.SOFTWARE, name, key)
        # From here on the key goes by its URI: after the commit it is in use, and no request to be given up.
        self._journal.write(replace(planned, step=Step.GENERATED, key_uri=uri))
        return uri

    @property
    def _journal(self) -> Journal:
        return self.context.identities.journal(IdentityName.VENDOR)
