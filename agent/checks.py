"""What is asked by `scanseal check`, and what the answers mean. Pure: what was seen is passed in.

Each check says what is the case, and what to do where that is not as it should be:

    configuration       scanseal.toml can be used
    state-directory     whose it is, and who else may look or write
    user                who asks sees what the service sees
    clock               it is believed: it neither stands before what has happened already, nor has it jumped
    callers             the users and groups in [socket] and [roles] are there, without which the agent does not start
    key-store           it opens, with the secret that is configured
    token-threads       whether several threads sign with a token at the same time
    identity            there is a certificate, it is valid, and when it is renewed
    proves              where a certificate lies on many machines: that it proves their vendor only
    device-state        whether its owner lets the scanner sign, and whether anything of it is lost or damaged
    key                 it is there, signs, fits the certificate, and where it really lives
    tls-route           how the key of the device identity authenticates a connection
    require-hardware    whether the keys that sign are where [signing] wants them
    images-per-second   whether they are quick enough for the scanner
    signing-rate        what a key was measured to do
    memory-lock         keys in memory are not written to swap
    core-dumps          nor into a file when a process crashes
    agent               it runs, and what it says of the keys that only it has

`agent.enrollment_checks` has those about where certificates come from.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography import x509

from agent.daemon.active_key import enrolling
from agent.daemon.hardening import UNLOCKED_REMEDY
from agent.errors import AgentError
from enroll.clock_sense import CLOCK_SUSPECT, TimeSense
from enroll.clock_sense import REMEDY as CLOCK_REMEDY
from enroll.config import StoreName
from enroll.errors import EnrollerBusy, KeyStoreUnavailable, ScansealError, ServerUnreachable
from enroll.foreign import printable
from enroll.identity import VENDORS_IDENTITIES, IdentityName
from enroll.keystore.base import Protection

_READY, _NOT_ENROLLED = "ready", "not-enrolled"  # docs/socket-protocol.md
_RENEW = "Run: scanseal renew; it says why the certificate does not come."
_REMEDIES = {
    "awaiting-certificate": _RENEW,
    "key-expired": _RENEW,
    "certificate-expired": _RENEW,
    "certificate-revoked": "Ask the CA's operator why; then enroll the identity again.",
}
_OTHER_REMEDY = "See the other findings, and the log: journalctl --unit scanseal.service"


class State(StrEnum):
    """What came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Finding:
    """The answer to one check.

    Args:
        check: Which, by its stable name.
        state: What came out; `UNAVAILABLE` where it may come right without a correction.
        what: What is the case. Never holds a secret.
        remedy: What to do; empty where nothing is to be done.
        subject: What it is about, where a check is made of several things.
        code: The stable code of the error behind it; empty where there is none.
    """

    check: str
    state: State
    what: str
    remedy: str = ""
    subject: str = ""
    code: str = ""


@dataclass(frozen=True)
class Place:
    """A file or directory as the file system shows it.

    Args:
        path: Where.
        owner: Number of its user.
        mode: Its permissions.
        secret: Whether nobody but the owner has anything to do with it.
    """

    path: Path
    owner: int
    mode: int
    secret: bool = False


def failure(check: str, error: ScansealError, subject: str = "") -> Finding:
    """What a check says that ended with an error."""
    later = isinstance(error, KeyStoreUnavailable | AgentError | ServerUnreachable | EnrollerBusy)
    state = State.UNAVAILABLE if later else State.FAILED
    return Finding(check, state, error.what, error.remedy, subject, error.code)


