"""The agent's part of scanseal.toml, and the reader of the whole file."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.daemon.wire import HashName
from agent.dicom.content import MissingDeviceIdentity
from agent.dicom.profile import ProfileName
from enroll.config import EnrollSettings
from enroll.errors import ConfigurationError
from enroll.options import option, read_settings, read_toml
from enroll.statefile import StateFiles

_ANTIQUE_HASHES = frozenset({"md5", "sha1", "ripemd160"})


@dataclass(frozen=True)
class SocketSettings:
    """`[socket]`: where callers reach the agent. Not used when systemd hands over a listening socket."""

    path: Path = option(
        "Where the socket is made, mode 0660. At most 107 bytes.", default=Path("/run/scanseal/sign.sock")
    )
    group: str = option(
        "Group that may connect, by name or number. Empty: the group the agent runs as.", default="scanseal"
    )


@dataclass(frozen=True)
class RolesSettings:
    """`[roles]`: who may have what signed. Entries are "user:NAME", "group:NAME" or the same with a number.

    A role without entries is given to nobody. Each role signs with an identity of its own, which has to be enrolled.
    """

    acquisition: tuple[str, ...] = option(
        "Callers that may sign original images: by the identity that [signing] identity names.", default=()
    )
    derivation: tuple[str, ...] = option(
        "Callers that may sign processed images: scanseal enroll WAY --identity derivation.", default=()
    )
    synthesis: tuple[str, ...] = option(
        "Callers that may sign images made by a model: scanseal enroll WAY --identity synthesis.", default=()
    )


class SigningIdentity(StrEnum):
    """The identities that may sign original images; see `enroll.identity.IdentityName`."""

    SIGNING = "signing"
    VENDOR = "vendor"


@dataclass(frozen=True)
class SigningSettings:
    """`[signing]`: how images are signed."""

    identity: SigningIdentity = option(
        "Which identity signs original images. signing: that of the owner's CA. vendor: that of the vendor of the "
        "scanner (docs/vendor.md); a certificate for all its devices proves the vendor only. Neither ever takes the "
        "place of the other.",
        default=SigningIdentity.SIGNING,
    )
    profile: ProfileName = option(
        "What a signature covers, where a request does not say. creator-plus: everything but what may rightly change "
        "afterwards. creator-rsa: the minimum of PS3.15 C.2, without pixel spacing, orientation or Synthetic Data.",
        default=ProfileName.CREATOR_PLUS,
    )
    hash: HashName = option(
        "Hash of a signature, where a request does not say. MD5, SHA-1 and RIPEMD-160 are never made.",
        default=HashName.SHA256,
    )
    private_elements: bool = option(
        "Whether creator-plus covers private elements. A receiver that drops or rewrites them breaks the signature.",
        default=False,
    )
    missing_device_identity: MissingDeviceIdentity = option(
        "What happens to an instance with neither Device Serial Number (0018,1000) nor Device UID (0018,1002), whose "
        "signer cannot be compared with the device. refuse: it is not signed. warn: it is signed, and the answer says "
        "so.",
        default=MissingDeviceIdentity.WARN,
    )
    images_per_second: int = option(
        "How many images the scanner makes at most. Where the signing key is in a token, the agent measures the token "
        'at its start and does not start if that is too slow: use key_store = "memory" then. 0: not measured.',
        default=0,
        unit="images per second",
        at_least=0,
        at_most=100_000,
    )
    require_hardware: bool = option(
        "Whether the agent starts only if every key that signs lives in hardware, and never signs with another.",
        default=False,
    )


@dataclass(frozen=True)
class LimitsSettings:
    """`[limits]`: what one caller may cost the others."""

    connections: int = option(
        "Connections at the same time; the next one is answered with status 503.", default=64, at_least=1, at_most=4096
    )
    connections_per_user: int = option(
        "Connections of one user at the same time; the next one is answered with status 429.",
        default=16,
        at_least=1,
        at_most=4096,
    )
    head_seconds: int = option(
        "Longest time from the first byte of a request to the end of its head.",
        default=2,
        unit="seconds",
        at_least=1,
        at_most=60,
    )
    body_seconds: int = option(
        "Longest time for a body, on top of what its size needs at bytes_per_second; the same for an answer.",
        default=10,
        unit="seconds",
        at_least=1,
        at_most=600,
    )
    bytes_per_second: int = option(
        "Slowest transfer of a large body that is waited for.",
        default=10_000_000,
        unit="bytes per second",
        at_least=1000,
        at_most=10_000_000_000,
    )
    idle_seconds: int = option(
        "How long a connection may stay open between two requests.",
        default=30,
        unit="seconds",
        at_least=1,
        at_most=3600,
    )
    instance_bytes: int = option(
        "Largest instance that is accepted.", default=4 << 30, unit="bytes", at_least=1 << 10, at_most=1 << 40
    )


@dataclass(frozen=True)
class WorkersSettings:
    """`[workers]`: the processes that read images. They hold no key."""

    count: int = option("Worker processes. 0: one for each CPU.", default=0, unit="processes", at_least=0, at_most=64)
    memory_mebibytes: int = option(
        "Address space of one worker (RLIMIT_AS). Raise it together with limits.connections.",
        default=1024,
        unit="MiB",
        at_least=256,
        at_most=65536,
    )
    spool_directory: Path = option(
        "Where an instance too large for memory waits for its signature, when the caller wants the whole instance "
        "back. The file has no name and is gone with the request.",
        default=Path("/var/tmp"),  # noqa: S108 - files there are made without a name
    )


@dataclass(frozen=True)
class AgentSettings:
    """Everything that the agent needs besides its identity."""

    socket: SocketSettings = field(default_factory=SocketSettings)
    roles: RolesSettings = field(default_factory=RolesSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    workers: WorkersSettings = field(default_factory=WorkersSettings)


@dataclass(frozen=True)
class Configuration:
    """One scanseal.toml, checked."""

    enroll: EnrollSettings
    agent: AgentSettings


def load(path: Path, files: StateFiles) -> Configuration:
    """Read scanseal.toml.

    Raises:
        ConfigurationError: Unreadable, not TOML, or an option that is unknown, missing or out of bounds.
    """
    tables = read_toml(path, files)
    enroll_names, agent_names = _names(EnrollSettings), _names(AgentSettings)
    for name in tables:
        if name not in enroll_names | agent_names:
            raise _unknown_table(name, enroll_names | agent_names, path)
    _refuse_antique_hash(tables)
    configuration = Configuration(
        enroll=read_settings(EnrollSettings, {name: tables[name] for name in tables if name in enroll_names}, ""),
        agent=read_settings(AgentSettings, {name: tables[name] for name in tables if name in agent_names}, ""),
    )
    _refuse_private_elements_of_minimum(configuration.agent.signing)
    return configuration


def _refuse_antique_hash(tables: Mapping[str, Any]) -> None:
    signing = tables.get("signing")
    name = str(signing.get("hash", "")) if isinstance(signing, dict) else ""
    if name.lower().replace("-", "").replace("_", "") in _ANTIQUE_HASHES:
        raise ConfigurationError(
            f"[signing] hash is {name!r}. scanseal never makes such a signature: it could be forged.",
            remedy=f"Use one of: {', '.join(HashName)}. Old signatures are still verified (PS3.15 C.1, note).",
        )


def _refuse_private_elements_of_minimum(signing: SigningSettings) -> None:
    if signing.private_elements and signing.profile is ProfileName.CREATOR_RSA:
        raise ConfigurationError(
            "[signing] private_elements is true, but the profile creator-rsa covers what PS3.15 C.2 names and no more.",
            remedy='Write profile = "creator-plus", or private_elements = false.',
        )


def _names(settings: type[EnrollSettings | AgentSettings]) -> set[str]:
    return {declared.name for declared in dataclasses.fields(settings)}


def _unknown_table(name: str, known: set[str], path: Path) -> ConfigurationError:
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known))}."
    return ConfigurationError(f"{path} has no table or option {name!r}.", remedy=remedy)
