"""The files of one generation: written once, and then read as they were written or not at all.

    certificate.pem   the certificate
    chain.pem         the same, then its intermediates: what TLS wants
    anchor.pem        what it led to when it came
    key.uri           the name of its key in a key store
    meta.json         how and when it came, and the SHA-256 of all the others

So a file that was changed, or that is of another generation or identity, is damaged, and the generation with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from enroll.certificates import parse_certificates, pem
from enroll.errors import DiskRefused, StateDamaged
from enroll.keystore.base import Protection
from enroll.record import damaged, read_record, read_time, sha256_of, write_record
from enroll.statefile import StateFiles

CERTIFICATE, CHAIN, ANCHOR, KEY, META = "certificate.pem", "chain.pem", "anchor.pem", "key.uri", "meta.json"

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,2048}")  # RFC 3986 3: a scheme, then visible ASCII
_FILE_MODE = 0o640
_WITH_CHECKSUM = (CERTIFICATE, CHAIN, KEY, ANCHOR)
_FIELDS = ("flow", "protection", "committed_at", "before", *_WITH_CHECKSUM)


@dataclass(frozen=True)
class GenerationContent:
    """What the files say.

    Args:
        certificate: The certificate.
        chain: Its intermediates.
        anchor: What it led to when it came; None where that was not kept.
        key_uri: The name of its key.
        protection: Where the key really lives.
        flow: The way it came.
        committed_at: When it came.
        before: The number of the generation that was in use then; 0 where there was none.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate | None
    key_uri: str
    protection: Protection
    flow: str
    committed_at: datetime
    before: int = 0


def write_generation(directory: Path, content: GenerationContent, files: StateFiles, *, final: Path) -> None:
    """Write all files of a generation.

    Args:
        directory: Where they are made.
        content: What goes into them.
        files: Writes.
        final: The name that the directory is given when they are complete.

    Raises:
        StateError: The disk refused.
    """
    data = {
        CERTIFICATE: pem((content.certificate,)),
        CHAIN: pem((content.certificate, *content.chain)),
        KEY: f"{content.key_uri}\n".encode("ascii"),
    }
    if content.anchor is not None:
        data[ANCHOR] = pem((content.anchor,))
    meta = {
        "flow": content.flow,
        "protection": str(content.protection),
        "committed_at": content.committed_at.isoformat(),
        "before": str(content.before),
        **{name: sha256_of(data[name]) if name in data else "" for name in _WITH_CHECKSUM},
    }
    for name, each in data.items():
        files.write(directory / name, each, _FILE_MODE)
    write_record(directory / META, meta, files, _FILE_MODE, place=final / META)


def read_generation(directory: Path, files: StateFiles) -> GenerationContent:
    """What is in the files of a generation.

    Raises:
        StateDamaged: One of them is not as it was written.
        StateError: One cannot be read.
    """
    meta = _meta(directory, files)
    certificates = parse_certificates(_checked(directory / CERTIFICATE, meta, files), directory / CERTIFICATE)
    certificate, *chain = parse_certificates(_checked(directory / CHAIN, meta, files), directory / CHAIN)
    if certificates != (certificate,):
        raise damaged(directory / CHAIN)
    path, anchor = directory / ANCHOR, None
    if meta[ANCHOR]:
        anchor = parse_certificates(_checked(path, meta, files), path)[0]
    elif files.exists(path):
        raise damaged(path)
    return GenerationContent(
        certificate=certificate,
        chain=tuple(chain),
        anchor=anchor,
        key_uri=_parsed_uri(_checked(directory / KEY, meta, files), directory / KEY),
        protection=Protection(meta["protection"]),
        flow=meta["flow"],
        committed_at=read_time(meta["committed_at"], directory / META),
        before=int(meta["before"]),
    )


def read_key_uri(directory: Path, files: StateFiles) -> str:
    """The name of the key of a generation, of which nothing else need be left: a key that nobody needs is destroyed.

    Raises:
        StateDamaged: It is not there, or not what was written, as far as that is known.
        StateError: It cannot be read.
    """
    meta, path = _meta_left(directory, files), directory / KEY
    return _parsed_uri(_checked(path, meta, files) if meta else files.read(path), path)


def read_certificate(directory: Path, files: StateFiles) -> x509.Certificate:
    """The certificate of a generation, of which nothing else need be left; raises as `read_key_uri`."""
    meta, path = _meta_left(directory, files), directory / CERTIFICATE
    return parse_certificates(_checked(path, meta, files) if meta else files.read(path), path)[0]


def read_before(directory: Path, files: StateFiles) -> int | None:
    """The number of the generation that was in use before this one; None where that is not known any more."""
    try:
        return int(_meta(directory, files)["before"])
    except (StateDamaged, DiskRefused):
        return None


def _meta(directory: Path, files: StateFiles) -> dict[str, str]:
    path = directory / META
    meta = read_record(path, _FIELDS, files)
    if meta["protection"] not in list(Protection) or not re.fullmatch(r"[0-9]{1,9}", meta["before"]):
        raise damaged(path)
    return meta


def _meta_left(directory: Path, files: StateFiles) -> dict[str, str] | None:
    try:
        return _meta(directory, files)
    except StateDamaged:
        return None


def _checked(path: Path, meta: dict[str, str], files: StateFiles) -> bytes:
    data = files.read(path)
    if sha256_of(data) != meta[path.name]:
        raise damaged(path)
    return data


def _parsed_uri(data: bytes, path: Path) -> str:
    uri = data.decode("ascii", errors="replace").removesuffix("\n")
    if not _URI.fullmatch(uri):
        raise damaged(path)
    return uri