def state_directory(places: Sequence[Place]) -> Finding:
    """Whether the state directory is safe from others, and all of it readable by the one service.

    Args:
        places: The directory itself, then what lies in it.
    """
    root = places[0]
    for place in places:
        if place.owner != root.owner:
            return _directory(
                State.FAILED,
                f"{place.path} belongs to user {place.owner}, and {root.path} to user {root.owner}: the service cannot "
                "use it.",
                f"Run as root: chown -R --reference={root.path} {root.path}",
            )
        forbidden = stat.S_IRWXG | stat.S_IRWXO if place.secret else stat.S_IWGRP | stat.S_IWOTH
        if place.mode & forbidden:
            return _directory(
                State.FAILED,
                f"Others than its owner have access to {place.path} (mode {place.mode:04o}).",
                f"Run: chmod {'go=' if place.secret else 'go-w'} {place.path}",
            )
    if root.mode & stat.S_IRWXO:
        return _directory(
            State.WARNING,
            f"Every local user may look into {root.path} (mode {root.mode:04o}).",
            f"Run: chmod o= {root.path}",
        )
    return _directory(State.OK, f"{root.path} belongs to user {root.owner} (mode {root.mode:04o})")


def state_directory_to_come(root: Path) -> Finding:
    """What to say of a state directory that can be made, and has not been."""
    what = f"{root} does not exist yet; scanseal enroll makes it."
    return _directory(State.WARNING, what, "Run: scanseal enroll, as the user of the service")


def _directory(state: State, what: str, remedy: str = "") -> Finding:
    return Finding("state-directory", state, what, remedy)


def user(asking: int, owner: int, name: str) -> Finding:
    """Whether what is found here is what the service would find.

    Args:
        asking: Number of the user who asks.
        owner: Number of the user whom the state directory belongs to.
        name: The name of that one.
    """
    if asking == owner:
        return Finding("user", State.OK, f"this runs as {name}, as the service does")
    return Finding(
        "user",
        State.WARNING,
        f"This does not run as {name}, as the service does: files and tokens may look different to it.",
        f"Run: runuser -u {name} -- scanseal check",
    )


def clock(sense: TimeSense) -> Finding:
    """Whether the clock is believed. Signing goes on where it is not, and every signature and answer says so."""
    if sense.doubt is None:
        return Finding("clock", State.OK, f"{sense.wall:%Y-%m-%d %H:%M} UTC")
    return Finding("clock", State.FAILED, sense.explanation(), CLOCK_REMEDY, code=CLOCK_SUSPECT)


def certificate(identity: IdentityName, found: x509.Certificate, now: datetime, due: datetime) -> Finding:
    """Whether the certificate of an identity is valid, and its renewal not overdue.

    Args:
        identity: Whose.
        found: The one in use.
        now: The time.
        due: From when on this scanner renews it.
    """
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    if now < begin:
        what, remedy = f"valid only from {begin:%Y-%m-%d %H:%M} UTC on", "Check the clock of this machine."
        return Finding("identity", State.FAILED, what, remedy, identity)
    if now > end:
        remedy = "Run: scanseal renew. If the CA refuses that, set [est] username and password_file and enroll again."
        return Finding("identity", State.FAILED, f"expired on {end:%Y-%m-%d %H:%M} UTC", remedy, identity)
    valid = f"valid until {end:%Y-%m-%d}"
    if identity is IdentityName.IDEVID:
        return Finding("identity", State.OK, f"{valid}, never renewed by itself", "", identity)
    if now >= due:
        what = f"{valid}; to be renewed since {due:%Y-%m-%d %H:%M} UTC"
        remedy = "Run: scanseal renew, and see whether the timer runs: systemctl list-timers scanseal-renew.timer"
        return Finding("identity", State.WARNING, what, remedy, identity)
    return Finding("identity", State.OK, f"{valid}, renewed from {due:%Y-%m-%d} on", "", identity)


