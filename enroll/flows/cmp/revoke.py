"""Giving a certificate up: rr, RFC 9483 4.2."""

from __future__ import annotations

from cryptography import x509

from enroll.errors import StateError
from enroll.flows.base import FlowContext, Revoked
from enroll.flows.cmp import messages
from enroll.flows.cmp.connection import configured_anchors, open_channel, signer_by
from enroll.flows.cmp.syntax import Body
from enroll.flows.cmp.transaction import Transaction
from enroll.identity import IdentityName


def revoke(identity: IdentityName, reason: x509.ReasonFlags, context: FlowContext) -> Revoked:
    """Ask the CA to revoke the certificate of an identity that is in use.

    The request is signed by that certificate, which shows the right to revoke it (RFC 9483 4.2). It may be revoked
    already.

    Args:
        identity: Whose.
        reason: Why (RFC 5280 5.3.1).
        context: Of the enroller.

    Returns:
        What was revoked.

    Raises:
        StateError: There is no certificate.
        KeyStoreError: Its key cannot sign; keys in memory belong to the agent.
        EnrollmentError: The CA did not revoke it.
    """
    generation = context.identities.current(identity)
    if generation is None:
        raise StateError(
            f"The identity {identity} has no certificate.", remedy="There is nothing to revoke.", code="not-enrolled"
        )
    anchors = configured_anchors(context)
    channel = open_channel(context, anchors, signer_by(generation, context))
    with channel.session:
        content = messages.revocation(generation.certificate, reason)
        answer = Transaction(channel).ask(Body.RR, content, [Body.RP])
        outcome = messages.read_revoked(answer.body, answer.content)
        # RFC 9483 4.2. The run before may have been cut off before it heard that, and nothing else is to be done.
        if isinstance(outcome, messages.Rejected) and messages.ALREADY_REVOKED in outcome.failures:
            return Revoked(generation, was_already=True)
        messages.raise_unless_done(outcome)
    return Revoked(generation)
