"""The configuration of a pretend scanner, for trying out. Everything of it lies in one directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from enroll.evaluation.ca import USERNAME, EvaluationCa
from enroll.statefile import StateFiles

SERIAL_NUMBER = "CT-0001"
CONFIGURATION = """\
# A pretend scanner for trying out, made by scanseal. Every option: systemd/scanseal.toml
state_directory = "{directory}/scanner"

[device]
model = "CT 9000"
serial_number = "{serial_number}"
hardware_type = "1.3.6.1.4.1.32473.1.1"

[keystore.software]
passphrase_file = "{directory}/passphrase"

{enrollment}
[socket]
path = "{directory}/sign.sock"
group = "{group}"

[roles]
acquisition = ["user:{user}"]
derivation = ["user:{user}"]
synthesis = ["user:{user}"]
"""

EST = """\
[est]
url = "{url}"{label}
anchor_file = "{anchor}"
username = "{username}"
password_file = "{password}"
"""
FDO = """\
[fdo]
factory_mode = true
manufacturer_url = "{url}"
"""


def configuration_file(directory: Path) -> Path:
    """Where the configuration is, in the directory of an evaluation server."""
    return directory / "scanseal.toml"


def write_configuration(ca: EvaluationCa, url: str, label: str = "") -> Path:
    """Write scanseal.toml, and what it names, next to an evaluation CA. What is there may have been edited and stays.

    Args:
        ca: The CA that the scanner enrolls with.
        url: Its address.
        label: EST label, where it has one.

    Returns:
        The configuration file.

    Raises:
        StateError: It cannot be written.
    """
    enrollment = EST.format(
        url=url,
        label=label and f'\nlabel = "{label}"',
        anchor=ca.anchor_file,
        username=USERNAME,
        password=ca.password_file,
    )
    return _write(ca.directory, enrollment)


def write_fdo_configuration(directory: Path, manufacturer_url: str) -> Path:
    """The same for a scanner that is made and taken over by FIDO Device Onboard; raises as `write_configuration`.

    As on every scanner, an owner that is not the first has to be approved.

    Args:
        directory: Where it is written.
        manufacturer_url: Where the scanner gets its first credential.

    Returns:
        The configuration file.
    """
    return _write(directory, FDO.format(url=manufacturer_url))


def _write(directory: Path, enrollment: str) -> Path:
    files = StateFiles()
    path = configuration_file(directory)
    if path.exists():
        return path
    passphrase = directory / "passphrase"
    if not passphrase.exists():
        files.write(passphrase, secrets.token_urlsafe(32).encode())
    content = CONFIGURATION.format(
        directory=directory,
        serial_number=SERIAL_NUMBER,
        enrollment=enrollment,
        user=os.getuid(),
        group=os.getgid(),
    )
    files.write(path, content.encode("utf-8"))
    return path
