"""`scanseal attest`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import attested, exits
from agent.cli.options import config_option, configuration, json_option, show
from enroll.attestation.attest import ATTESTABLE, Attestation, store_of
from enroll.clock import SystemClock
from enroll.errors import ConfigurationError, ScansealError, StateUnreadable
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.statefile import StateFiles


@click.command("attest")
@config_option
@json_option
def command(config: Path, *, as_json: bool) -> int:
    """Make evidence that the keys of this scanner are in its TPM or its token.

    It is made for every identity in use whose key is there, and kept beside it. For keys in a TPM, `scanseal renew`
    makes it anew by itself; for those in a token run this again after a renewal. The attestation CA in [attestation] is
    asked where its certificates are missing or have expired.

    \b
    Exit code: 0 all of them are attested, 69 the attestation CA does not answer, or the TPM or token is not available
               now, 77 the CA refused, 78 there is nothing to attest, or the configuration or a key store has to be
               corrected; otherwise that of the first failure.

    \b
    Example: scanseal attest --config /etc/scanseal/scanseal.toml
    """
    settings = configuration(config).enroll
    files = StateFiles()
    attestation = Attestation.configured(settings, SystemClock(), files)
    identities = IdentityStore(settings.state_directory, files)
    records: dict[str, Any] = {}
    codes = []
    with identities.lock():
        for name in IdentityName:
            try:
                generation = identities.current(name)
                if generation is None or store_of(generation) not in ATTESTABLE:
                    continue
                records[name] = _attest(generation, attestation)
                codes.append(exits.OK)
            except StateUnreadable:
                raise  # it is the same for all
            except ScansealError as error:
                # One identity that cannot be attested must not keep the others from it.
                records[name] = {"state": "failed", "error": exits.described(error)}
                codes.append(exits.exit_code(error))
    if not records:
        raise ConfigurationError(
            "No identity in use has its key in a TPM or a token, so there is nothing to attest.",
            remedy='Set [identity.device] key_store = "tpm", and enroll.',
        )
    lines = [f"{name:10} {attested.text(record)}" for name, record in records.items()]
    show({"identities": records}, "\n".join(lines), as_json=as_json)
    return next((code for code in codes if code != exits.OK), exits.OK)


def _attest(generation: Generation, attestation: Attestation) -> dict[str, Any]:
    attestation.attest(generation)
    return attested.record(generation, attestation)
