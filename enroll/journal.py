"""The journal of a request under way: what must be known to go on, or to clean up, after a crash or a 202.

    pending/request.json       how far it is, the key, what was asked for; the SHA-256 of the other two
    pending/issued.pem         what the CA issued, unchecked          (from ISSUED on)
    pending/intermediates.pem  the CA certificates it offers          (from ISSUED on)

The name of a key is written down before the key is made: a key that no journal and no generation names would stay in
its store for ever. The keyholder's file in the same directory (`enroll.offer`) is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from enroll.certificates import parse_certificates, pem
from enroll.keystore.base import KEY_NAME
from enroll.offer import FILE_NAME as OFFER_FILE_NAME
from enroll.record import damaged, read_record, read_time, sha256_of, write_record
from enroll.statefile import StateFiles

_ISSUED, _INTERMEDIATES = "issued.pem", "intermediates.pem"
_TEXTS = ("key_name", "key_uri", "asked", "reason", "handle", "issued_sha256", "intermediates_sha256")
_FIELDS = ("step", "started_at", "until", *_TEXTS)


class Step(StrEnum):
    """How far a request is; each step is durable before the next begins."""

    PLANNED = "planned"
    GENERATED = "generated"
    SENT = "sent"
    ISSUED = "issued"
    VERIFIED = "verified"


@dataclass(frozen=True)
class PendingRequest:
    """A request under way.

    Args:
        step: How far it is.
        key_name: The name that the key store was or will be given; part of the key's URI.
        key_uri: The name of the key; empty while it is only planned.
        asked: What was asked for and how, as text: a request for something else is not resumed.
        started_at: When the key was planned.
        until: When the CA wants to be asked again, where it said so.
        reason: Why the CA wants us to wait.
        handle: What the flow needs to go on; see `enroll.flows.base.Handle`.
        issued_sha256: Of the file with what the CA issued; empty before it has.
        intermediates_sha256: Of the file with the CA certificates it offers; empty where there is none.
    """

    step: Step
    key_name: str
    key_uri: str
    asked: str
    started_at: datetime
    until: datetime | None = None
    reason: str = ""
    handle: str = ""
    issued_sha256: str = ""
    intermediates_sha256: str = ""

    @property
    def flow(self) -> str:
        """The way it goes; empty where that is not known."""
        try:
            asked = json.loads(self.asked)
        except ValueError:
            return ""
        return str(asked.get("flow", "")) if isinstance(asked, dict) else ""


class Journal:
    """The `pending` directory of one identity.

    Args:
        directory: `pending` of the identity.
        files: Reads and writes below it.
    """

    def __init__(self, directory: Path, files: StateFiles) -> None:
        self._directory = directory
        self._request = self._directory / "request.json"
        self._files = files

    def read(self) -> PendingRequest | None:
        """The request under way; None where there is none.

        Raises:
            StateUnreadable: Not for the user who runs this.
            StateError: There is one, and it is damaged.
        """
        if not self._files.exists(self._request):
            return None
        values = read_record(self._request, _FIELDS, self._files)
        # A key that is given up is destroyed by its name, which had better be one.
        if values["step"] not in list(Step) or not KEY_NAME.fullmatch(values["key_name"]):
            raise damaged(self._request)
        return PendingRequest(
            step=Step(values["step"]),
            started_at=read_time(values["started_at"], self._request),
            until=read_time(values["until"], self._request) if values["until"] else None,
            **{name: values[name] for name in _TEXTS},
        )

    def write(self, request: PendingRequest) -> PendingRequest:
        """Note how far the request is.

        Raises:
            StateError: The disk refused.
        """
        self._files.make_directory(self._directory)
        values = {
            "step": str(request.step),
            "started_at": request.started_at.isoformat(),
            "until": request.until.isoformat() if request.until else "",
            **{name: str(getattr(request, name)) for name in _TEXTS},
        }
        write_record(self._request, values, self._files)
        return request

    def write_issued(
        self,
        request: PendingRequest,
        certificates: Sequence[x509.Certificate],
        intermediates: Sequence[x509.Certificate],
    ) -> PendingRequest:
        """Keep what the CA issued, so that a crash from here on costs no second certificate."""
        data, more = pem(certificates), pem(intermediates)
        self._files.write(self._directory / _ISSUED, data)
        if more:
            self._files.write(self._directory / _INTERMEDIATES, more)
        else:
            self._files.remove(self._directory / _INTERMEDIATES)
        request = replace(request, issued_sha256=sha256_of(data), intermediates_sha256=sha256_of(more) if more else "")
        return self.write(replace(request, step=Step.ISSUED, until=None, reason=""))

    def read_issued(self) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
        """What the CA issued, and the CA certificates it offers.

        Raises:
            StateError: The files are damaged.
        """
        request = self.read()
        if request is None:
            raise damaged(self._request)
        issued = self._checked(_ISSUED, request.issued_sha256)
        return issued, self._checked(_INTERMEDIATES, request.intermediates_sha256)

    def clear(self) -> None:
        """Forget the request. Its record goes first, so that what is left after a crash means nothing.

        The directory stays: the keyholder may be writing into it.
        """
        self._files.remove(self._request)
        for name in self._files.names(self._directory):
            if not name.removeprefix(".").startswith(OFFER_FILE_NAME):
                self._files.remove(self._directory / name)

    def _checked(self, name: str, checksum: str) -> tuple[x509.Certificate, ...]:
        path = self._directory / name
        if not checksum and name == _INTERMEDIATES:
            return ()
        data = self._files.read(path)
        if sha256_of(data) != checksum:
            raise damaged(path)
        return parse_certificates(data, path)
