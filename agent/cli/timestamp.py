"""`scanseal timestamp`."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from agent.cli import exits
from agent.cli.options import (
    first_bytes,
    instance_bytes,
    json_option,
    progress,
    show,
    shown_name,
    size_of,
    written_whole,
)
from agent.dicom.signer_chain import CMS_TSP
from agent.dicom.splice import spliced
from agent.dicom.stamping import StampableInstance, StampableSignature
from agent.dicom.timestamp import TimeStamp, verify_time_stamp
from agent.errors import DicomError, InputFileError, OutputFileError
from enroll.certificates import name_text
from enroll.clock import SystemClock
from enroll.errors import ScansealError, ServerUnreachable, TimeStampError
from enroll.foreign import printable
from enroll.statefile import StateFiles
from enroll.time_stamp_authority import (
    NONCE_BITS,
    RESPONSE_LIMIT,
    TimeStampAuthority,
    new_query,
    read_response,
)
from enroll.trust import read_ca_certificates

_PREFIX = slice(128, 132)  # where PS3.10 7.1 has DICM
# Why a time stamp cannot prove anything to anybody, whomever he trusts. The others may: they are not replaced.
_WORTHLESS = frozenset(
    f"time-stamp-{why}" for why in ("truncated", "malformed", "wrong-content", "changed", "wrong-imprint")
)
# The token that was given for a signature, and the nonce it must hold, if any.
_TokenSource = Callable[[StampableSignature], tuple[bytes, int | None]]
_STATUS = {
    "stamped": "stamped",
    "already-stamped": "has a time stamp that proves when it existed, left as it is",
    "replaced": "had a time stamp that proved nothing, stamped anew",
    "query-written": "query written",
}


@dataclass(frozen=True)
class _File:
    """A file to be stamped.

    Args:
        source: The file.
        name: What it is called in an output directory.
    """

    source: Path
    name: Path


@dataclass(frozen=True)
class _Places:
    """Where stamped files go; exactly one of the three is given."""

    output: Path | None
    output_directory: Path | None
    in_place: bool
    force: bool

    def check(self, files: Sequence[_File]) -> None:
        """Refuse what is ambiguous.

        Raises:
            click.UsageError: With what to do instead.
        """
        if [self.output is not None, self.output_directory is not None, self.in_place].count(True) != 1:
            raise click.UsageError(
                "Say where the stamped files go: --output FILE, --output-directory DIRECTORY or --in-place."
            )
        if self.output is not None and len(files) != 1:
            raise click.UsageError("--output takes one FILE. Use --output-directory for several.")
        if self.output_directory is not None:
            name, count = Counter(file.name for file in files).most_common(1)[0]
            if count > 1:
                raise click.UsageError(f"{count} files are called {str(name)!r}, so one would replace the other.")

    def target(self, file: _File) -> Path:
        """Where a stamped file goes.

        Raises:
            OutputFileError: Something is there that must not be replaced.
        """
        if self.in_place:
            return file.source.resolve()
        target = self.output or (self.output_directory or Path()) / file.name
        if target.exists() and file.source.exists() and target.samefile(file.source):
            raise OutputFileError(f"{target} is the original.", remedy="Choose another place, or say --in-place.")
        if target.exists() and not self.force:
            raise OutputFileError(f"{target} exists.", remedy="Choose another place, or replace it with --force.")
        return target


@click.command("timestamp")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILE|DIRECTORY..."
)
@click.option("--tsa", metavar="URL", help="The time stamp authority, http:// or https://.")
@click.option("--anchor", type=click.Path(path_type=Path, readable=False), help="The authority's CA, PEM or DER.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where the stamped instance goes, for one FILE.")
@click.option(
    "--output-directory",
    type=click.Path(path_type=Path),
    help="Where the stamped instances go, under the names that they have. Made if it is not there.",
)
@click.option("--in-place", is_flag=True, help="Replace each file by the stamped one.")
@click.option("--force", is_flag=True, help="Replace output files that are there already.")
@click.option(
    "--query-directory",
    type=click.Path(path_type=Path),
    help="Stamp nothing; write the queries for an authority without network, UID.tsq for each signature.",
)
@click.option(
    "--response-directory",
    type=click.Path(path_type=Path),
    help="Take the authority's responses from there, UID.tsr for each signature.",
)
@json_option
def command(  # noqa: PLR0913, PLR0917 - one argument for each option
    paths: tuple[Path, ...],
    tsa: str | None,
    anchor: Path | None,
    output: Path | None,
    output_directory: Path | None,
    query_directory: Path | None,
    response_directory: Path | None,
    *,
    in_place: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Add trusted time to the signatures of DICOM files.

    A time stamp authority (RFC 3161) certifies when each signature existed, so that it can be verified when the
    certificate of its signer has expired. The authority sees a hash of the signature and nothing else. Its time stamp
    is verified before it is written. Signatures that have one are left as they are, if it proves when they
    existed; where all have one, nothing is written. What proves nothing to anybody, such as a damaged one, is
    replaced; what another anchor might prove is an error. With --query-directory they are told apart if there is an
    --anchor, otherwise all signatures get a query. Of a DIRECTORY, all DICOM files are stamped.

    \b
    Exit code: 0 all stamped, 65 one cannot be stamped, 66 one cannot be read, 69 the authority does not answer,
               73 one cannot be written, 76 a time stamp proves nothing or was refused, 78 the anchor cannot be used.

    \b
    Example: scanseal timestamp --tsa http://tsa.hospital.example --anchor tsa-ca.pem --in-place archive/
    """
    if [tsa is not None, query_directory is not None, response_directory is not None].count(True) != 1:
        raise click.UsageError("Say who gives the time stamps: --tsa, --response-directory, or --query-directory.")
    files = list(_files(paths))
    if not files:
        raise InputFileError("There is no DICOM file in the directory.", remedy="Name a directory with DICOM files.")
    if query_directory is not None:
        known = read_ca_certificates(anchor, StateFiles()) if anchor is not None else ()
        queried = partial(_queried, directory=query_directory, anchors=known)
        return _for_each(files, queried, "Writing queries", as_json=as_json)
    if anchor is None:
        raise click.UsageError("Say whom you trust for time stamps: --anchor tsa-ca.pem.")
    places = _Places(output, output_directory, in_place, force)
    places.check(files)
    anchors = read_ca_certificates(anchor, StateFiles())
    if tsa is None:
        responses = partial(_response, directory=response_directory or Path())
        return _for_each(files, _Stamper(places, anchors, responses).stamped, "Stamping", as_json=as_json)
    with TimeStampAuthority(tsa, anchors, SystemClock()) as authority:
        asked = partial(_asked, authority=authority)
        return _for_each(files, _Stamper(places, anchors, asked).stamped, "Stamping", as_json=as_json)


