"""The calls of the socket, as `docs/socket-protocol.md` and `docs/openapi.json` promise them. Runs in a worker.

What can be checked is checked before the body is read: version, path, method, parameters, length, role. Images are
hashed while they arrive. The keyholder is asked over a channel that is bound to the caller, so nothing here decides who
may do what.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import FileIO
from typing import Any, TypeVar

from agent.daemon.channel import SigningChannel
from agent.daemon.connection import Answer, Body, Bytes
from agent.daemon.head import Head
from agent.daemon.options import WorkerOptions
from agent.daemon.problems import MEDIA_TYPE as PROBLEM
from agent.daemon.problems import problem_of
from agent.daemon.wire import DIGEST_SIZES, HashName, Identity, Role, Signature
from agent.dicom.content import MissingDeviceIdentity
from agent.dicom.profile import Profile, ProfileName, load_profile
from agent.dicom.purposes import PURPOSES
from agent.dicom.sign import InstanceDigest, SignaturePlan, digest_instance
from agent.dicom.splice import Edit, spliced
from agent.dicom.window import Window
from agent.errors import RequestRefused
from enroll.clock import Clock
from enroll.errors import ScansealError

PROTOCOL_VERSION = "1"
JSON = "application/json"
PEM = "application/pem-certificate-chain"
VENDOR_ONLY = "proves-vendor-only"  # a warning
CLOCK_SUSPECT = "clock-suspect"  # one more
DICOM = "application/dicom"
SPLICE = "application/vnd.scanseal.splice+json"

JSON_BODY_LIMIT = 64 * 1024  # bytes
INSTANCE_BUFFER = 1 << 20  # bytes; an instance up to this size is held in memory

Choice = TypeVar("Choice", bound=StrEnum)


class Api:
    """Answers the requests of one connection.

    Args:
        keyholder: The signing channel of the connection.
        options: Limits.
        clock: For the time of a signature.
    """

    def __init__(self, keyholder: SigningChannel, options: WorkerOptions, clock: Clock) -> None:
        self._keyholder = keyholder
        self._options = options
        self._clock = clock
        self._buffer = bytearray()
        self._window: Window | None = None

    def answer(self, head: Head, body: Body) -> Answer:
        """Answer one request.

        Raises:
            ScansealError: The request is refused, or cannot be granted now.
            ConnectionLost: The caller or the keyholder is gone.
        """
        if head.fields.get("scanseal-version") != PROTOCOL_VERSION:
            raise RequestRefused(
                "The header Scanseal-Version is missing or holds another version than 1.",
                remedy="Send the header Scanseal-Version: 1 with every request.",
                code="version-header-missing",
            )
        calls = CALLS.get(head.path)
        if calls is None:
            raise RequestRefused(
                f"There is no call {head.path[:100]}.", remedy=f"Use one of: {', '.join(CALLS)}.", code="path-unknown"
            )
        call = calls.get(head.method)
        if call is None:
            error = RequestRefused(
                f"{head.path} cannot be called with {head.method}.",
                remedy=f"Use {', '.join(calls)}.",
                code="method-not-allowed",
            )
            return refusal(error, ("Allow", ", ".join(calls)))
        return call(self, head, body)

    def release(self) -> None:
        """Give up what the last answer needed until it was sent."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def status(self, head: Head, body: Body) -> Answer:
        """`GET /v1/status`."""
        _parameters(head.query, ())
        _limit(body, 0, "Send this request without a body.")
        return Answer.of(200, JSON, self._keyholder.status())

    def certificates(self, head: Head, body: Body) -> Answer:
        """`GET /v1/certificates`."""
        parameters = _parameters(head.query, ("identity",))
        identity = _choice(Identity, parameters.get("identity", Identity.SIGNING), "identity")
        _limit(body, 0, "Send this request without a body.")
        return Answer.of(200, PEM, self._keyholder.certificates(identity))

    def sign_digest(self, head: Head, body: Body) -> Answer:
        """`POST /v1/sign/digest`."""
        _parameters(head.query, ())
        _demand_length(head)
        _limit(body, JSON_BODY_LIMIT, "Send only the members of this call.")
        members = _json_object(body.read(), ("role", "algorithm", "digest"))
        role = _choice(Role, members["role"], "role")
        algorithm = _choice(HashName, members["algorithm"], "algorithm")
        signature = self._keyholder.sign(role, algorithm, _digest(members["digest"], algorithm))
        return _json_answer(
            JSON,
            {
                "signature": _base64(signature.value),
                "certificate": _base64(signature.certificate),
                "key_generation": signature.generation,
                "protection": signature.protection,
                "warnings": _warnings(signature),
            },
        )

    def sign_instance(self, head: Head, body: Body) -> Answer:
        """`POST /v1/sign/instance`."""
        parameters = _parameters(head.query, ("role", "profile", "algorithm", "purpose"))
        role = _choice(Role, parameters.get("role"), "role")
        algorithm = _choice(HashName, parameters.get("algorithm", self._options.hash_name), "algorithm")
        whole = _accepted(head.fields.get("accept", "*/*")) == DICOM
        plan = SignaturePlan(
            profile=self._profile(parameters.get("profile", self._options.profile)),
            hash_name=algorithm,
            signature_uid=f"2.25.{uuid.uuid4().int}",
            signed_at=self._clock.now(),
            purpose=_purpose(parameters.get("purpose")),
            role=role,
            missing_device_identity=MissingDeviceIdentity(self._options.missing_device_identity),
        )
        _demand_length(head)
        _limit(body, self._options.instance_bytes, "Raise limits.instance_bytes in scanseal.toml.")
        self._keyholder.authorize(role)
        window = Window(body.read_into, self._instance_buffer(), self._open_spool, keep=whole)
        self._window = window
        try:
            instance = digest_instance(window, plan)
        except OSError as error:  # only the spool does file operations
            raise _spool_failed(error) from error
        signature = self._keyholder.sign(
            role, algorithm, instance.digest, instance.sop_instance_uid, device_unnamed=bool(instance.warnings)
        )
        added = _Added(plan.signature_uid, instance, signature)
        edits = instance.edits(signature.value, signature.certificate)
        return _signed_instance(window, body.length, edits, added) if whole else _splice(edits, added)

    def _profile(self, name: str) -> Profile:
        private_elements = self._options.private_elements
        return load_profile(_choice(ProfileName, name, "profile"), private_elements=private_elements)

    def _instance_buffer(self) -> bytearray:
        if not self._buffer:
            self._buffer = bytearray(INSTANCE_BUFFER)
        return self._buffer

    def _open_spool(self) -> FileIO:
        try:
            return tempfile.TemporaryFile(dir=self._options.spool_directory, buffering=0)
        except OSError as error:
            raise _spool_failed(error) from error


