"""Anybody can put a time stamp into a signature, it is outside the MAC: one that proves nothing keeps no other out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.dicom.stamping import StampableInstance
from tests.support.attacks.editing import Change, in_signature, with_nodes, with_value
from tests.support.attacks.images import ct_slice, other_slice
from tests.support.attacks.resigning import stamped, value_of
from tests.support.attacks.times import TIME_STAMP, TIME_STAMP_TYPE
from tests.support.openssl import needs_openssl
from tests.support.pki import HospitalCa
from tests.support.raw_dicom import Node, text
from tests.support.time_stamp_authority import OpensslTsa, new_tsa, time_stamp_server
from tests.support.time_stamp_tokens import token

pytestmark = needs_openssl
TSA = new_tsa(HospitalCa("TSA CA"))
STRANGER = new_tsa(HospitalCa("Another CA"))
TYPE = text(TIME_STAMP_TYPE, "CS", "CMS_TSP")


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def put(*nodes: Node) -> Change:
    return in_signature(with_nodes(*nodes))


def damaged(data: bytes) -> bytes:
    made = bytearray(token(TSA, value_of(data), now()))
    made[-1] ^= 1
    return put(TYPE, Node(TIME_STAMP, "OB", bytes(made) + b"\0" * (len(made) % 2)))(data)


WORTHLESS: dict[str, Change] = {
    "type alone": put(text(TIME_STAMP_TYPE, "CS", "NONE")),
    "no value": put(TYPE, Node(TIME_STAMP, "OB", b"")),
    "junk": put(TYPE, Node(TIME_STAMP, "OB", b"xx")),
    "no token": put(TYPE, Node(TIME_STAMP, "OB", b"\x30\0")),
    "of another signature": stamped(now(), lambda: TSA, lambda _: value_of(other_slice())),
    "damaged": damaged,
}
PERHAPS: dict[str, tuple[Change, str]] = {
    "of another authority": (stamped(now(), lambda: STRANGER), "time-stamp-untrusted"),
    "of another type": (stamped(now(), lambda: TSA, kind="OTHER"), "time-stamp-wrong-type"),
}


@dataclass
class Archive:
    """A file, and an authority that stamps it."""

    file: Path
    tsa: OpensslTsa
    capsys: pytest.CaptureFixture[str]

    def stamp(self, *options: object) -> tuple[int, dict[str, Any]]:
        self.capsys.readouterr()
        with time_stamp_server(self.tsa.http) as url:
            source = options or ("--tsa", url, "--anchor", self.tsa.anchor_file, "--in-place")
            code = run(["timestamp", "--json", *map(str, source), str(self.file)])
        (file,) = json.loads(self.capsys.readouterr().out)["files"]
        return code, file["signatures"][0] if "signatures" in file else file["error"]


@pytest.fixture
def archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Archive:
    return Archive(tmp_path / "signed.dcm", OpensslTsa(TSA, tmp_path / "tsa"), capsys)


@pytest.mark.parametrize("change", WORTHLESS.values(), ids=WORTHLESS)
def test_what_proves_nothing_to_anybody_is_replaced(archive: Archive, change: Change) -> None:
    honest = ct_slice()
    archive.file.write_bytes(change(honest))
    code, said = archive.stamp()
    assert (code, said["status"]) == (exits.OK, "replaced")

    (signature,) = StampableInstance.read(archive.file.read_bytes()).signatures
    nodes = (TYPE, Node(TIME_STAMP, "OB", signature.time_stamp))
    assert archive.file.read_bytes() == put(*nodes)(honest)
    assert archive.stamp()[1]["status"] == "already-stamped"


@pytest.mark.parametrize(("change", "code"), PERHAPS.values(), ids=PERHAPS)
def test_what_may_prove_something_to_somebody_else_is_an_error(archive: Archive, change: Change, code: str) -> None:
    archive.file.write_bytes(change(ct_slice()))
    before = archive.file.read_bytes()
    ended, error = archive.stamp()

    assert (ended, error["code"]) == (exits.TIME_STAMP_REFUSED, code)
    assert archive.file.read_bytes() == before


def test_only_a_good_stamp_saves_a_query(archive: Archive, tmp_path: Path) -> None:
    """Without an anchor nobody can tell a good one from one of somebody's own authority."""
    archive.file.write_bytes(ct_slice())
    assert archive.stamp()[1]["status"] == "stamped"
    queries = ("--query-directory", tmp_path / "queries")
    with_anchor = (*queries, "--anchor", archive.tsa.anchor_file)

    assert archive.stamp(*with_anchor)[1]["status"] == "already-stamped"
    assert archive.stamp(*queries)[1]["status"] == "query-written"
    archive.file.write_bytes(in_signature(with_value(TIME_STAMP, b"xx"))(archive.file.read_bytes()))
    assert archive.stamp(*with_anchor)[1]["status"] == "query-written"