def hardware(protections: Mapping[IdentityName, Protection], *, required: bool) -> Finding:
    """Whether the keys that sign are where they have to be.

    Args:
        protections: Where the key of each identity that signs really lives.
        required: `[signing] require_hardware`.
    """
    name = "require-hardware"
    if not required:
        return Finding(name, State.NOT_APPLICABLE, "[signing] require_hardware is not set")
    if not protections:
        return Finding(name, State.NOT_APPLICABLE, "no key of an identity that signs could be looked at")
    others = [f"{identity} in {where}" for identity, where in protections.items() if where is not Protection.HARDWARE]
    if others:
        return Finding(
            name,
            State.FAILED,
            f"Not every key that signs lives in hardware: {', '.join(others)}. The agent will not sign with it.",
            'Set key_store = "pkcs11" or "tpm" for the identity and enroll again, or take require_hardware away.',
        )
    return Finding(name, State.OK, "every key that signs lives in hardware")


def speed(needed: int, rate: float | None, *, in_token: bool) -> Finding:
    """Whether the key that signs original images keeps up with the scanner.

    Args:
        needed: `[signing] images_per_second`; 0 where it is not set.
        rate: Signatures per second of that key; None where it was not measured.
        in_token: Whether it is in a token; other keys are quick enough for any scanner.
    """
    name = "images-per-second"
    if not needed:
        return Finding(name, State.NOT_APPLICABLE, "[signing] images_per_second is not set")
    if not in_token:
        return Finding(name, State.NOT_APPLICABLE, "the key that signs images is not in a token")
    if rate is None:
        what = (
            f"{needed} signatures per second are needed, and the token was not measured. The agent measures at its "
            "start and does not start if it is too slow."
        )
        return Finding(name, State.WARNING, what, "Run: scanseal check --speed")
    if rate < needed:
        return Finding(
            name,
            State.FAILED,
            f"{needed} signatures per second are needed, and the token makes {rate:.1f}. The agent will not sign with "
            "it.",
            'Set [identity.signing] key_store = "memory", or use a faster token.',
        )
    return Finding(name, State.OK, f"{needed} signatures per second are needed, and the token makes {rate:.1f}")


def not_enrolled(identity: IdentityName, *, in_memory: bool, way: str) -> Finding:
    """What to say of an identity without a certificate; `way` is one that brings it (`enrollment_checks.way_for`)."""
    if in_memory:
        remedy = "Start the agent: it makes the key and asks for the certificate."
    elif not way:
        remedy = "Configure the way to your CA first; scanseal enroll lists the ways."
    else:
        remedy = f"Run: {f'scanseal enroll {way}' if identity in VENDORS_IDENTITIES else enrolling(identity, way)}"
    return Finding("identity", State.WARNING, "no certificate yet", remedy, identity)


def not_needed(identity: IdentityName) -> Finding:
    """What to say of an identity that nobody has enrolled, and whose role nobody has."""
    return Finding("identity", State.NOT_APPLICABLE, "not enrolled, and [roles] gives it to nobody", "", identity)


def protection(identity: IdentityName, place: str, found: Protection, recorded: Protection) -> Finding:
    """Where the key of an identity really lives, after it has proved to be that of its certificate.

    Args:
        identity: Whose key.
        place: Its key store.
        found: What the store says now.
        recorded: What it said when the certificate came.
    """
    what = f"{found} ({place}); it fits the certificate"
    if found is Protection.SOFTWARE and not place.startswith(StoreName.SOFTWARE):
        what += ". This token is a program, or does not say that the key was made in it and never left it"
    if found is not recorded:
        remedy = "Find out what has changed; after the next renewal the record is right again."
        return Finding("key", State.WARNING, f"{what}, but was recorded as {recorded}", remedy, identity)
    return Finding("key", State.OK, what, "", identity)


def token_threads(subject: str, *, through_proxy: bool) -> Finding:
    """Whether several threads may sign with a token at the same time.

    Args:
        subject: Which token.
        through_proxy: Whether it is reached through p11-kit-proxy.
    """
    if through_proxy:
        return Finding("token-threads", State.OK, "several threads at once, through p11-kit-proxy", "", subject)
    what = "one signature at a time: only p11-kit-proxy.so is used by several threads at once"
    remedy = (
        "If that is too slow, register the module with p11-kit and set [keystore.pkcs11] module to p11-kit-proxy.so."
    )
    return Finding("token-threads", State.OK, what, remedy, subject)


