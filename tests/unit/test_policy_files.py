"""The loader refuses what it does not understand, names the line, and never guesses."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from agent.errors import PolicyError
from agent.policy.load import POLICY_LIMIT, load_policy
from agent.policy.model import MatchKey
from agent.policy.parse import parse_policy
from agent.policy.table import LONGEST_LIST, LONGEST_TEXT, MOST_TABLES
from enroll.statefile import StateFiles
from tests.support.policies import ROOT, example, policy, policy_text

EXAMPLE: Final = example()


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "policy.toml")
    error = caught.value
    assert f"policy.toml line {error.line}: " in error.what
    assert error.remedy
    return error


# ---------------------------------------------------------------------------------------------- strictness, with lines

MISTAKES: Final = [
    # what stands there, what is written instead, the code, what the message has to say
    ("grace_days = 14", "grace_dayz = 14", "unknown-key", "Did you mean grace_days?"),
    ('match.model = "CT-9000"', 'match.modle = "CT-9000"', "unknown-key", "Did you mean model?"),
    ("[[device]]", "[[devices]]", "unknown-key", "Did you mean device?"),
    ('on.VALID_PARTIAL_COVERAGE = "quarantine"', 'on.VALID_PARTIAL = "flag"', "unknown-key", "VALID_PARTIAL_COVERAGE"),
    ("received.until = 2027-04-30", "received.to = 2027-04-30", "unknown-key", "until"),
    ('expect = "any"', 'expect = "singed"', "unknown-value", "Did you mean signed?"),
    ('kind = "sold"', 'kind = "key-compromize"', "unknown-value", "Did you mean key-compromise?"),
    ('names = ["SHA1"]', 'names = ["SHA-1"]', "unknown-value", "Did you mean SHA1?"),
    ('match.content = ["PHANTOM", "TEST"]', 'match.content = ["FANTOM"]', "unknown-value", "Did you mean PHANTOM?"),
    ('signer.require = ["serial",', 'signer.require = ["serials",', "unknown-value", "Did you mean serial?"),
    ('signer.anchor = "owner-ca-2026"', 'signer.anchor = "owner-ca-2025"', "unknown-anchor", "owner-ca-2026?"),
    ('signer.anchor = "owner-ca-2026"', 'signer.anchor = "hospital-tsa"', "unknown-anchor", "signs for devices"),
    ('mode = "enforce"', 'mode = "Enforce"', "unknown-value", "Did you mean enforce?"),
    ('id = "all-us"', 'id = "ct1"', "duplicate-id", "'ct1' is taken"),
    ('id = "mr2-sold"', 'id = "ct1-key-leak"', "duplicate-id", "taken"),
    ('id = "vendor-x-wide"', 'id = "owner-ca-2026"', "duplicate-id", "taken"),
    ('id = "all-us"', 'id = "all us"', "policy-invalid", "letters"),
    ('match.manufacturer = "ACME"\n', "", "serial-without-manufacturer", "manufacturer"),
    ('layer = "local"', 'layer = "national"', "layer-not-local", "only local files are read yet"),
    ('layer = "local"', 'layer = "regional"', "layer-not-local", "only local files are read yet"),
    ("dicom-signing-policy/1", "dicom-signing-policy/2", "unknown-schema", "dicom-signing-policy/1"),
    ("grace_days = 60", "grace_days = 60\nfloor = true", "floor-in-local-layer", "lowest"),
    ("until = 2029-06-30\n", "", "exemption-unbounded", "until"),
    ('reason = "no vendor update; replacement planned"', "", "exemption-unbounded", "reason"),
    ('match.sending_ae = "OLDPACS"', 'match.ae = "OLDPACS"', "migration-unbounded", "sending_ae"),
    ("received.from = 2027-04-01\n", "", "migration-unbounded", "received.from"),
    ('kind = "key-compromise"', f'kind = "key-compromise"\ncert_sha256 = "{"1" * 64}"', "missing-key", "one of them"),
    ("proof_before = 2017-02-23", "", "missing-key", "proof_before"),
    ('names = ["SHA1"]', 'names = ["SHA1", "MD5"]', "duplicate-algorithm", "MD5"),
    ('on.VALID_PARTIAL_COVERAGE = "quarantine"', 'on.BROKEN = "flag"', "verdict-relaxed", "BROKEN"),
    ('on.VALID_PARTIAL_COVERAGE = "quarantine"', 'on.REVOKED = "accept"', "verdict-relaxed", "REVOKED"),
    ('issuer = "St Elsewhere imaging IT"\n', "", "missing-key", "issuer is missing in [policy]"),
    ("expires = 2027-02-28T00:00:00Z", "expires = 2026-02-28T00:00:00Z", "policy-invalid", "expires before"),
    ("from = 2026-12-01\n", "", "policy-invalid", "grace have no beginning"),
    ("from = 2026-12-01", 'from = "2026-12-01"', "policy-invalid", "without quotes"),
    ("from = 2026-12-01", "from = 2026-12-01T00:00:00Z", "policy-invalid", "without a time"),
    ("since = 2027-01-31T00:00:00Z", "since = 2027-01-31T00:00:00", "policy-invalid", "offset from UTC"),
    ("since = 2027-01-31T00:00:00Z", "since = 2027-01-31", "policy-invalid", "offset from UTC"),
    ("since = 2027-01-31T00:00:00Z", "since = 0001-01-31T00:00:00Z", "policy-invalid", "0001"),
    ("until = 2029-06-30", "until = 9999-12-31", "policy-invalid", "9999"),
    ("received.until = 2027-04-30", "received.until = 2027-03-30", "policy-invalid", "until lies before from"),
    ('timezone = "+01:00"', 'timezone = "Europe/Vienna"', "policy-invalid", "+01:00"),
    ('timezone = "+01:00"', 'timezone = "+15:00"', "policy-invalid", "+01:00"),
    ("serial = 41", "serial = true", "policy-invalid", "whole number"),
    ("serial = 41", "serial = 41.0", "policy-invalid", "whole number"),
    ("serial = 41", "serial = nan", "policy-invalid", "whole number"),
    ("serial = 41", "serial = -1", "policy-invalid", "whole number"),
    ("serial = 41", f"serial = 0x{'f' * 6000}", "policy-invalid", "whole number"),
    ("serial = 41", f"serial = {'9' * 6000}", "policy-not-toml", "too many digits"),
    ("grace_days = 14", "grace_days = 100_000", "policy-invalid", "3650"),
    ("1" * 64, "1" * 63, "policy-invalid", "64 digits"),
    ("1" * 64, "A" * 64, "policy-invalid", "64 digits"),
    ("policy_oids = []", 'policy_oids = ["2.16.x"]', "policy-invalid", "object identifiers"),
    ('identifies = "vendor"', 'identifies = "device"', "policy-invalid", "vendor-wide"),
    ('identifies = "vendor"', "", "missing-key", "identifies"),
    ('match.modality = ["US"]\nexpect', "match.modality = []\nexpect", "policy-invalid", "0 values"),
    ('match.modality = ["US"]\nexpect', "match.modality = 7\nexpect", "policy-invalid", "text"),
    ('match.modality = ["US"]\nexpect', 'match.modality = ""\nexpect', "policy-invalid", "text"),
    ('match.modality = ["US"]\nexpect', 'match.modality = " US"\nexpect', "policy-invalid", "text"),
    ('match.modality = ["US"]\nexpect = "signed"', 'match = "US"\nexpect = "any"', "policy-invalid", "no table"),
    ('match.modality = ["US"]\nexpect', 'match.modality = "U\\u0007S"\nexpect', "policy-invalid", "printable"),
    ('match.modality = ["US"]\nexpect', 'match.modality = ["us"]\nexpect', "unknown-value", "Did you mean US?"),
    ('match.modality = ["US"]\nexpect', 'match.modality = "CT\\\\US"\nexpect', "policy-invalid", "one value"),
    ('match.content = ["PHANTOM", "TEST"]', 'match.content = ["phantom"]', "unknown-value", "Known are: DERIVED"),
    ('match.model = "CT-9000"', 'match.sop_class = "CT Image Storage"', "policy-invalid", "1.2.840"),
    ('match.model = "CT-9000"', 'match.device_uid = "urn:oid:2.25.1"', "policy-invalid", "1.2.840"),
    ('match.model = "CT-9000"', 'match.software_version = "1\\\\2"', "policy-invalid", "one value"),
    ("2" * 64, "1" * 64, "duplicate-anchor", "owner-ca-2026"),
    ('treat_as = "history"', 'treat_as = "proof"', "policy-invalid", "history"),
    ("[policy]", "[[policy]]", "policy-invalid", "is no table"),
    ("serial = 41", "serial = 41\nserial = 42", "policy-not-toml", "TOML"),
    ("serial = 41", "serial = ", "policy-not-toml", "TOML"),
    ("serial = 41", f"serial = {'[' * 3000}", "policy-not-toml", "nested"),
]


@pytest.mark.parametrize(("old", "new", "code", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_line(old: str, new: str, code: str, said: str) -> None:
    assert old in EXAMPLE
    error = refused(EXAMPLE.replace(old, new, 1))

    assert error.code == code
    assert said in str(error)
    if code.startswith("unknown-"):
        assert error.line == EXAMPLE[: EXAMPLE.index(old)].count("\n") + 1


def test_a_compromise_may_name_a_key_or_a_certificate() -> None:
    swapped = EXAMPLE.replace('key_sha256 = "4', 'cert_sha256 = "4').replace('cert_sha256 = "5', 'key_sha256 = "5')

    assert [bool(entry.key_sha256) for entry in parse_policy(swapped, "p").compromises] == [False, True]


@pytest.mark.parametrize(
    "entries",
    [
        ["[[rule]]", 'id = "a"', 'expect = "signed"', "grace_dayz = 1  # here"],
        ["[[rule]]", 'id = "a"', 'expect = "signed"', "", "[[rule]]", 'id = "b"', 'expect = "sign"  # here'],
        ["[[rule]]", 'id = "a"', 'expect = "signed"', "[rule.match]", 'modle = "M"  # here'],
        ["[[rule]]", 'id = "a"', 'match = { modality = "CT", modle = "M" }  # here'],
        ["[[rule]]", 'id = "a"', "match.modality = [", '  "CT",', "]", 'match.modle = "M"  # here'],
        ["[[rule]]", '"expect" = "sign"  # here', 'id = "a"'],
        ["[[rule]]", 'id = """a""" # three quotes, twice', 'expect = "sign"  # here'],
        ["[[rule]]  # here", 'id = "a"', 'match.modality = "CT"'],
        ["[[rules]]  # here", 'id = "a"'],
        ["[[rule]]", 'reason = """', 'expect = "sign"', '"""', 'id = "a"', 'expect = "sign"  # here'],
        ["[[rule]]", 'id = "a"', 'expect = "any"', "[[ rule ]]", 'id = "a"  # here', 'expect = "any"'],
    ],
)
def test_the_line_is_that_of_the_key_or_of_the_table_around_it(entries: list[str]) -> None:
    text = policy_text("\n".join(entries))

    assert refused(text).line == text[: text.index("# here")].count("\n") + 1


@pytest.mark.parametrize("text", ["", "schema = 1", "policy = 7", "\x00"])
def test_there_is_always_a_line(text: str) -> None:
    assert refused(text).line == 1


# ---------------------------------------------------------------------------------------------- contradictions


def entry(name: str, *lines: str, expect: str = "signed") -> str:
    return "\n".join([f'[[rule]]\nid = "{name}"\nexpect = "{expect}"', *lines, ""])


@pytest.mark.parametrize(
    ("first", "second", "ambiguous"),
    [
        (['match.modality = "US"'], ['match.modality = "US"'], True),
        (['match.modality = ["CT", "US"]'], ['match.modality = ["US", "MR"]'], True),
        (['match.modality = "CT"'], ['match.modality = "US"'], False),
        (['match.modality = "US"', 'match.ae = "A"'], ['match.modality = "US"'], False),
        (['match.modality = "US"', 'match.ae = "A"'], ['match.modality = "US"', 'match.ae = "B"'], False),
        (['match.modality = "US"', 'match.ae = "A"'], ['match.modality = "US"', 'match.ae = "A"'], True),
        (['match.modality = "US"', "until = 2027-01-01"], ['match.modality = "US"', "from = 2027-01-02"], False),
        (['match.modality = "US"', "until = 2027-01-01"], ['match.modality = "US"', "from = 2027-01-01"], True),
        ([], [], True),
        ([], ['match.modality = "US"'], False),
    ],
)
def test_two_entries_of_one_weight_must_not_speak_of_one_instance(
    first: list[str], second: list[str], *, ambiguous: bool
) -> None:
    text = policy_text(entry("a", *first), entry("b", *second))
    if ambiguous:
        assert refused(text).code == "ambiguous-entries"
    else:
        parse_policy(text, "policy.toml")


EXEMPTION: Final = entry(
    "old", 'match.ae = "OLD"', 'match.modality = "US"', "until = 2029-06-30", 'reason = "old"', expect="unsigned"
)


@pytest.mark.parametrize(
    ("successor", "accepted"),
    [
        (['match.modality = "US"'], True),
        (['match.modality = ["US", "CT"]'], True),
        (['match.ae = "OLD"'], True),
        ([], True),
        (['match.modality = "US"', "from = 2029-07-01"], True),
        (['match.modality = "US"', "from = 2029-07-02"], False),
        (['match.modality = "US"', "until = 2029-06-30"], False),
        (['match.modality = "US"', "until = 2029-07-01"], True),
        (['match.modality = "CT"'], False),
        (['match.ae = "OLD"', 'match.modality = "US"', 'match.model = "M"'], False),
        (['match.ae = "OLD"', 'match.modality = "US"', "from = 2029-07-01"], True),
    ],
)
def test_an_exemption_needs_a_successor_without_a_gap(successor: list[str], *, accepted: bool) -> None:
    text = policy_text(EXEMPTION, entry("next", *successor))
    if accepted:
        parse_policy(text, "policy.toml")
    else:
        assert refused(text).code == "exemption-without-successor"


def test_an_exemption_does_not_succeed_itself() -> None:
    assert refused(policy_text(EXEMPTION)).code == "exemption-without-successor"


def test_a_heavier_key_outweighs_all_lighter_ones_together() -> None:
    keys = list(MatchKey)

    assert all(key.weight > sum(lighter.weight for lighter in keys[index + 1 :]) for index, key in enumerate(keys))


# ---------------------------------------------------------------------------------------------- bounds, reading


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"match.modality = {[f'M{number}' for number in range(LONGEST_LIST + 1)]}", "65 values"),
        (f'reason = "{"x" * (LONGEST_TEXT + 1)}"', "256"),
    ],
)
def test_texts_and_lists_are_bounded(lines: str, said: str) -> None:
    assert said in str(refused(policy_text(entry("a", lines))))


def test_entries_are_bounded_and_many_are_read_in_time() -> None:
    entries = [entry(f"r{number}", f'match.ae = "AE{number}"') for number in range(MOST_TABLES)]

    assert len(policy(*entries).entries) == MOST_TABLES
    assert "more than 4096" in str(refused(policy_text(*entries, entry("one-more"))))


def test_a_policy_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(EXAMPLE, "utf-8")

    assert load_policy(path, StateFiles()) == parse_policy(EXAMPLE, str(path))


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"a = 1\nb = '\xff'\n", "policy-not-toml", 2),
        (b"\xef\xbb\xbf" + EXAMPLE.encode(), "policy-not-toml", 1),
        (b"# " + b"x" * POLICY_LIMIT, "policy-unreadable", 0),
        (b"\x00", "policy-not-toml", 1),
    ],
)
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes, code: str, line: int) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load_policy(path, StateFiles())

    assert (caught.value.code, caught.value.line) == (code, line)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.toml", tmp_path):
        with pytest.raises(PolicyError, match=r"cannot be read|not a regular file") as caught:
            load_policy(path, StateFiles())
        assert caught.value.code == "policy-unreadable"


def test_only_the_loader_reads_files() -> None:
    reading = {"pathlib", "os", "io", "enroll.statefile"}
    readers = {
        path.name
        for path in (ROOT / "agent/policy").glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (isinstance(node, ast.ImportFrom) and node.module in reading)
        or (isinstance(node, ast.Import) and reading & {alias.name for alias in node.names})
        or (isinstance(node, ast.Name) and node.id == "open")
    }

    assert readers == {"load.py"}
