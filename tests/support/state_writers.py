"""Every place in the product that writes a state file, found in its source; so that no new file goes untested."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WRITERS = {"write_record", "write_document", "write_kept", "write_bytes", "write_text", "symlink_to"}
_OF_FILES = {"write", "point"}  # of `StateFiles`, whatever the variable is called
_ARGUMENTS_THAT_MAKE = 3  # of os.open: path, flags, mode
_MODES = ("wb", "w", "ab", "a", "xb", "x", "r+b")
# For trying out, and never part of a scanner's state.
_LEFT_OUT = ("enroll/evaluation/", "agent/cli/demo.py", "agent/cli/try_out.py", "agent/cli/evaluation")


ELSEWHERE = "elsewhere: "
_BELOW = f"{ELSEWHERE}part of all the others"
# How many calls of a module write, and what: patterns below the state directory, or why it is none of these files.
WRITTEN: dict[str, tuple[int, *tuple[str, ...]]] = {
    "agent/audit.py": (1, f"{ELSEWHERE}audit/audit.jsonl, in tests/hostile/test_damaged_audit.py"),
    "agent/cli/options.py": (1, f"{ELSEWHERE}what a command is told to write"),
    "enroll/anchors.py": (1, "anchors/est-????????????????????????????????.pem"),
    "enroll/attestation/kept.py": (1, "identities/*/attestation/*.json"),
    "enroll/certificates.py": (1, _BELOW),
    "enroll/clock_record.py": (1, "clock.json"),
    "enroll/est/first_trust.py": (1, "anchors/est-by-fingerprint.pem"),
    "enroll/failure.py": (1, "identities/*/last-failure.json"),
    "enroll/fdo/credential.py": (1, "fdo/credential.current", "fdo/credential.pending"),
    "enroll/fdo/di.py": (1, "fdo/initializing.json"),
    "enroll/fdo/hand_over.py": (1, "fdo/anchors.pem"),
    "enroll/fdo/onboard.py": (1, "fdo/attempt.json"),
    "enroll/fdo/owner_policy.py": (1, "fdo/approval.json"),
    "enroll/flows/acme/account.py": (1, "acme/account.json"),
    "enroll/flows/offline/ended.py": (1, "identities/*/offline-ended.json"),
    "enroll/generation_files.py": (
        2,
        *(f"identities/*/generations/*/{name}" for name in ("*.pem", "key.uri", "meta.json")),
    ),
    "enroll/generation_use.py": (1, "identities/*/newest.json"),
    "enroll/identity.py": (1, "identities/*/current"),
    "enroll/journal.py": (
        3,
        "identities/*/pending/request.json",
        "identities/*/offline/*/request.json",
        "identities/*/pending/issued.pem",
        "identities/*/pending/intermediates.pem",
    ),
    "enroll/keystore/ledger.py": (1, "ledger/*.json"),
    "enroll/keystore/pkcs11/refused.py": (1, "tokens/*.json"),
    "enroll/keystore/software.py": (1, "keys/*.pem"),
    "enroll/keystore/tpm/__init__.py": (1, f"{ELSEWHERE}the TPM refuses another file: tests/contract/test_tpm.py"),
    "enroll/keystore/tpm/attestation.py": (
        2,
        f"{ELSEWHERE}the TPM refuses another key, and a chain is verified: tests/interop/test_attestation.py",
    ),
    "enroll/offer.py": (1, "identities/*/pending/offer.json"),
    "enroll/owner_record.py": (1, "owner.json"),
    "enroll/owner_release.py": (1, "release.json"),
    "enroll/record.py": (2, _BELOW),
    "enroll/renewal/alarms.py": (1, "identities/*/alarm.json"),
    "enroll/renewal/silence.py": (1, "servers/*.json"),
    "enroll/revocation/record.py": (2, "identities/*/revocation.json", "identities/*/revoked/*.json"),
    "enroll/statefile.py": (2, _BELOW),
    "enroll/suggestion.py": (1, "identities/*/renewal-info.json"),
    "enroll/tls/token_provider.py": (1, f"{ELSEWHERE}in the memory of a process"),
    "enroll/vendor/case.py": (2, "vendor/nonce.json", "vendor/ticket.json"),
    "enroll/wanted.py": (1, "identities/*/wanted.json"),
}


def writers() -> Counter[str]:
    """How many calls that write one each module of the product has: "enroll/journal.py": 3."""
    found = (path.relative_to(ROOT).as_posix() for top in ("enroll", "agent") for path in (ROOT / top).rglob("*.py"))
    return Counter(
        path
        for path in found
        if not path.startswith(_LEFT_OUT)
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        if isinstance(node, ast.Call) and _writes(node)
    )


def _writes(call: ast.Call) -> bool:
    called = call.func
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    of = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
    if name in _OF_FILES:
        return of.endswith("files")
    if name == "open":
        made_with_a_mode = of == "os" and len(call.args) == _ARGUMENTS_THAT_MAKE
        return made_with_a_mode or any(repr(mode) in map(ast.unparse, call.args) for mode in _MODES)
    return name in _WRITERS