CALLS: Mapping[str, Mapping[str, Callable[[Api, Head, Body], Answer]]] = {
    "/v1/status": {"GET": Api.status},
    "/v1/certificates": {"GET": Api.certificates},
    "/v1/sign/digest": {"POST": Api.sign_digest},
    "/v1/sign/instance": {"POST": Api.sign_instance},
}


def refusal(error: ScansealError, *fields: tuple[str, str]) -> Answer:
    """The answer that tells a caller about an error."""
    status, document = problem_of(error)
    return Answer.of(status, PROBLEM, document, fields)


@dataclass(frozen=True)
class _Added:
    """What an answer says of the signature that was added."""

    uid: str
    instance: InstanceDigest
    signature: Signature

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of what somebody should know although it was signed."""
        return (*self.instance.warnings, *_warnings(self.signature))


def _warnings(signature: Signature) -> tuple[str, ...]:
    """Codes of what somebody should know of a signature, whatever was signed."""
    found = {VENDOR_ONLY: signature.vendor_only, CLOCK_SUSPECT: signature.clock_suspect}
    return tuple(warning for warning, applies in found.items() if applies)


def _signed_instance(window: Window, size: int, edits: tuple[Edit, ...], added: _Added) -> Answer:
    def parts() -> Iterator[Bytes]:
        for part in spliced(size, edits):
            if isinstance(part, bytes):
                yield part
            else:
                yield from window.pieces(*part)

    return Answer(
        status=200,
        media_type=DICOM,
        # What is in memory goes out in one system call.
        parts=list(parts()) if size <= INSTANCE_BUFFER else parts(),
        length=size + sum(len(edit.insert) - edit.remove for edit in edits),
        fields=(
            ("Scanseal-Signature-UID", added.uid),
            ("Scanseal-Key-Generation", str(added.signature.generation)),
            ("Scanseal-Protection", added.signature.protection),
            *(("Scanseal-Warning", warning) for warning in added.warnings),
        ),
    )


def _splice(edits: tuple[Edit, ...], added: _Added) -> Answer:
    return _json_answer(
        SPLICE,
        {
            "edits": [{"offset": edit.offset, "remove": edit.remove, "insert": _base64(edit.insert)} for edit in edits],
            "signature_uid": added.uid,
            "sop_instance_uid": added.instance.sop_instance_uid,
            "key_generation": added.signature.generation,
            "protection": added.signature.protection,
            "warnings": added.warnings,
        },
    )


def _accepted(field: str) -> str:
    """The first type in an Accept field that an instance can be answered with; q values are not weighed."""
    for media_range in field.split(","):
        name = media_range.partition(";")[0].strip().lower()
        if name == SPLICE:
            return SPLICE
        if name in (DICOM, "application/*", "*/*"):
            return DICOM
    raise RequestRefused(
        f"None of the types in Accept can be answered: {field[:200]}.",
        remedy=f"Accept {DICOM} or {SPLICE}.",
        code="not-acceptable",
    )


def _parameters(query: str, names: tuple[str, ...]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for parameter in query.split("&") if query else ():
        name, _, value = parameter.partition("=")
        if name not in names or name in parameters:
            raise RequestRefused(
                f"The parameter {name[:100]!r} is unknown or given twice.",
                remedy=f"Known are: {', '.join(names) or 'none'}.",
                code="parameter-invalid",
            )
        parameters[name] = value
    return parameters


def _choice(kind: type[Choice], value: Any, name: str) -> Choice:
    try:
        return kind(value)
    except ValueError as error:
        raise RequestRefused(
            f"{name} is missing." if value is None else f"{name} is {str(value)[:100]!r}.",
            remedy=f"Give one of: {', '.join(kind)}.",
            code="parameter-invalid",
        ) from error


def _purpose(code: str | None) -> str:
    if code is not None and code not in PURPOSES:
        raise RequestRefused(
            f"purpose is {code[:100]!r}.",
            remedy="Give a code of CID 7007 (PS3.16), a number from 1 to 18, or leave it out.",
            code="parameter-invalid",
        )
    return code or ""


def _json_object(data: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(
            "The body is not JSON.", remedy="Send one JSON object.", code="parameter-invalid"
        ) from error
    if not isinstance(value, dict) or set(value) != set(names):
        raise RequestRefused(
            f"The body is not an object with the members {', '.join(names)}.",
            remedy="Send exactly these members.",
            code="parameter-invalid",
        )
    return value


def _digest(value: Any, algorithm: HashName) -> bytes:
    try:
        digest = binascii.a2b_base64(value, strict_mode=True)
    except (TypeError, ValueError) as error:
        raise RequestRefused("digest is not base64.", remedy="See RFC 4648 4.", code="parameter-invalid") from error
    if len(digest) != DIGEST_SIZES[algorithm]:
        raise RequestRefused(
            f"digest has {len(digest)} bytes.",
            remedy=f"{algorithm} makes {DIGEST_SIZES[algorithm]} bytes; put the bytes in base64, not their hex form.",
            code="parameter-invalid",
        )
    return digest


def _demand_length(head: Head) -> None:
    if head.content_length is None:
        raise RequestRefused(
            "The length of the body is not announced.", remedy="Send Content-Length.", code="length-required"
        )


def _limit(body: Body, limit: int, remedy: str) -> None:
    if body.length > limit:
        raise RequestRefused(
            f"The body has {body.length} bytes; this call takes {limit}.",
            remedy=remedy,
            code="body-too-large",
        )


def _spool_failed(error: OSError) -> RequestRefused:
    return RequestRefused(
        f"The instance could not be kept until its signature: {error.strerror}.",
        remedy="Make room in workers.spool_directory, or ask for a splice, which needs no room.",
        code="spool-failed",
    )


def _json_answer(media_type: str, value: Mapping[str, Any]) -> Answer:
    return Answer.of(200, media_type, json.dumps(value).encode("ascii"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
