"""What a conversation with a CMP server begins with: its address, the anchors, and who signs on this side."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cryptography import x509

from enroll.errors import (
    CertificateRefused,
    ConfigurationError,
    KeyDamaged,
    KeyNotFound,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.flows.base import FlowContext
from enroll.flows.cmp.protection import Signer
from enroll.flows.cmp.transaction import Channel
from enroll.http import HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.revocation.record import RevocationRecords
from enroll.tls import client_context
from enroll.trust import read_anchors, read_ca_certificates, verify_chain

_LOG = logging.getLogger(__name__)


def configured_anchors(context: FlowContext) -> tuple[x509.Certificate, ...]:
    """The CA certificates in `[cmp]`.

    Raises:
        ConfigurationError: There are none, or there is no address for them.
    """
    settings = context.settings.cmp
    if not settings.url:
        raise ConfigurationError("[cmp] url is not set.", remedy="Set the address of the CMP server, with its path.")
    return read_anchors(settings.anchor_file, context.files, "[cmp]")


def open_channel(context: FlowContext, anchors: tuple[x509.Certificate, ...], signer: Signer) -> Channel:
    """The configured server; its session is to be closed.

    Args:
        context: Of the enroller.
        anchors: What answers must lead to.
        signer: Of our messages.

    Raises:
        ConfigurationError: The CA certificate of the server's address cannot be read.
    """
    settings = context.settings.cmp
    of_server = settings.server_anchor_file
    tls_anchors = anchors if of_server is None else read_ca_certificates(of_server, context.files)
    session = HttpsSession(client_context(tls_anchors), context.clock, settings.timeout, plain=True)
    return Channel(settings.url, session, signer, anchors, context.clock, settings.answered_by)


def signer_of_requests(context: FlowContext, anchors: Sequence[x509.Certificate]) -> Signer:
    """The device identity; the factory's, where the scanner has no device identity that this CA can trust.

    Raises:
        ScansealError: Neither can be used.
    """
    try:
        device = context.identities.current(IdentityName.DEVICE)
        if device is not None:
            verify_chain(device.certificate, device.chain, anchors, context.clock.now())
            RevocationRecords(context.identities).check_not_revoked(device)
            return signer_by(device, context)
    except StateUnreadable:
        raise  # it may be the best of all identities, seen by the wrong user
    except (StateError, KeyNotFound, KeyDamaged, UnsupportedKey, CertificateRefused) as error:
        _LOG.info("The device identity is not used: %s", error.what)
    factory = context.identities.current(IdentityName.IDEVID)
    if factory is None:
        raise StateError(
            "This scanner has neither a device identity of this CA nor a factory identity, which sign what is sent.",
            remedy="Get a factory identity first: scanseal enroll vendor",
            code="device-not-enrolled",
        )
    return signer_by(factory, context)


def signer_by(generation: Generation, context: FlowContext) -> Signer:
    """An identity of this scanner as the signer of messages.

    Raises:
        KeyStoreError: Its key cannot be used.
    """
    key = context.stores.load(generation.key_uri)
    return Signer(generation.identity, generation.certificate, generation.chain, key)