def _files(paths: Sequence[Path]) -> Iterator[_File]:
    for path in paths:
        if not path.is_dir():
            yield _File(path, Path(path.name))
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and _may_be_dicom(file):
                yield _File(file, file.relative_to(path))


def _may_be_dicom(path: Path) -> bool:
    try:
        return first_bytes(path, _PREFIX.stop)[_PREFIX] == b"DICM"
    except InputFileError:
        return True  # so that it is reported


def _for_each(files: Sequence[_File], work: Callable[[_File], dict[str, Any]], label: str, *, as_json: bool) -> int:
    """Work on each file, whatever becomes of the others; but an authority that does not answer is asked once only."""
    results: list[dict[str, Any]] = []
    failures: list[int] = []
    with progress([file.source for file in files], label) as done:
        for file in files:
            try:
                results.append({"file": str(file.source), **work(file)})
            except ScansealError as error:
                failures.append(exits.exit_code(error))
                results.append({"file": str(file.source), "error": exits.described(error)})
                if isinstance(error, ServerUnreachable):
                    break
            done(size_of(file.source))
    not_tried = [str(file.source) for file in files[len(results) :]]
    text = [*map(_text, results), *(f"{shown_name(Path(name))}: not tried" for name in not_tried)]
    show({"files": results, "not_tried": not_tried}, "\n".join(text), as_json=as_json)
    return failures[0] if failures else exits.OK


@dataclass(frozen=True)
class _Stamper:
    """Stamps files.

    Args:
        places: Where they go.
        anchors: The CA certificates that are trusted for time stamps.
        source: Gives the tokens.
    """

    places: _Places
    anchors: tuple[x509.Certificate, ...]
    source: _TokenSource

    def stamped(self, file: _File) -> dict[str, Any]:
        """Stamp the signatures of a file that have no good time stamp; if all have one, nothing is written."""
        target = self.places.target(file)
        with instance_bytes(file.source) as data:
            instance = _read(data)
            tokens: dict[int, bytes] = {}
            described = []
            for index, signature in enumerate(instance.signatures):
                if _is_stamped(signature, self.anchors):
                    described.append({"signature_uid": signature.uid, "status": "already-stamped"})
                    continue
                token, nonce = self.source(signature)
                stamp = verify_time_stamp(token, signature.value, self.anchors, SystemClock().now(), nonce=nonce)
                tokens[index] = token
                status = "replaced" if signature.time_stamp or signature.time_stamp_type else "stamped"
                described.append({"signature_uid": signature.uid, "status": status, **_described(stamp)})
            if not tokens:
                return {"signatures": described}
            mode = file.source.stat().st_mode
            with written_whole(target) as output:
                for part in spliced(len(data), instance.edits(tokens)):
                    output.write(part if isinstance(part, bytes) else data[slice(*part)])
                if self.places.in_place:
                    os.fchmod(output.fileno(), stat.S_IMODE(mode))
        return {"stamped": str(target), "signatures": described}


