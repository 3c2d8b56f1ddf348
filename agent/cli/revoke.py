"""`scanseal revoke`."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography import x509

from agent.cli import exits
from agent.cli.enrolling import OWNER_IDENTITIES
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.certificates import serial_text
from enroll.clock import SystemClock
from enroll.config import EnrollSettings
from enroll.enroller import Enroller
from enroll.errors import CA_OPERATOR, ConfigurationError, StateDamaged, StateError
from enroll.flows.base import FlowContext, Revoked
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.revocation.lists import Revocation
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.statefile import StateFiles

_REASONS = (  # RFC 5280 5.3.1; the others are for CAs, or do not last
    x509.ReasonFlags.unspecified,
    x509.ReasonFlags.key_compromise,
    x509.ReasonFlags.affiliation_changed,
    x509.ReasonFlags.superseded,
    x509.ReasonFlags.cessation_of_operation,
)


@click.command("revoke")
@config_option
@click.option(
    "--identity",
    type=click.Choice([identity.value for identity in OWNER_IDENTITIES]),
    required=True,
    help="Whose certificate.",
)
@click.option(
    "--reason",
    type=click.Choice([reason.value for reason in _REASONS]),
    default=x509.ReasonFlags.unspecified.value,
    show_default=True,
    help="What the CA's revocation list says.",
)
@json_option
def command(config: Path, *, identity: str, reason: str, as_json: bool) -> int:
    """Ask the CA to revoke the certificate of an identity that is in use.

    It goes the way that the certificate came, and works for ACME and CMP; other CAs are asked by telephone. The agent
    stops signing with the certificate at once. After superseded and cessationOfOperation the timer (scanseal renew)
    gets the next one by itself; otherwise somebody has to enroll again.

    \b
    Exit code: 0 revoked, 69 no answer from the CA, or it is not the one you named, 77 the CA refused,
               78 the configuration has to be corrected.

    \b
    Example: scanseal revoke --identity device --reason superseded
    """
    protect_memory()
    generation, known = _revoke(IdentityName(identity), x509.ReasonFlags(reason), configuration(config).enroll)
    serial_number = serial_text(generation.certificate)
    show(
        {"identity": identity, "generation": generation.number, "serial_number": serial_number, "reason": known},
        f"{identity}: the certificate {serial_number} of generation {generation.number} is revoked. "
        f"Enroll again to replace it: scanseal enroll {generation.flow} --identity {identity}",
        as_json=as_json,
    )
    return exits.OK


def _revoke(identity: IdentityName, reason: x509.ReasonFlags, settings: EnrollSettings) -> tuple[Generation, str]:
    """What was revoked, and the reason that is known of it now."""
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        context = enroller.context
        current = context.identities.current(identity)
        if current is None:
            raise StateError(
                f"The identity {identity} has no certificate.",
                remedy="There is nothing to revoke.",
                code="not-enrolled",
            )
        revoked = _by(current, reason, context)
        return revoked.generation, _note(revoked, reason, context)


def _note(revoked: Revoked, reason: x509.ReasonFlags, context: FlowContext) -> str:
    """Let the agent know at once (docs/adr/0028-cmp.md): the CA may have neither OCSP nor a list.

    What the CA has said of it before stays, and where it had revoked it before, nobody here knows why.
    """
    now, generation, records = context.clock.now(), revoked.generation, RevocationRecords(context.identities)
    known = _known(generation, records)
    if known is not None and known.is_final:
        return known.reason
    if revoked.was_already:
        reason = x509.ReasonFlags.unspecified
    record = RevocationRecord(
        generation=generation.number,
        serial=serial_text(generation.certificate),
        checked_at=now,
        state=RevocationState.REVOKED,
        revocation=Revocation(now, reason.value),
        as_of=now,
        answered_at=now,
        source="scanseal revoke",
    )
    records.write(generation, record)
    return reason.value


def _known(generation: Generation, records: RevocationRecords) -> Revocation | None:
    try:
        record = records.of(generation)
    except StateDamaged:
        return None  # written anew
    return record.revocation if record else None


def _by(current: Generation, reason: x509.ReasonFlags, context: FlowContext) -> Revoked:
    match FlowName(current.flow):
        case FlowName.ACME:
            from enroll.flows.acme.revoke import revoke as revoke_by_acme

            return revoke_by_acme(current.identity, reason, context)
        case FlowName.CMP:
            from enroll.flows.cmp.revoke import revoke as revoke_by_cmp

            return revoke_by_cmp(current.identity, reason, context)
        case _:
            raise ConfigurationError(
                f"A certificate that came by {current.flow} cannot be revoked from here.",
                remedy=f"Tell the operator of the CA its serial number: {serial_text(current.certificate)}",
                who_must_act=CA_OPERATOR,
            )
