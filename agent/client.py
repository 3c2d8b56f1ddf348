"""A client of the signing socket (`docs/socket-protocol.md`).

    with SigningClient(Path("/run/scanseal/sign.sock")) as agent, source.open("rb") as image:
        splice = agent.splice_instance(image, role="acquisition")
        with target.open("wb") as signed:
            apply_splice(image, splice.edits, signed)

One client is one connection, which stays open; use one in each thread. What the agent answers is bounded, and checked
before it is used.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from agent.dicom.splice import Edit, spliced
from agent.errors import AgentError, AgentRefused
from agent.transport import PIECE, AnswerHead, Source, Transport, invalid, size_of

JSON_LIMIT = 256 << 20  # bytes; only the splice of a deflated instance has more than a few thousand

DICOM = "application/dicom"
SPLICE = "application/vnd.scanseal.splice+json"


@dataclass(frozen=True)
class DigestSignature:
    """The answer to `sign_digest`.

    Args:
        signature: RSASSA-PKCS1-v1_5.
        certificate: DER of the certificate that verifies it.
        key_generation: Number of the generation of the identity that signed.
        protection: Where its key lives: "hardware", "memory" or "software"; empty where the agent does not say.
        warnings: Codes of what somebody should know, although it was signed.
    """

    signature: bytes
    certificate: bytes = field(repr=False)
    key_generation: int
    protection: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstanceSplice:
    """The answer to `splice_instance`: what to insert.

    Args:
        edits: In order of their offsets.
        signature_uid: Digital Signature UID (0400,0100).
        sop_instance_uid: Of the instance.
        key_generation: Number of the generation of the identity that signed.
        warnings: Codes of what somebody should know, although it was signed.
        protection: Where its key lives: "hardware", "memory" or "software"; empty where the agent does not say.
    """

    edits: tuple[Edit, ...] = field(repr=False)
    signature_uid: str
    sop_instance_uid: str
    key_generation: int
    warnings: tuple[str, ...] = ()
    protection: str = ""


class SigningClient:
    """A connection to the agent; made at the first call.

    Args:
        path: The socket.
        timeout: Longest wait for progress, in seconds.
        on_sent: Hears how many more bytes of a file have been sent, for a progress bar.
    """

    def __init__(self, path: Path, timeout: int = 30, on_sent: Callable[[int], None] = lambda _: None) -> None:
        self._transport = Transport(path, timeout, on_sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def status(self) -> dict[str, Any]:
        """The state of the agent.

        Raises:
            AgentError: No answer, or a refusal.
        """
        return self._json(self._call("GET", "/v1/status"))

    def certificates(self, identity: str = "signing") -> bytes:
        """The certificates of an identity in PEM, its own first.

        Raises:
            AgentError: No answer, or a refusal.
        """
        return self._body(self._call("GET", f"/v1/certificates?identity={identity}"))

    def sign_digest(self, digest: bytes, *, algorithm: str, role: str) -> DigestSignature:
        """Have a digest signed.

        Args:
            digest: The digest.
            algorithm: What made it: "sha256", "sha384" or "sha512".
            role: What it is signed as.

        Raises:
            AgentError: No answer, or a refusal.
        """
        encoded = binascii.b2a_base64(digest, newline=False).decode("ascii")
        body = json.dumps({"role": role, "algorithm": algorithm, "digest": encoded}).encode("ascii")
        answer = self._json(self._call("POST", "/v1/sign/digest", body))
        try:
            return DigestSignature(
                signature=_binary(answer["signature"]),
                certificate=_binary(answer["certificate"]),
                key_generation=_number(answer["key_generation"]),
                protection=_text(answer.get("protection", "")),
                warnings=tuple(_text(warning) for warning in answer.get("warnings", ())),  # older agents have none
            )
        except (KeyError, TypeError, ValueError) as error:
            raise invalid("not the signature of a digest") from error

    def splice_instance(
        self, source: Source, *, role: str, profile: str = "", algorithm: str = "", purpose: str = ""
    ) -> InstanceSplice:
        """Have an instance signed, and get back only what has to be inserted into it.

        Args:
            source: The instance: a DICOM file, open or in memory.
            role: What it is signed as.
            profile: Which elements are covered; empty for what the agent is configured to.
            algorithm: "sha256", "sha384" or "sha512"; empty for the same.
            purpose: A code of CID 7007, such as "14"; empty for none.

        Raises:
            AgentError: No answer, or a refusal.
        """
        target = _sign_instance(role=role, profile=profile, algorithm=algorithm, purpose=purpose)
        answer = self._json(self._call("POST", target, source, SPLICE))
        try:
            edits = tuple(
                Edit(_number(edit["offset"]), _number(edit["remove"]), _binary(edit["insert"]))
                for edit in answer["edits"]
            )
            return InstanceSplice(
                edits=edits,
                signature_uid=_text(answer["signature_uid"]),
                sop_instance_uid=_text(answer["sop_instance_uid"]),
                key_generation=_number(answer["key_generation"]),
                warnings=tuple(_text(warning) for warning in answer["warnings"]),
                protection=_text(answer.get("protection", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise invalid("not a splice") from error

    def sign_instance(  # noqa: PLR0913 - one keyword for each parameter of the call
        self,
        source: Source,
        destination: BinaryIO,
        *,
        role: str,
        profile: str = "",
        algorithm: str = "",
        purpose: str = "",
    ) -> None:
        """Have an instance signed, and write the signed instance as it comes back.

        Args:
            source: The instance: a DICOM file, open or in memory.
            destination: Gets the signed instance. On an error it may have got a part of it.
            role: What it is signed as.
            profile: Which elements are covered; empty for what the agent is configured to.
            algorithm: "sha256", "sha384" or "sha512"; empty for the same.
            purpose: A code of CID 7007, such as "14"; empty for none.

        Raises:
            AgentError: No answer, or a refusal.
        """
        target = _sign_instance(role=role, profile=profile, algorithm=algorithm, purpose=purpose)
        head = self._call("POST", target, source, DICOM)
        destination.writelines(self._transport.pieces(head))

    def _call(self, method: str, target: str, body: Source = b"", accept: str = "*/*") -> AnswerHead:
        """The head of the answer, if it is a success.

        Raises:
            AgentError: No answer, or a refusal.
        """
        head = self._transport.call(method, target, body, accept)
        if head.status != 200:  # noqa: PLR2004 - OK; no other success is in the protocol
            raise self._refused(head)
        return head

    def _body(self, head: AnswerHead) -> bytes:
        if head.length > JSON_LIMIT:
            self.close()
            raise invalid("too long")
        return b"".join([bytes(piece) for piece in self._transport.pieces(head)])

    def _json(self, head: AnswerHead) -> dict[str, Any]:
        try:
            answer = json.loads(self._body(head))
        except (ValueError, RecursionError) as error:
            raise invalid("not JSON") from error
        if not isinstance(answer, dict):
            raise invalid("not a JSON object")
        return answer

    def _refused(self, head: AnswerHead) -> AgentError:
        problem = self._json(head)
        try:
            return AgentRefused(
                _text(problem["detail"]),
                remedy=_text(problem["remedy"]),
                code=_text(problem["code"]),
                status=head.status,
            )
        except (KeyError, TypeError) as error:
            raise invalid("a refusal that is not a problem document") from error


def apply_splice(source: Source, edits: Sequence[Edit], destination: BinaryIO) -> None:
    """Write the signed instance.

    Args:
        source: The instance that was sent.
        edits: What the agent answered.
        destination: Gets the signed instance.

    Raises:
        AgentAnswerInvalid: The edits do not fit the instance; nothing is written.
    """
    size = size_of(source)
    end = 0
    for edit in edits:
        if edit.offset < end or edit.remove < 0 or edit.offset + edit.remove > size:
            raise invalid("a splice that does not fit the instance")
        end = edit.offset + edit.remove
    for part in spliced(size, edits):
        if isinstance(part, bytes):
            destination.write(part)
        elif isinstance(source, bytes | memoryview):
            destination.write(memoryview(source)[part[0] : part[1]])
        else:
            _copy(source, *part, destination)


def _copy(source: BinaryIO, start: int, stop: int, destination: BinaryIO) -> None:
    source.seek(start)
    while start < stop:
        piece = source.read(min(PIECE, stop - start))
        if not piece:
            raise AgentError("The instance became shorter while it was signed.", remedy="Sign it again.")
        destination.write(piece)
        start += len(piece)


def _sign_instance(**parameters: str) -> str:
    return "/v1/sign/instance?" + "&".join(f"{name}={value}" for name, value in parameters.items() if value)


def _binary(value: Any) -> bytes:
    return binascii.a2b_base64(value, strict_mode=True)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
