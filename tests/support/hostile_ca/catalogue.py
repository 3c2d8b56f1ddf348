"""All entries, and the document that shows them.

To write docs/hostile-ca.md anew: `python -m tests.support.hostile_ca.catalogue`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.hostile_ca import (
    acme,
    acme_orders,
    certificates,
    chains,
    cmp,
    est,
    http,
    malformed,
    offline,
    scep,
    tls,
)
from tests.support.hostile_ca.misbehaviour import ALL, NETWORK, Expected, Misbehaviour

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "hostile-ca.md"
LAYERS: Final = (
    tls.LAYER,
    http.LAYER,
    certificates.LAYER,
    chains.LAYER,
    malformed.LAYER,
    est.LAYER,
    acme.LAYER,
    acme_orders.LAYER,
    cmp.LAYER,
    scep.LAYER,
    offline.LAYER,
)
MISBEHAVIOURS: Final = tuple(misbehaviour for layer in LAYERS for misbehaviour in layer.misbehaviours)

_INTRODUCTION: Final = """\
# A hostile CA

What a CA, or whoever poses as one, may do to a scanner that renews the certificate it uses, and what becomes of it. A
test runs each against the whole enroller, over real connections. In every case no certificate is accepted, what is in
use stays in use, the run ends in time and with little memory, no key is left over, and `scanseal status` shows later
what happened, who must act and what happens next.

- *by* is the way that the certificate comes: "network" for EST, ACME and CMP, "all" for these, SCEP and files by
  hand. SCEP uses the same HTTP as CMP.
- *ends with* is the stable code of the error, or "waits" where the request stays under way: the CA is asked again, at
  the latest after a day. A flow that ends otherwise than the rest stands behind it.
- *who must act*: most often the operator of the CA; hospital IT where it may as well be the network or another server;
  the operator of the scanner where a wrong file was brought.

"""

_CLOSING: Final = """
This page is written by `python -m tests.support.hostile_ca.catalogue`. Its proof is in
`tests/hostile/test_hostile_ca.py`, where 10,000 damaged messages are tried as well.
"""


def document() -> str:
    """The content of docs/hostile-ca.md."""
    return "".join(_pieces())


def _pieces() -> Iterator[str]:
    yield _INTRODUCTION
    runs = sum(len(misbehaviour.flows) for misbehaviour in MISBEHAVIOURS)
    yield f"{len(MISBEHAVIOURS)} misbehaviours, {runs} runs; 0 certificates accepted.\n"
    for layer in LAYERS:
        yield f"\n## {layer.title}\n\n"
        yield "| name | breaks | what is done | by | ends with | who must act |\n|---|---|---|---|---|---|\n"
        yield from map(_row, layer.misbehaviours)
    yield _CLOSING


def _row(one: Misbehaviour) -> str:
    by = {NETWORK: "network", ALL: "all"}.get(one.flows) or ", ".join(one.flows)
    ends, acts = str(one.expected), _who(one.expected)
    for flow in one.flows:
        other = one.expected_of(flow)
        if str(other) != str(one.expected):
            ends += f"; {flow} {other}"
        if _who(other) != _who(one.expected):
            acts += f"; {flow} {_who(other)}"
    return f"| {one.name} | {one.clause} | {one.what} | {by} | {ends} | {acts} |\n"


def _who(expected: Expected) -> str:
    return expected.who_must_act if expected.code else "nobody"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