def _is_stamped(signature: StampableSignature, anchors: tuple[x509.Certificate, ...]) -> bool:
    """Whether a signature has a time stamp that proves something. It is outside the MAC: anybody can put one there.

    Raises:
        TimeStampError: It may prove something, but not by these anchors: to replace it could destroy a proof.
    """
    if not signature.time_stamp:
        return False
    if signature.time_stamp_type != CMS_TSP:
        raise TimeStampError(
            f"A signature has a time stamp of the type {signature.time_stamp_type[:16]!r}, not {CMS_TSP}.",
            remedy="Find out who put it there. It can be judged once the type is right, or left out.",
            code="time-stamp-wrong-type",
        )
    try:
        verify_time_stamp(signature.time_stamp, signature.value, anchors, SystemClock().now())
    except TimeStampError as error:
        if error.code in _WORTHLESS:
            return False
        raise TimeStampError(
            f"A signature has a time stamp that may be a proof to somebody else. {error.what}",
            remedy="Put the CA certificate of its authority into the file of --anchor as well, or remove the stamp.",
            code=error.code,
        ) from error
    return True


def _queried(file: _File, directory: Path, anchors: tuple[x509.Certificate, ...]) -> dict[str, Any]:
    """Write the queries for the signatures of a file that have no good time stamp; without anchors, for all of them.

    They hold no nonce: whoever takes the responses back would not know it any more. Another token of the same
    authority for the same signature would prove the same.
    """
    described = []
    with instance_bytes(file.source) as data:
        for signature in _read(data).signatures:
            status = "already-stamped"
            if not anchors or not _is_stamped(signature, anchors):
                with written_whole(directory / f"{_file_name(signature)}.tsq") as query:
                    query.write(new_query(signature.value, nonce=None))
                status = "query-written"
            described.append({"signature_uid": signature.uid, "status": status})
    return {"signatures": described}


def _read(data: bytes | memoryview) -> StampableInstance:
    instance = StampableInstance.read(data)
    if not instance.signatures:
        raise DicomError(
            "It carries no signature.", remedy="Leave it out: only signatures can be stamped.", code="not-signed"
        )
    return instance


def _asked(signature: StampableSignature, authority: TimeStampAuthority) -> tuple[bytes, int]:
    nonce = secrets.randbits(NONCE_BITS)
    return authority.token(new_query(signature.value, nonce)), nonce


def _response(signature: StampableSignature, directory: Path) -> tuple[bytes, None]:
    path = directory / f"{_file_name(signature)}.tsr"
    if not path.is_file():
        raise InputFileError(
            f"There is no response {path}.", remedy="Have the query of the same name answered by the authority."
        )
    return read_response(first_bytes(path, RESPONSE_LIMIT + 1)), None


def _file_name(signature: StampableSignature) -> str:
    if not re.fullmatch(r"[0-9][0-9.]{0,63}", signature.uid, re.ASCII):
        raise DicomError(
            f"Digital Signature UID (0400,0100) is {signature.uid[:64]!r}, which is no UID.",
            remedy="Stamp this file with --tsa.",
            code="signature-malformed",
        )
    return signature.uid


def _described(stamp: TimeStamp) -> dict[str, Any]:
    return {
        "time": stamp.time.isoformat(),
        "accuracy_seconds": None if stamp.accuracy is None else stamp.accuracy.total_seconds(),
        "policy": stamp.policy,
        "authority": name_text(stamp.authority.subject),
    }


def _text(result: dict[str, Any]) -> str:
    name = shown_name(Path(result["file"]))
    if error := result.get("error"):
        return f"{name}: not stamped ({error['code']}). {error['what']} {error['remedy']}"
    lines = [f"{name}: written to {shown_name(Path(result['stamped']))}" if "stamped" in result else f"{name}:"]
    for signature in result["signatures"]:
        line = f"    signature {printable(signature['signature_uid'])}: {_STATUS[signature['status']]}"
        if "time" in signature:
            line += f", {signature['time']} by {signature['authority']}"
        lines.append(line)
    return "\n".join(lines)
