"""`scanseal acme-account`."""

from __future__ import annotations

from pathlib import Path

import click

from agent.cli import exits
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.clock import SystemClock
from enroll.enroller import Enroller
from enroll.statefile import StateFiles


@click.command("acme-account")
@config_option
@click.option("--new-key", is_flag=True, help="Give the account a new key; the old one is destroyed.")
@json_option
def command(config: Path, *, new_key: bool, as_json: bool) -> int:
    """Show the account of this scanner at the CA in [acme], or give it a new key.

    The account is made where there is none yet. A new key is of the kind and in the store that [acme] says
    (RFC 8555 7.3.5).

    \b
    Exit code: 0 done, 69 no answer from the CA, 77 the CA refused, 78 the configuration has to be corrected.

    \b
    Example: scanseal acme-account --new-key
    """
    from enroll.flows.acme.account import Account
    from enroll.flows.acme.client import AcmeClient

    protect_memory()
    with Enroller.configured(configuration(config).enroll, SystemClock(), StateFiles()) as enroller:
        context = enroller.context
        with context.identities.lock(), AcmeClient.configured(context) as client:
            account = Account(client, context)
            if new_key:
                account.roll_over()
            url, key_uri = account.signer().account_url, account.key_uri()
    show({"url": url, "key": key_uri}, f"Account {url}, with the key {key_uri}", as_json=as_json)
    return exits.OK
