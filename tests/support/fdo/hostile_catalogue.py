"""All cases, and the document that shows them.

To write docs/hostile-owner.md anew: `python -m tests.support.fdo.hostile_catalogue`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.fdo import (
    hostile_certificates,
    hostile_conformance,
    hostile_encoding,
    hostile_http,
    hostile_rendezvous,
    hostile_service_info,
    hostile_session,
    hostile_voucher,
)
from tests.support.fdo.hostile_case import ONBOARDS, Case, Chapter

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "hostile-owner.md"
OF_THE_TOOL: Final = hostile_conformance.CHAPTER
CHAPTERS: Final[tuple[Chapter, ...]] = (
    OF_THE_TOOL,
    hostile_rendezvous.CHAPTER,
    hostile_voucher.CHAPTER,
    hostile_session.CHAPTER,
    hostile_service_info.CHAPTER,
    hostile_certificates.CHAPTER,
    hostile_encoding.CHAPTER,
    hostile_http.CHAPTER,
)
CASES: Final = tuple(case for chapter in CHAPTERS for case in chapter.cases)

_INTRODUCTION: Final = """\
# A hostile owner

What a rendezvous server or an owner of FIDO Device Onboard, or whoever is between them and a scanner, may do in TO1 and
TO2, and what becomes of it. A test runs each over HTTP against the whole enroller, with servers that are written from
the facts alone and right in everything else: what is wrong is signed and encrypted as it should be.

In every case that is refused the server is told (message 255, with the token of its run), unless the connection is gone
or it was the server that said no. The scanner sends nothing more, the credential stays as it is byte by byte, no
certificate, CA or key is kept beyond the key of a request that the next run uses, nothing secret is in the log, the run
ends in time and with little memory, and the next run with an honest owner onboards the scanner.

Message 71 is the exception: when it comes, the owner may have replaced the voucher already. So the credential in use
stays, the next one is kept beside it, and the next run finds the owner by either of them.

- *message* is the answer that is not what it should be.
- *ends with* is the stable code of the error; "waits" where the next run tries again; "onboards" where no harm is done.
- *told* is the code of message 255 and the message that it is about: the scanner's own where what came back was no
  message. A redirection (33) by somebody else shows only in TO2, once the owner has proved itself (63).

The names of the first table are those of the FIDO conformance tool, without FIDO_LISTENER_DEVICE_. They name the
request; the answer to it is the hostile one. What the tool does at random is done there in each of its variants.

"""

_CLOSING: Final = """
This page is written by `python -m tests.support.fdo.hostile_catalogue`. Its proof is in
`tests/hostile/test_fdo_servers.py`.
"""


def document() -> str:
    """The content of docs/hostile-owner.md."""
    return "".join(_pieces())


def _pieces() -> Iterator[str]:
    yield _INTRODUCTION
    harmless = sum(case.ending is ONBOARDS for case in CASES)
    yield f"{len(CASES)} cases, of which {harmless} do no harm; 0 wrong owners, 0 wrong certificates.\n"
    for chapter in CHAPTERS:
        yield f"\n## {chapter.title}\n\n"
        yield "| name | message | breaks | what is done | ends with | told |\n|---|---|---|---|---|---|\n"
        yield from map(_row, chapter.cases)
    yield _CLOSING


def _row(case: Case) -> str:
    ending = case.ending
    ends = ending.code if ending.code in ("waits", "onboards") else f"`{ending.code}`"
    told = str(ending.told) if ending.told else f"nothing: {ending.untold}"
    return f"| {case.name} | {case.message} | {case.clause} | {case.what} | {ends} | {told} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
