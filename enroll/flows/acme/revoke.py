"""Giving a certificate up: revokeCert, RFC 8555 7.6."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.errors import StateError
from enroll.flows.acme.account import Account
from enroll.flows.acme.client import AcmeClient, Signer, offered
from enroll.flows.acme.jws import base64url
from enroll.flows.acme.problem import ALREADY_REVOKED, NO_ACCOUNT, UNAUTHORIZED, AcmeProblem
from enroll.flows.base import FlowContext, Revoked
from enroll.identity import Generation, IdentityName

_REASONS = {  # RFC 5280 5.3.1
    x509.ReasonFlags.unspecified: 0,
    x509.ReasonFlags.key_compromise: 1,
    x509.ReasonFlags.affiliation_changed: 3,
    x509.ReasonFlags.superseded: 4,
    x509.ReasonFlags.cessation_of_operation: 5,
}


def revoke(identity: IdentityName, reason: x509.ReasonFlags, context: FlowContext) -> Revoked:
    """Ask the CA to revoke the certificate of an identity that is in use.

    The account that ordered it shows the right to revoke it; where that is lost, its own key does. It may be revoked
    already.

    Args:
        identity: Whose.
        reason: Why (RFC 5280 5.3.1).
        context: Of the enroller.

    Returns:
        What was revoked.

    Raises:
        StateError: There is no certificate.
        KeyStoreError: A key cannot sign.
        EnrollmentError: The CA did not revoke it.
    """
    generation = context.identities.current(identity)
    if generation is None:
        raise StateError(
            f"The identity {identity} has no certificate.", remedy="There is nothing to revoke.", code="not-enrolled"
        )
    with AcmeClient.configured(context) as client, context.identities.kept_lock():
        signer = Account(client, context).known()
        if signer is not None:
            try:
                return _send(client, signer, generation, reason)
            except AcmeProblem as problem:
                if problem.kind not in (UNAUTHORIZED, NO_ACCOUNT):
                    raise
        return _send(client, Signer(context.stores.load(generation.key_uri)), generation, reason)


def _send(client: AcmeClient, signer: Signer, generation: Generation, reason: x509.ReasonFlags) -> Revoked:
    encoded = base64url(generation.certificate.public_bytes(serialization.Encoding.DER))
    url = offered(client.directory().revoke_certificate, "revocation")
    try:
        client.post(url, signer, {"certificate": encoded, "reason": _REASONS.get(reason, 0)})
    except AcmeProblem as problem:
        # RFC 8555 7.6. The run before may have been cut off before it heard that, and nothing else is to be done.
        if problem.kind != ALREADY_REVOKED:
            raise
        return Revoked(generation, was_already=True)
    return Revoked(generation)
