"""The enrollment part of scanseal.toml, and the strict reader that both parts share.

A settings class is a frozen dataclass; its fields are the options. `option()` gives each its description and bounds,
which the packaged example and its test use. An unknown option is an error that names the nearest known one: a
misspelt option that is silently ignored is how a scanner ends up unprotected.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from enroll.algorithms import KeyAlgorithm
from enroll.errors import ConfigurationError, StateError, StateUnreadable
from enroll.statefile import StateFiles

CONFIGURATION_LIMIT = 256 * 1024  # bytes
DEFAULT_CONFIGURATION = Path("/etc/scanseal/scanseal.toml")

Settings = TypeVar("Settings")


def option(  # noqa: PLR0913 - one keyword for each thing to say of an option
    text: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    unit: str = "",
    at_least: int | None = None,
    at_most: int | None = None,
    pattern: str = "",
) -> Any:
    """Declare one option: what it means, its unit, its default and its bounds."""
    metadata = {"text": text, "unit": unit, "at_least": at_least, "at_most": at_most, "pattern": pattern}
    if default_factory is not dataclasses.MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DeviceSettings:
    """`[device]`: what the scanner is. Goes into certificate requests."""

    # Certificates hold the serial number as a PrintableString (X.520), which has no underscore.
    serial_number: str = option(
        "Serial number as in (0018,1000) Device Serial Number: letters, digits, spaces and '()+,-./:=?",
        pattern=r"(?=\S)[A-Za-z0-9'()+,./:=? -]{1,64}(?<=\S)",
    )
    model: str = option(
        "Model as in (0008,1090); becomes the common name together with the serial number.",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,64}",
    )
    hardware_type: str = option(
        "Object identifier of the model for hardwareModuleName (RFC 4108), below the vendor's enterprise number. "
        "Empty: the certificate carries no hardwareModuleName.",
        default="",
        pattern=r"(|([01]\.[1-3]?[0-9]|2\.(0|[1-9][0-9]{0,9}))(\.(0|[1-9][0-9]{0,17})){1,30})",
    )


@dataclass(frozen=True)
class SoftwareStoreSettings:
    """`[keystore.software]`: encrypted PKCS#8 files. Protects against a copied backup, not against root."""

    directory: Path | None = option("Where the key files lie. Default: keys/ below state_directory.", default=None)
    passphrase_file: Path | None = option(
        "File that holds the passphrase of all key files, readable by the service only (a systemd credential fits). "
        "Without it the store cannot be used.",
        default=None,
    )


@dataclass(frozen=True)
class TokenSettings:
    """`[keystore.pkcs11.tokens.LABEL]`: one more token, with the label LABEL."""

    pin_file: Path | None = option("File that holds the user PIN of this token.", default=None)
    module: Path | None = option("PKCS#11 library of this token. Default: that of [keystore.pkcs11].", default=None)


@dataclass(frozen=True)
class Pkcs11StoreSettings:
    """`[keystore.pkcs11]`: a token, reached through p11-kit."""

    module: Path = option(
        "PKCS#11 library. Only p11-kit-proxy.so is used by several threads at once; any other is used with one lock.",
        default=Path("/usr/lib/x86_64-linux-gnu/p11-kit-proxy.so"),
    )
    token: str = option("Label of the token.", default="scanseal")
    pin_file: Path | None = option("File that holds the user PIN (a systemd credential fits).", default=None)
    sessions: int = option("Signatures at the same time through p11-kit-proxy.", default=2, at_least=1, at_most=64)
    tokens: Mapping[str, TokenSettings] = option(
        "More tokens, each in a table of its own: [keystore.pkcs11.tokens.LABEL] with pin_file and module.",
        default_factory=dict,
    )


@dataclass(frozen=True)
class TpmStoreSettings:
    """`[keystore.tpm]`: a TPM 2.0, spoken to directly, which also attests its keys."""

    tcti: str = option(
        "How the TPM is reached, in the words of the TPM software stack.",
        default="device:/dev/tpmrm0",
        pattern=r"[^\x00-\x1f\x7f]{1,255}",
    )
    directory: Path | None = option(
        "Where the wrapped keys lie; only this TPM can use them. Default: tpm/ below state_directory.", default=None
    )
    authorization_file: Path | None = option(
        "File that holds the authorization value of all keys (a systemd credential fits): who has the wrapped key "
        "and the TPM still needs it. Without it the store cannot be used.",
        default=None,
    )


