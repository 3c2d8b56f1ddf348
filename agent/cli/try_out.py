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

[est]
url = "{url}"{label}
anchor_file = "{anchor}"
username = "{username}"
password_file = "{password}"

[socket]
path = "{directory}/sign.sock"
group = "{group}"

[roles]
acquisition = ["user:{user}"]
derivation = ["user:{user}"]
synthesis = ["user:{user}"]
"""


def configuration_file(directory: Path) -> Path:
    """Where the configuration is, in the directory of an evaluation CA."""
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
    files = StateFiles()
    path = configuration_file(ca.directory)
    if path.exists():
        return path
    passphrase = ca.directory / "passphrase"
    if not passphrase.exists():
        files.write(passphrase, secrets.token_urlsafe(32).encode())
    content = CONFIGURATION.format(
        directory=ca.directory,
        serial_number=SERIAL_NUMBER,
        url=url,
        label=label and f'\nlabel = "{label}"',
        anchor=ca.anchor_file,
        username=USERNAME,
        password=ca.password_file,
        user=os.getuid(),
        group=os.getgid(),
    )
    files.write(path, content.encode("utf-8"))
    return path