def memory_lock(where: str, *, possible: bool, in_memory: bool) -> Finding:
    """Whether memory can be kept out of the swap.

    Args:
        where: Who was asked.
        possible: What it said.
        in_memory: Whether keys live in memory; the agent does not start then unless it can lock them there.
    """
    if possible:
        return Finding("memory-lock", State.OK, f"{where}: memory can be kept out of the swap")
    state = State.FAILED if in_memory else State.WARNING
    return Finding(
        "memory-lock",
        state,
        f"{where}: memory cannot be locked, so what is in it may be written to swap"
        + (", and the agent does not start with keys in it." if in_memory else "."),
        f"{UNLOCKED_REMEDY.removesuffix('.')} (as root: prlimit --pid $$ --memlock=unlimited).",
    )


def core_dumps(limits: Mapping[str, int | None]) -> Finding:
    """Whether a crash leaves the memory in a file.

    The agent allows none itself; what its unit says is a second bar.

    Args:
        limits: Bytes of a core dump of each service that can be seen; None for no limit.
    """
    if not limits:
        return Finding("core-dumps", State.NOT_APPLICABLE, "no service to be seen; the agent switches them off itself")
    if allowed := [service for service, limit in limits.items() if limit != 0]:
        what = f"A crash of {' or '.join(allowed)} may leave its memory in a file."
        return Finding("core-dumps", State.WARNING, what, "Set LimitCORE=0 in the service.")
    return Finding("core-dumps", State.OK, f"none of {' and '.join(limits)}")


def agent_state(status: Mapping[str, Any], way: str = "") -> Finding:
    """What a running agent says of itself; `way` is one to a certificate, where that is missing."""
    refused = status.get("refused_generation")
    if isinstance(refused, dict):
        what = f"The agent refuses the newest generation of {refused.get('identity')}: {refused.get('detail')}"
        code = printable(str(refused.get("code", "")))
        return Finding("agent", State.FAILED, printable(what), "See the findings about this identity.", code=code)
    roles = status.get("roles")
    states = {role: str(state) for role, state in roles.items()} if isinstance(roles, dict) else {}
    unable = {role: state for role, state in states.items() if state not in (_READY, _NOT_ENROLLED)}
    if status.get("state") != _READY and not unable:
        unable = {"acquisition": str(status.get("state"))}
    if not unable:
        return Finding("agent", State.OK, "it answers: ready")
    listed = ", as ".join(f"{role}: {state}" for role, state in unable.items())
    state = next(iter(unable.values()))
    remedy = (
        f"Run: {f'scanseal enroll {way}'.rstrip()}" if state == _NOT_ENROLLED else _REMEDIES.get(state, _OTHER_REMEDY)
    )
    return Finding("agent", State.UNAVAILABLE, printable(f"The agent cannot sign as {listed}."), remedy)


def held_by_agent(identity: IdentityName, status: Mapping[str, Any] | None, generation: int) -> Finding:
    """What the agent says of a key that only it has.

    Args:
        identity: Whose key.
        status: Its answer; None where it does not run.
        generation: Number of the generation that is in use.
    """
    if status is None:
        what = "it lives in the memory of the agent, which does not run"
        return Finding("key", State.WARNING, what, "Start the agent: it makes a new key.", identity)
    identities = status.get("identities")
    described = identities.get(identity) if isinstance(identities, dict) else None
    used = described if isinstance(described, dict) and described.get("generation") == generation else {}
    if used.get("signs_until"):
        return Finding("key", State.OK, f"{Protection.MEMORY}: the agent holds it", "", identity)
    return Finding(
        "key",
        State.UNAVAILABLE,
        "The agent does not hold the key of this certificate; it asks for another one by itself.",
        "Run: scanseal renew, and look into the log: journalctl --unit scanseal.service --unit scanseal-renew.service",
        identity,
    )