@dataclass(frozen=True)
class KeyStoreSettings:
    """`[keystore]`: where private keys live."""

    software: SoftwareStoreSettings = field(default_factory=SoftwareStoreSettings)
    pkcs11: Pkcs11StoreSettings = field(default_factory=Pkcs11StoreSettings)
    tpm: TpmStoreSettings = field(default_factory=TpmStoreSettings)


class StoreName(StrEnum):
    """The key stores that can be asked for a new key."""

    SOFTWARE = "software"
    PKCS11 = "pkcs11"
    TPM = "tpm"
    MEMORY = "memory"


@dataclass(frozen=True)
class IdentitySettings:
    """`[identity.NAME]`: how the next key of an identity is made."""

    key_store: StoreName = option("Store of new keys.", default=StoreName.SOFTWARE, pattern=r"software|pkcs11|tpm")
    key_algorithm: KeyAlgorithm = option("Kind of new keys.", default=KeyAlgorithm.P_256)
    token: str = option(
        "Label of the token of new keys, where there are several. Empty: [keystore.pkcs11] token.", default=""
    )


@dataclass(frozen=True)
class SigningIdentitySettings(IdentitySettings):
    """`[identity.NAME]`: how the next key of an identity that signs is made."""

    key_store: StoreName = option(
        "Store of new keys. memory: the agent makes the key in its own memory, where it is gone after key_lifetime or "
        "with the process, and the device identity has it certified.",
        default=StoreName.SOFTWARE,
    )
    key_lifetime: int = option(
        "How long a key in memory signs; its certificate lives longer. The next key takes over in the last third.",
        default=7,
        unit="days",
        at_least=1,
        at_most=90,
    )
    key_algorithm: KeyAlgorithm = option(
        "Kind of new keys. Image signatures need RSA (PS3.15 C.2).", default=KeyAlgorithm.RSA_3072, pattern=r"rsa-.*"
    )


@dataclass(frozen=True)
class IdentitiesSettings:
    """`[identity]`: the device identity says "I am this scanner"; the others sign, each for one role."""

    device: IdentitySettings = field(default_factory=IdentitySettings)
    signing: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)
    derivation: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)
    synthesis: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)


@dataclass(frozen=True)
class EstSettings:
    """`[est]`: the hospital's CA over Enrollment over Secure Transport (RFC 7030)."""

    url: str = option(
        "Address of the EST server, without /.well-known/est.", default="", pattern=r"(|https://[^\s/?#@]+)/?"
    )
    label: str = option(
        "EST label (RFC 7030 3.2.2), where the CA wants one.", default="", pattern=r"[A-Za-z0-9._~-]{0,64}"
    )
    anchor_file: Path | None = option(
        "File (PEM or DER) with the CA certificate that the server and every issued certificate must lead to. "
        "Get it on a trusted way.",
        default=None,
    )
    username: str = option(
        "User name of the first enrollment (HTTP Basic); without a colon.",
        default="",
        pattern=r"[^\x00-\x1f\x7f:]{0,255}",
    )
    password_file: Path | None = option("File that holds the password of the first enrollment.", default=None)
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class AttestationSettings:
    """`[attestation]`: who certifies that keys of this scanner are in its TPM or its token (docs/attestation.md)."""

    url: str = option(
        "Address of the attestation CA. Needed only when the scanner is made or its TPM is replaced.",
        default="",
        pattern=r"(|https://[^\s/?#@]+)/?",
    )
    anchor_file: Path | None = option(
        "File (PEM or DER) with the root of the attestation CA. The server and all evidence must lead to it.",
        default=None,
    )
    username: str = option(
        "User name of the factory line (HTTP Basic); without a colon.",
        default="",
        pattern=r"[^\x00-\x1f\x7f:]{0,255}",
    )
    password_file: Path | None = option("File that holds the password of the factory line.", default=None)
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class EnrollSettings:
    """Everything that enrollment and renewal need."""

    device: DeviceSettings
    state_directory: Path = option(
        "Where keys, certificates and the audit trail live.", default=Path("/var/lib/scanseal")
    )
    keystore: KeyStoreSettings = field(default_factory=KeyStoreSettings)
    identity: IdentitiesSettings = field(default_factory=IdentitiesSettings)
    est: EstSettings = field(default_factory=EstSettings)
    attestation: AttestationSettings = field(default_factory=AttestationSettings)


