"""`scanseal fdo init`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli import exits
from agent.cli.options import config_option, configuration, json_option, show
from agent.daemon.hardening import protect_memory
from enroll.clock import SystemClock
from enroll.config import DeviceSettings, EnrollSettings, StoreName
from enroll.enroller import Enroller
from enroll.errors import VENDOR, ConfigurationError, EnrollmentError, KeyStoreError
from enroll.fdo.credential import CredentialStore, DeviceCredential, fdo_directory, has_credential
from enroll.fdo.di import Initialization, Product
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.transport import HttpChannel, Pins, context_for
from enroll.flows.base import FlowContext
from enroll.foreign import printable
from enroll.keystore.base import Protection
from enroll.options import read_settings
from enroll.statefile import StateFiles


@click.command("init")
@config_option
@click.option("--serial-number", help="Serial number of the scanner. Default: [device] serial_number.")
@click.option("--device-info", help="Its model, as its vouchers will name it. Default: [device] model.")
@json_option
def command(config: Path, serial_number: str | None, device_info: str | None, *, as_json: bool) -> int:
    """In the factory: make the key of this scanner, and fetch its first credential from the manufacturer (FDO DI).

    The manufacturer's server is [fdo] manufacturer_url. It proves nothing: whoever answers there can hand the scanner
    on. So this is for the network of a factory line, and works only while [fdo] factory_mode is true. The key and the
    secret are made in [fdo] key_store and stay there for the life of the scanner, whoever owns it.

    What is interrupted leaves nothing behind: run the command again. The manufacturer may have a voucher then that no
    scanner belongs to.

    \b
    Exit code: 0 the credential is made, 69 no answer from the manufacturer, or not a proper one, 77 the manufacturer
               refused, 78 the configuration or a key store has to be corrected, or there is a credential already.

    \b
    Examples: scanseal fdo init
              scanseal fdo init --serial-number CT-4711 --device-info "Example CT"
    """
    protect_memory()
    settings = configuration(config).enroll
    product = _product(settings, serial_number, device_info)
    if not has_credential(fdo_directory(settings.state_directory), StateFiles()):
        click.echo(f"Making the keys in {product.key_store}, then asking {settings.fdo.manufacturer_url} ...", err=True)
    with Enroller.configured(settings, SystemClock(), StateFiles()) as enroller:
        credential = _initialize(product, enroller.context)
        protection = enroller.context.stores.protection(credential.key_uri)
    show(_record(product, credential, protection), _text(product, credential), as_json=as_json)
    if protection is not Protection.HARDWARE:
        click.echo(
            f"The key is in {protection}: who copies it is this scanner for good. "
            'Set [fdo] key_store to "tpm" or "pkcs11", where there is one.',
            err=True,
        )
    return exits.OK


def _product(settings: EnrollSettings, serial_number: str | None, device_info: str | None) -> Product:
    """What is made, if this is a factory.

    Raises:
        ConfigurationError: It is none, or something is missing.
    """
    fdo = settings.fdo
    if not fdo.factory_mode:
        raise ConfigurationError(
            "This scanner is not in its factory: [fdo] factory_mode is false.",
            remedy="On the factory line, set it to true. Anywhere else nothing is to be done: a scanner without an FDO "
            "credential gets its certificates on another way, see scanseal enroll --help.",
            code="fdo-not-in-factory",
        )
    if not fdo.manufacturer_url:
        raise ConfigurationError(
            "[fdo] manufacturer_url is not set.", remedy="Write the address of the manufacturer's server there."
        )
    named = {"serial_number": serial_number or settings.device.serial_number}
    model = settings.device.model if device_info is None else device_info
    device = read_settings(DeviceSettings, {**named, "model": model}, "[device]")
    if not device.model:
        raise ConfigurationError(
            "The model of the scanner is not known.", remedy="Set [device] model, or name it with --device-info."
        )
    return Product(
        device.serial_number,
        device.model,
        StoreName(fdo.key_store),
        fdo.token,
        fdo.key_algorithm,
        KeyEncoding[fdo.key_encoding],
    )


def _initialize(product: Product, context: FlowContext) -> DeviceCredential:
    fdo, directory = context.settings.fdo, fdo_directory(context.settings.state_directory)
    credentials = CredentialStore(directory, context.stores, context.files)
    run = Initialization(product, context.stores, credentials, directory, context.files)
    try:
        with (
            context.identities.lock(),
            HttpChannel(fdo.manufacturer_url, context_for(Pins()), context.clock, fdo.timeout) as channel,
        ):
            return run.run(channel)
    except (EnrollmentError, KeyStoreError) as error:
        if isinstance(error, EnrollmentError):
            error.who_must_act = VENDOR
        error.what_next = "No credential was made. Run the command again; no timer does."
        raise


def _record(product: Product, credential: DeviceCredential, protection: Protection) -> dict[str, Any]:
    return {
        "guid": credential.guid.hex(),
        "serial_number": product.serial_number,
        "device_info": credential.device_info,
        "key": credential.key_uri,
        "protection": protection,
    }


def _text(product: Product, credential: DeviceCredential) -> str:
    return (
        f"{printable(credential.device_info)} {product.serial_number} has its FDO credential, with the GUID "
        f"{credential.guid.hex()}. The manufacturer has the voucher.\n"
        "Now: set [fdo] factory_mode = false, so that nobody makes another one.\n"
        "At the owner: scanseal enroll fdo"
    )
