"""Showing the CA that this side controls what an order names: the challenges (RFC 8555 8).

http-01 and dns-01 are answered by a program of the operator's, because only the site knows where its web server and
its name server are. It is called without a shell, with no secret, and with a bounded time:

    HOOK present|cleanup http-01 HOST TOKEN CONTENT           CONTENT at http://HOST/.well-known/acme-challenge/TOKEN
    HOOK present|cleanup dns-01  HOST _acme-challenge.HOST VALUE     VALUE in a TXT record of that name

What it presented has to be there when it ends. It may be called more than once with the same arguments.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from enroll.errors import HOSPITAL_IT, ConfigurationError
from enroll.flows.acme.jws import base64url
from enroll.flows.base import Enrollment, FlowContext, OfferedEnrollment
from enroll.flows.settings import AcmeChallenge
from enroll.foreign import TEXT_LIMIT, printable

HOOK_SECONDS = 120.0
_LOG = logging.getLogger(__name__)
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Prover(Protocol):
    """One way to answer a challenge."""

    def present(self, identifier: str, token: str, key_authorization: str) -> dict[str, str]:
        """Make ready what the CA will look at.

        Args:
            identifier: What the order names.
            token: Of the challenge.
            key_authorization: Of token and account key (RFC 8555 8.1).

        Returns:
            What is sent to the CA in answer to the challenge.

        Raises:
            ScansealError: It cannot be shown.
        """

    def clean_up(self, identifier: str, token: str, key_authorization: str) -> None:
        """Take away what was made ready; the CA has looked."""


@dataclass(frozen=True)
class Hook:
    """http-01 and dns-01 (RFC 8555 8.3 and 8.4).

    Args:
        program: The operator's.
        challenge: Which of the two.
    """

    program: Path
    challenge: AcmeChallenge

    def present(self, identifier: str, token: str, key_authorization: str) -> dict[str, str]:
        """See `Prover`."""
        self._run("present", identifier, token, key_authorization)
        return {}

    def clean_up(self, identifier: str, token: str, key_authorization: str) -> None:
        """See `Prover`. What fails is said and no more: the CA has looked."""
        try:
            self._run("cleanup", identifier, token, key_authorization)
        except ConfigurationError as error:
            _LOG.warning("The answer of %s stays where it is: %s", self.challenge, error)

    def _run(self, action: str, identifier: str, token: str, key_authorization: str) -> None:
        place, value = token, key_authorization
        if self.challenge is AcmeChallenge.DNS:
            place = f"_acme-challenge.{identifier}"
            value = base64url(hashlib.sha256(key_authorization.encode("ascii")).digest())
        command = [str(self.program), action, self.challenge.value, identifier, place, value]
        try:
            # A file and not a pipe: whatever the program leaves running must not keep us waiting.
            with tempfile.TemporaryFile() as said:
                exit_code = _run_bounded(command, said)
                said.seek(0)
                text = printable(said.read(4 * TEXT_LIMIT).decode("utf-8", errors="replace"))
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"did not end within {HOOK_SECONDS:.0f} seconds") from error
        except OSError as error:
            raise self._failed(f"cannot be run: {error.strerror}") from error
        if exit_code != 0:
            raise self._failed(f"failed with exit code {exit_code} on {action!r}{text and ': '}{text}")

    def _failed(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"The program {self.program} of [acme] hook {what}.",
            remedy="Correct it; the order goes on with the next run.",
            code="acme-hook-failed",
            who_must_act=HOSPITAL_IT,
        )


def _run_bounded(command: Sequence[str], output: IO[bytes]) -> int:
    """Run a program to its end.

    Raises:
        subprocess.TimeoutExpired: It hung, and has been ended with all that it started.
        OSError: It cannot be run.
    """
    with subprocess.Popen(  # noqa: S603 - the operator's program, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=_ENVIRONMENT,
        start_new_session=True,
    ) as program:
        try:
            return program.wait(HOOK_SECONDS)
        finally:
            if program.returncode is None:  # it hangs, or we are being ended
                os.killpg(program.pid, signal.SIGKILL)


@dataclass(frozen=True)
class DeviceAttestation:
    """device-attest-01 (draft-ietf-acme-device-attest 5).

    Args:
        context: What makes the evidence.
        enrollment: Whose key is attested.
    """

    context: FlowContext
    enrollment: Enrollment | OfferedEnrollment

    def present(self, identifier: str, token: str, key_authorization: str) -> dict[str, str]:  # noqa: ARG002 - Prover's
        """See `Prover`."""
        # Needs what talks to TPMs, which a site with a hook need not have.
        from enroll.flows.acme.device_attest import attestation_object  # noqa: PLC0415

        evidence = attestation_object(self.context, self.enrollment, key_authorization.encode("ascii"))
        return {"attObj": base64url(evidence)}

    def clean_up(self, identifier: str, token: str, key_authorization: str) -> None:
        """Nothing was put anywhere."""


def prover(context: FlowContext, enrollment: Enrollment | OfferedEnrollment) -> Prover:
    """What answers the configured challenge.

    Raises:
        ConfigurationError: There is no hook for it.
    """
    settings = context.settings.acme
    if settings.challenge is AcmeChallenge.DEVICE_ATTEST:
        return DeviceAttestation(context, enrollment)
    if settings.hook is None:
        raise ConfigurationError(
            f"[acme] hook is not set, and {settings.challenge} needs one.",
            remedy="Name a program that puts the answer where the CA looks for it; docs/acme.md shows one.",
        )
    return Hook(settings.hook, settings.challenge)