def read_toml(path: Path, files: StateFiles) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigurationError: Unreadable, too large or not TOML; the message names the line.
    """
    try:
        data = files.read(path, CONFIGURATION_LIMIT, follow=True)
    except StateUnreadable as error:
        raise ConfigurationError(error.what, remedy=error.remedy) from error
    except StateError as error:
        remedy = "Name your configuration with --config, or begin with the packaged example, systemd/scanseal.toml."
        raise ConfigurationError(error.what, remedy=remedy) from error
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is not valid TOML: {error}.", remedy="Correct the line that is named."
        ) from error


def read_settings(settings: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """Turn a TOML table into a settings object.

    Args:
        settings: A frozen dataclass whose fields are declared with `option`.
        table: The table as read.
        where: Name of the table for messages, as in "[est]".

    Raises:
        ConfigurationError: An unknown option, a wrong type or a value out of bounds.
    """
    fields = {f.name: f for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(settings)
    for name in table:
        if name not in fields:
            raise _unknown(name, fields, where)
    values = {
        name: _convert(hints[name], value, fields[name], f"{where} {name}".strip()) for name, value in table.items()
    }
    for name, declared in fields.items():
        if name not in values and declared.default is declared.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(hints[name]):
                values[name] = read_settings(typing.cast("type[Any]", hints[name]), {}, f"[{name}]")
                continue
            raise ConfigurationError(
                f"{where} {name} is missing.", remedy=f"Add it. {declared.metadata.get('text', '')}"
            )
    return settings(**values)


def choices_of(kind: type[StrEnum], declared: Mapping[str, Any]) -> list[str]:
    """The values that an option takes.

    Args:
        kind: Its type.
        declared: The metadata of its field, as `option` makes it; a pattern narrows the choice.
    """
    return [member.value for member in kind if re.fullmatch(declared["pattern"] or ".*", member.value)]


def _unknown(name: str, known: Mapping[str, Any], where: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known))}."
    return ConfigurationError(f"{where} has no option {name!r}.".strip(), remedy=remedy)


def _convert(hint: Any, value: Any, declared: dataclasses.Field[Any], where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where} must be a table.", remedy=f"Write it as [{where}].")
        return read_settings(typing.cast("type[Any]", hint), value, f"[{where.replace('[', '').replace('] ', '.')}]")
    if typing.get_origin(hint) is Mapping:
        return _convert_tables(typing.get_args(hint)[1], value, where)
    if typing.get_origin(hint) is tuple:
        return _convert_list(value, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        choices = choices_of(hint, declared.metadata)
        if value not in choices:
            raise ConfigurationError(f"{where} is {value!r}.", remedy=f"Use one of: {', '.join(choices)}.")
        return hint(value)
    if hint is Path:
        path = Path(_checked(str, value, declared, where))
        if not path.is_absolute():
            raise ConfigurationError(
                f"{where} is {value!r}.", remedy="Give an absolute path: commands and services start in other folders."
            )
        return path
    return _checked(hint, value, declared, where)


def _convert_list(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigurationError(
            f"{where} must be a list of strings.", remedy='For example ["user:ct", "group:imaging"].'
        )
    return tuple(value)


def _convert_tables(kind: type, value: Any, where: str) -> Any:
    """Tables whose names the operator chooses."""
    table = where.replace("[", "").replace("] ", ".")
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise ConfigurationError(f"{where} must hold tables.", remedy=f"Write them as [{table}.NAME].")
    return {name: read_settings(kind, entry, f"[{table}.{name}]") for name, entry in value.items()}


def _checked(kind: type, value: Any, declared: dataclasses.Field[Any], where: str) -> Any:
    # bool is an int in Python, never in TOML.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigurationError(f"{where} is {value!r}.", remedy=f"Give {_KIND_NAMES.get(kind, kind.__name__)}.")
    low, high, pattern = (declared.metadata.get(key) for key in ("at_least", "at_most", "pattern"))
    unit = declared.metadata.get("unit", "")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigurationError(
            f"{where} is {value}.", remedy=f"Choose a value from {low} to {high} {unit}".strip() + "."
        )
    if pattern and not re.fullmatch(pattern, str(value)):
        raise ConfigurationError(f"{where} is {value!r}.", remedy=str(declared.metadata["text"]))
    return value


_KIND_NAMES = {str: "a string in quotes", int: "a whole number", bool: "true or false", float: "a number"}
