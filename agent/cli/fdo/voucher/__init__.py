"""`scanseal fdo voucher`."""

from __future__ import annotations

import click

from agent.cli.fdo.voucher import extend, owners, show, verify


@click.group("voucher")
def command() -> None:
    """Show, verify and pass on ownership vouchers (FDO 1.1): who made a scanner, who has owned it, who owns it now.

    A voucher goes with a scanner from owner to owner, as a file: PEM ("OWNERSHIP VOUCHER") or CBOR. No configuration is
    needed, nothing goes over the network, and any machine will do. A voucher that does not hold is refused by all of
    these commands, and nothing of it is shown.

    \b
    When a scanner is bought:  scanseal fdo voucher verify voucher.pem --manufacturer-anchor vendor-ca.pem
    Who had it before:         scanseal fdo voucher owners voucher.pem
    Fingerprints for [fdo]:    scanseal fdo voucher show voucher.pem
    When it is sold:           scanseal fdo voucher extend voucher.pem --key our-key.pem --to their-certificate.pem ...
    """


for _command in (show.command, verify.command, owners.command, extend.command):
    command.add_command(_command)
