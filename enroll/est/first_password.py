"""The user name and password that a scanner without any certificate proves itself with (RFC 7030 3.2.3)."""

from __future__ import annotations

from enroll.errors import ConfigurationError, KeyStoreUnavailable
from enroll.est.authentication import Password
from enroll.flows.settings import EstSettings
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles


def first_password(settings: EstSettings, files: StateFiles) -> Password:
    """What is configured.

    Args:
        settings: `[est]`.
        files: Reads the file with the password.

    Raises:
        ConfigurationError: Not set, or the file cannot be used. Never holds the password.
    """
    path = settings.password_file
    if not settings.username or path is None:
        missing = "password_file" if settings.username else "username"
        raise ConfigurationError(
            f"[est] {missing} is not set.",
            remedy="Set [est] username and password_file: a scanner without a certificate proves itself with them.",
        )
    try:
        secret = read_secret(path, "[est] password_file", files)
    except KeyStoreUnavailable as error:
        raise ConfigurationError(error.what, remedy=error.remedy) from error
    advice = f"Compare [est] username and the content of {path} with what the CA has."
    return Password(settings.username, secret, advice)
